"""What a model is computed with: sets of operators; a machine takes the fastest that it can."""
