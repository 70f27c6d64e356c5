"""Exit codes, the same for every command; scripts and service managers rely on them."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import ParamSpec

from pie_backend.base import BackendError
from pie_client.errors import NotRunning, VersionMismatch
from pie_client.errors import PieError as Refused
from pie_daemon.errors import PieError

OK = 0
FAILED = 1
"""The program failed, or the daemon refused the request."""
USAGE = 64
NO_DAEMON = 69
INTERNAL = 70
CONFIG = 78
INTERRUPTED = 130

_P = ParamSpec("_P")


class UsageError(Exception):
    """The command line cannot be meant; the message says what to write instead."""


def complain(text: str) -> None:
    sys.stderr.write(f"pie: {text}\n")


def guarded(command: Callable[_P, int]) -> Callable[_P, None]:
    """Ends the process with the command's exit code, or with that of what it raised."""

    @functools.wraps(command)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            code = command(*args, **kwargs)
            sys.stdout.flush()
        except BrokenPipeError:
            discard_output()
            code = OK
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the edge of the process
            code = report(error)
        sys.exit(code)

    return run


def discard_output() -> None:
    """The reader of our output has gone; what is still buffered must not fail at the exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def report(error: BaseException) -> int:
    """One line about it on stderr; its exit code."""
    code, text = explain(error)
    if code == INTERNAL and os.environ.get("PIE_DEBUG"):
        raise error
    complain(text)
    return code


def explain(error: BaseException) -> tuple[int, str]:
    # Known by its name: most commands need not import the package of the configuration.
    if type(error).__name__ == "ConfigError":
        return CONFIG, str(error).replace("\n", "\npie: ")
    match error:
        case KeyboardInterrupt():
            return INTERRUPTED, "interrupted"
        case UsageError():
            return USAGE, str(error)
        case BackendError():
            return NO_DAEMON, f"the model cannot be loaded: {error}"
        case NotRunning():
            return NO_DAEMON, f"{error.message}; start one with `pie serve`"
        case VersionMismatch():
            return NO_DAEMON, f"{error.message}; use the `pie` that came with the daemon"
        case Refused(code=code, message=message) | PieError(code=code, message=message):
            return INTERNAL if code == "internal" else FAILED, message
    return INTERNAL, f"internal error: {type(error).__name__}: {error} (PIE_DEBUG=1 shows where)"
