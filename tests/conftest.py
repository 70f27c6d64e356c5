"""What holds for every test."""

import os

# Before anything imports torch: with spinning threads a busy machine makes the tests crawl.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
