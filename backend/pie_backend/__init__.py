"""Executes batches of forward passes. Importing this package never imports torch."""

__version__ = "0.1.0"
