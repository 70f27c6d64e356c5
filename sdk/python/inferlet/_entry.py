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


class Program:
    """The author's `run` ready to serve; made once, while the component is built.

    Args:
        root: Where the author's files lie while building; stripped from what the user reads.
        files: Their names below it.
    """

    def __init__(self, run: Run, root: str, files: list[str]) -> None:
        self._run = run
        self._root = root
        self._takes_input = len(inspect.signature(run).parameters) > 0
        for name in files:
            _remember_source(root + name)

    def serve(self, input: str) -> str:
        """Calls `run` on the decoded input; raises only `Failure`."""
        _fresh_randomness()
        try:
            return _encoded(self._run(_decoded(input)) if self._takes_input else self._run())
        except PieError as error:
            where = _where(error, self._root)
            raise Failure(_described(error.code, error.message, where)) from None
        except Exception as error:  # noqa: BLE001 - the edge: a program's bug is its error result
            raise self._bug(error) from None
        finally:
            sys.stdout.flush()
            sys.stderr.flush()

    def _bug(self, error: Exception) -> Failure:
        own = error.__traceback__.tb_next if error.__traceback__ else None  # without `serve`
        lines = traceback.format_exception(type(error), error, own)
        trace = "".join(lines).replace(f'"{self._root}', '"')
        _host.runtime.log("error", trace)
        where = _where(error, self._root)
        return Failure(_described("program-error", _sentence(error, where), where))


def _remember_source(path: str) -> None:
    """Keeps a file's text, which is gone at run time, for tracebacks."""
    lines = linecache.getlines(path)
    # A modification time of None tells `linecache` never to look for the file again.
    linecache.cache[path] = (sum(map(len, lines)), None, lines, path)


def _fresh_randomness() -> None:
    """The generator was seeded while building, so every instance would draw the same numbers."""
    random = sys.modules.get("random")
    if random is not None:
        random.seed()


def _decoded(input: str) -> Any:
    try:
        return json.loads(input) if input.strip() else {}
    except ValueError as error:
        raise InvalidArgument(f"the input is not JSON: {error}") from None


def _encoded(result: Any) -> str:
    try:
        return _json.dumps(result)
    except (TypeError, ValueError) as error:
        message = f"run() returned what cannot be written as JSON: {error}"
        raise PieError(message, "program-error") from None


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
