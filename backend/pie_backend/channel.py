"""Frames between a daemon and its worker process: a length, then msgpack."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading

import msgspec

from pie_backend.batch import AdapterInfo, BackendInfo, Batch, BatchResult

_HEADER = struct.Struct("<I")


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The worker's first message when its model is loaded."""

    info: BackendInfo


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The worker's last message: it ends after this."""

    message: str
    by_another: bool = False
    """Only because another rank is lost."""


class Done(msgspec.Struct, frozen=True, tag="done"):
    result: BatchResult


class Told(msgspec.Struct, frozen=True, tag="told"):
    """One pass of a burst that goes on; `Done` comes after the last."""

    result: BatchResult


class LoadAdapter(msgspec.Struct, frozen=True, tag="load-adapter"):
    path: str


class UnloadAdapter(msgspec.Struct, frozen=True, tag="unload-adapter"):
    digest: str


class Interrupt(msgspec.Struct, frozen=True, tag="interrupt"):
    """Ends the burst of a batch before its time. Has no reply, and may come late or early."""

    step: int


class AdapterLoaded(msgspec.Struct, frozen=True, tag="adapter-loaded"):
    info: AdapterInfo


class AdapterUnloaded(msgspec.Struct, frozen=True, tag="adapter-unloaded"):
    pass


class AdapterRefused(msgspec.Struct, frozen=True, tag="adapter-refused"):
    """The worker goes on."""

    code: str
    message: str
    no_room: bool


Question = Batch | LoadAdapter | UnloadAdapter | Interrupt
"""What a worker is asked once its model is loaded; each has one reply but the last."""

Reply = Ready | Failed | Told | Done | AdapterLoaded | AdapterUnloaded | AdapterRefused


class Channel:
    """Whole frames over a stream socket. One thread receives; several may send."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._encoder = msgspec.msgpack.Encoder()
        self._sending = threading.Lock()
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def set_patience(self, timeout_s: float) -> None:
        """From now on whoever waits longer gets a TimeoutError."""
        self._socket.settimeout(timeout_s)

    def send(self, message: msgspec.Struct) -> None:
        """Raises OSError when the other side is gone."""
        with self._sending:
            body = self._encoder.encode(message)
            self._socket.sendall(_HEADER.pack(len(body)) + body)

    def has_more(self) -> bool:
        """A frame has begun to come, or the other side is gone."""
        return bool(self._poll.poll(0))

    def receive(self) -> bytearray | None:
        """The next frame, or None when the other side is gone."""
        header = self._receive_exactly(_HEADER.size)
        return header and self._receive_exactly(_HEADER.unpack(header)[0])

    def _receive_exactly(self, size: int) -> bytearray | None:
        data = bytearray(size)
        view = memoryview(data)
        filled = 0
        while filled < size:
            try:
                count = self._socket.recv_into(view[filled:])
            except ConnectionError:
                return None
            if count == 0:
                return None
            filled += count
        return data

    def close(self) -> None:
        """Wakes a thread that is blocked in `receive`, here or on the other side."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
