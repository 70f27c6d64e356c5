"""The instance table: owner of every host object that a program holds by a handle.

A handle is a name. Dropping it gives up the name; the object lives on while another name or a
hold keeps it. After a trap no destructor runs, so the end of the instance closes the table, and
that frees everything by whatever road the instance ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pie_daemon.errors import PieError

DEFAULT_MAX_HANDLES = 65_536


class Table:
    """Names (`rep`) to objects. Belongs to the instance's thread.

    An object that has a method `close()` is told when its last name and hold are gone.
    """

    def __init__(
        self,
        max_handles: int = DEFAULT_MAX_HANDLES,
        on_error: Callable[[BaseException], None] | None = None,
    ) -> None:
        """`on_error` hears of a `close()` that raised; without it the error goes through."""
        self.max_handles = max_handles
        self.on_error = on_error
        self._names: dict[int, Any] = {}
        self._references: dict[int, int] = {}  # id(object) -> names plus holds
        self._objects: dict[int, Any] = {}  # id(object) -> object, in order of arrival
        self._taken: list[Any] = []
        self._next = 1
        self.closed = False
        """The instance has ended: an object closed from now on was not dropped by the program."""

    def __len__(self) -> int:
        """Names in use."""
        return len(self._names)

    @property
    def num_objects(self) -> int:
        return len(self._objects)

    def add(self, value: Any) -> int:
        """A new name for an object, which may have others. Refused, an unowned object is closed."""
        if len(self._names) >= self.max_handles:
            if id(value) not in self._references:
                self._close_one(value)
            raise PieError("exhausted", f"more than {self.max_handles} handles are open; drop some")
        name = self._next
        self._next = name % 0xFFFF_FFFF + 1
        while self._next in self._names:
            self._next = self._next % 0xFFFF_FFFF + 1
        self._names[name] = value
        self.hold(value)
        return name

    def get(self, name: int) -> Any:
        return self._names[name]

    def drop(self, name: int) -> None:
        self.release(self._names.pop(name))

    def take(self, name: int) -> Any:
        """The guest gives an object away for good; it lives until `settle`, or longer if held."""
        value = self._names.pop(name)
        self._taken.append(value)
        return value

    def settle(self) -> None:
        """Gives up what was taken during the host call that ends now."""
        while self._taken:
            self.release(self._taken.pop())

    def hold(self, value: Any) -> None:
        """Keeps an object alive beyond its names; each hold needs its own `release`."""
        key = id(value)
        self._objects[key] = value
        self._references[key] = self._references.get(key, 0) + 1

    def release(self, value: Any) -> None:
        key = id(value)
        left = self._references[key] - 1
        if left:
            self._references[key] = left
            return
        del self._references[key], self._objects[key]
        self._close_one(value)

    def close(self) -> None:
        """Frees every object, newest first; the table is empty afterwards."""
        self.closed = True
        self._names.clear()
        self._taken.clear()
        while self._objects:
            key, value = self._objects.popitem()
            self._references.pop(key, None)
            self._close_one(value)
        self._references.clear()

    def _close_one(self, value: Any) -> None:
        close = getattr(value, "close", None)
        if close is None:
            return
        try:
            close()
        except Exception as error:
            # The others must still be freed.
            if self.on_error is None:
                raise
            self.on_error(error)
