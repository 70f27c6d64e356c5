"""Says when it was entered, by its own clock, and waits to be told that it may end."""

import time
from typing import Any

from inferlet import session


def run(input: dict[str, Any]) -> None:
    session.send(str(time.time() * 1000))
    session.receive()
