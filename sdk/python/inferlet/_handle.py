"""What stands for a thing of the host, until it is closed."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from inferlet import _host


class Handle:
    def __init__(self, handle: Any) -> None:
        self.handle = handle

    def close(self) -> None:
        """Also done at the end of a `with` block or of the program."""
        self.handle.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Task(Handle):
    """Something under way that ends with one answer."""

    def close(self) -> None:
        """Ends it wherever it is. Also done with the answer, a `with` block or the program."""
        if self.handle is not None:
            super().close()
            self.handle = None

    def _wait(self) -> Any:
        """For the answer, which can be had once."""
        try:
            return _host.call(self.handle.get)
        finally:
            self.close()
