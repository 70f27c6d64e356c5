"""Kernels in C, compiled for the very processor they run on when they are first needed."""
