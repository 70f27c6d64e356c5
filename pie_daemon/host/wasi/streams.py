"""wasi:io/streams: an empty stdin, and stdout and stderr cut into lines."""

from __future__ import annotations

from pie_daemon.host.abi import Interface, ResultError
from pie_daemon.host.guest import Guest, Stream, current
from pie_daemon.host.wasi.poll import Pollable

# How much a program may hand over in one call (a byte costs 32 on the way), and where a line
# without an end is cut.
WRITE_BYTES = 1 << 16
MAX_LINE_BYTES = 8192
_CLOSED = ("closed", None)


class StreamFailure:
    """wasi:io/error's `error`. No stream of this host makes one."""

    def to_debug_string(self) -> str:
        return "stream failed"


class InputStream:
    """At its end from the beginning."""

    def read(self, _length: int) -> bytes:
        raise ResultError(_CLOSED)

    def skip(self, _length: int) -> int:
        raise ResultError(_CLOSED)

    blocking_read = read
    blocking_skip = skip

    def subscribe(self) -> Pollable:
        return Pollable()


class OutputStream:
    """Collects bytes into lines; whole lines go to `Guest.on_line`."""

    def __init__(self, guest: Guest, name: Stream) -> None:
        self._guest = guest
        self._name: Stream = name
        self._rest = b""

    def check_write(self) -> int:
        return WRITE_BYTES

    def write(self, contents: bytes) -> None:
        *lines, rest = (self._rest + contents).split(b"\n")
        for line in lines:
            self._emit(line)
        while len(rest) > MAX_LINE_BYTES:
            self._emit(rest[:MAX_LINE_BYTES])
            rest = rest[MAX_LINE_BYTES:]
        self._rest = rest

    def write_zeroes(self, length: int) -> None:
        self.write(bytes(min(length, WRITE_BYTES)))

    def flush(self) -> None:
        """Nothing to do: lines leave when they are whole."""

    blocking_flush = flush
    blocking_write_and_flush = write
    blocking_write_zeroes_and_flush = write_zeroes

    def splice(self, _source: InputStream, _length: int) -> int:
        raise ResultError(_CLOSED)

    blocking_splice = splice

    def subscribe(self) -> Pollable:
        return Pollable()

    def finish(self) -> None:
        """The program ended: what follows the last newline is a line too."""
        if self._rest:
            self._emit(self._rest)
            self._rest = b""

    def _emit(self, line: bytes) -> None:
        for start in range(0, max(len(line), 1), MAX_LINE_BYTES):
            text = line[start : start + MAX_LINE_BYTES].decode("utf-8", "replace")
            self._guest.write_line(self._name, text)


def output(name: Stream) -> OutputStream:
    """The one stream of that name of the running instance."""
    guest: Guest = current()
    stream = guest.outputs.get(name)
    if stream is None:
        stream = guest.outputs[name] = OutputStream(guest, name)
    return stream


INTERFACES = [
    Interface("wasi:io/error@0.2.0", resources={"error": StreamFailure}),
    Interface(
        "wasi:io/streams@0.2.0",
        resources={"input-stream": InputStream, "output-stream": OutputStream},
    ),
]
