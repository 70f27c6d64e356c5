"""What schedulers have together that serve one model."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from pie_daemon.scheduler.company import Awake, nobody
from pie_daemon.scheduler.owners import Shares


@dataclass(frozen=True, slots=True)
class Common:
    lock: threading.Lock = field(default_factory=threading.Lock)
    shares: Shares = field(default_factory=Shares)
    awake: Awake = nobody
    """Programs that may be about to ask for something."""
