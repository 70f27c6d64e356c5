"""From the component's one export to the author's `run`, and back."""

from __future__ import annotations

import inspect
import json
import linecache
import sys
import traceback
from collections.abc import Callable
from typing import Any

from inferlet import _host, _json
from inferlet.errors import InvalidArgument, PieError

Run = Callable[..., Any]


class Failure(Exception):
    """Carries the text of the error result: JSON of code, message and the author's line."""


def serve(run: Run, input: str, root: str) -> str:
    """Calls the author's `run`, whose files lie under `root`; raises only `Failure`."""
    _fresh_randomness()
    try:
        result = run(_decoded(input)) if _takes_input(run) else run()
        return _encoded(result)
    except PieError as error:
        raise Failure(_described(error.code, error.message, _where(error, root))) from None
    except Exception as error:  # noqa: BLE001 - the edge: a program's bug is its error result
        trace = "".join(traceback.format_exception(error)).replace(f'"{root}', '"')
        _host.runtime.log("error", trace)
        where = _where(error, root)
        raise Failure(_described("internal", _sentence(error, where), where)) from None
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def remember_source(root: str, names: list[str]) -> None:
    """Keeps the text of the author's files, which are gone at run time, for tracebacks."""
    for name in names:
        path = root + name
        lines = linecache.getlines(path)
        # A modification time of None tells `linecache` never to look for the file again.
        linecache.cache[path] = (sum(map(len, lines)), None, lines, path)


def _fresh_randomness() -> None:
    """The generator was seeded while building, so every instance would draw the same numbers."""
    random = sys.modules.get("random")
    if random is not None:
        random.seed()


def _takes_input(run: Run) -> bool:
    return len(inspect.signature(run).parameters) > 0


def _decoded(input: str) -> Any:
    try:
        return json.loads(input) if input.strip() else {}
    except ValueError as error:
        raise InvalidArgument(f"the input is not JSON: {error}") from None


def _encoded(result: Any) -> str:
    try:
        return _json.dumps(result)
    except (TypeError, ValueError) as error:
        raise PieError(f"run() returned what cannot be written as JSON: {error}") from None


def _described(code: str, message: str, where: str | None) -> str:
    described = {"code": code, "message": message}
    if where is not None:
        described["at"] = where
    return _json.dumps(described)


def _sentence(error: Exception, where: str | None) -> str:
    text = traceback.format_exception_only(error)[-1].strip()
    return text if where is None else f"{text} ({where})"


def _where(error: Exception, root: str) -> str | None:
    """The deepest line that the author wrote: `main.py:12 in run`."""
    frames = [
        (frame.f_code, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename.startswith(root)
    ]
    if not frames:
        return None
    code, line = frames[-1]
    return f"{code.co_filename.removeprefix(root)}:{line} in {code.co_name}"
