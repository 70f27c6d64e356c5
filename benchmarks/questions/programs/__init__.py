"""Programs against clients that do the same work over HTTP."""
