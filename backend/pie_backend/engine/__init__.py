"""Runs Hugging Face models on this machine. Importing `pie_backend.engine.engine` imports torch."""
