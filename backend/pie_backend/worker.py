"""The worker process: builds a backend, answers batches, ends with its parent.

Run as `python -m pie_backend.worker FD`, where FD is one end of a socket pair. Peers of a worker
are the same with another way to build what answers.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable

import msgspec

from pie_backend.base import AdapterError, Backend, BackendError, RankLost, SinglePasses, Tell
from pie_backend.batch import BackendConfig, Batch, BatchResult
from pie_backend.bursts import Bursts
from pie_backend.channel import (
    AdapterLoaded,
    AdapterRefused,
    AdapterUnloaded,
    Channel,
    Done,
    Failed,
    Interrupt,
    LoadAdapter,
    Question,
    Ready,
    Reply,
    Told,
    UnloadAdapter,
)
from pie_backend.create import build_kind

NICE = 5
"""Added to the daemon's. Its threads and its clients compute for moments, which nothing of a batch
should hold up."""

Build = Callable[[bytearray], SinglePasses]
"""From the first frame that the parent sends."""


def main(fd: int, build: Build) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sock = socket.socket(fileno=fd)
    threading.Thread(target=_end_with_parent, args=[sock], daemon=True).start()
    channel = Channel(sock)
    try:
        _serve(channel, build)
    except (BackendError, OSError, MemoryError, ImportError) as error:
        by_another = isinstance(error, RankLost)
        return _fail(channel, Failed(str(error) or type(error).__name__, by_another))
    except Exception as error:  # noqa: BLE001 - the edge of the process: the parent must hear of it
        sys.excepthook(type(error), error, error.__traceback__)
        return _fail(channel, Failed(f"internal error in the worker: {error!r}"))
    return 0


def _serve(channel: Channel, build: Build) -> None:
    frame = channel.receive()
    if frame is None:
        return
    # While a batch is computed, nothing else can come than its interruption.
    backend = Bursts(build(frame), channel.has_more)
    channel.send(Ready(backend.info))
    _answer(channel, backend)


def _answer(channel: Channel, backend: Backend) -> None:
    decoder: msgspec.msgpack.Decoder[Question] = msgspec.msgpack.Decoder(Question)

    def tell(result: BatchResult) -> None:
        channel.send(Told(result))

    while (frame := channel.receive()) is not None:
        question = decoder.decode(frame)
        if isinstance(question, Interrupt):
            backend.interrupt(question.step)
        else:
            channel.send(_reply(backend, question, tell))
    backend.close()


def _reply(backend: Backend, question: Batch | LoadAdapter | UnloadAdapter, tell: Tell) -> Reply:
    try:
        match question:
            case Batch(told=True):
                return Done(backend.execute_telling(question, tell))
            case Batch():
                return Done(backend.execute(question))
            case LoadAdapter(path=path):
                return AdapterLoaded(backend.load_adapter(path))
            case UnloadAdapter(digest=digest):
                backend.unload_adapter(digest)
                return AdapterUnloaded()
    except AdapterError as error:
        return AdapterRefused(error.code, error.message, error.no_room)


def _build(frame: bytearray) -> SinglePasses:
    return build_kind(msgspec.msgpack.decode(frame, type=BackendConfig))


def _fail(channel: Channel, last: Failed) -> int:
    # Without a parent there is nobody left who could read it.
    with contextlib.suppress(OSError):
        channel.send(last)
    return 1


def _end_with_parent(sock: socket.socket) -> None:
    """Ends this process at once when the other end hangs up, even in the middle of a batch."""
    poll = select.poll()
    poll.register(sock, 0)
    poll.poll()
    os._exit(0)


if __name__ == "__main__":
    os.nice(NICE)  # ranks inherit it
    sys.exit(main(int(sys.argv[1]), _build))
