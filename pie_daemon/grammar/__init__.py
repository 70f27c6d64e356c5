"""Constraints: what text a generation may become, as a mask over the vocabulary for each token."""
