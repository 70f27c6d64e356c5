"""`python -m pie_daemon` is `pie`."""

from __future__ import annotations

from pie_daemon.cli import main

main()
