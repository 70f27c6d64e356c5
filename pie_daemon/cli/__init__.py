"""The command `pie`. Importing this package imports nothing heavy."""

from __future__ import annotations


def main() -> None:
    """Entry point of the script; exits the process with one of `pie_daemon.cli.exits`."""
    from pie_daemon.cli.app import run

    run()
