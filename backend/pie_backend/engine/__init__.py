"""Runs Hugging Face models on this machine. Importing `pie_backend.engine.engine` imports torch."""

import os

# Read once, when torch loads its OpenMP runtime. Threads that spin while they wait for each other
# make a token forty times slower as soon as anything else wants a core (a compiler, a program).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# But a step is a hundred products of a tenth of a millisecond, and a thread that sleeps wakes up
# late for each: so it spins for about as long as the gap between two, and sleeps then.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
