"""The inferlet folder: a file dropped there is a deployment."""
