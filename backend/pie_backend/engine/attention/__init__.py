"""Attention over pages: one protocol, one file per kind of device."""
