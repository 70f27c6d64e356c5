"""Pie's own ways to do a load, from the engine's bare loop to programs of the daemon."""
