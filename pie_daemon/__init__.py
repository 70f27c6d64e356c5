"""Pie: an LLM server for programs, not only prompts."""

__version__ = "0.1.0"
