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


def ready(status: str) -> bool:
    return notify("READY=1", f"STATUS={status}")


def status(text: str, extend_s: float | None = None) -> bool:
    """Shows `text` in `systemctl status`; `extend_s` asks for that much more time to start."""
    extra = [] if extend_s is None else [f"EXTEND_TIMEOUT_USEC={int(extend_s * 1_000_000)}"]
    return notify(f"STATUS={text}", *extra)


def stopping() -> bool:
    return notify("STOPPING=1")
