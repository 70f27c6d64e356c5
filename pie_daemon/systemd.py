"""The notify protocol of systemd: one datagram per call, nothing at all outside of it."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


def notify(*assignments: str, environ: Mapping[str, str] | None = None) -> bool:
    """Sends `READY=1`, `STATUS=...`, `STOPPING=1` and the like; False when nobody listens."""
    address = (os.environ if environ is None else environ).get("NOTIFY_SOCKET")
    if not address:
        return False
    # A leading @ stands for a name in the abstract namespace.
    target = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.sendto("\n".join(assignments).encode(), target)
    except OSError:
        return False
    return True
