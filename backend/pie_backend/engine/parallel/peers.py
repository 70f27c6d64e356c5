"""The other ranks, as rank 0 sees them: child processes that are asked what it is asked."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from pie_backend.base import BackendError, RankLost
from pie_backend.batch import BackendConfig
from pie_backend.channel import Failed, Question, Reply
from pie_backend.child import Child

_MODULE = "pie_backend.engine.parallel.peer"
_PATIENCE_S = 120.0
"""Peers do what rank 0 does at the same time; one that is so late has stopped."""


class Seat(msgspec.Struct, frozen=True):
    """The first thing that a peer is told: what to build and whom to meet."""

    config: BackendConfig
    rank: int
    meeting: str
    """A file that does not exist yet, in a folder that only this user can enter."""


class Peers:
    """Ranks 1, 2, ... They have begun to load the model when the constructor returns."""

    def __init__(self, config: BackendConfig) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="pie-ranks-"))
        self.meeting = str(self._folder / "meeting")
        self._decoder = msgspec.msgpack.Decoder(Reply)
        self._peers: list[Child] = []
        try:
            for rank in range(1, config.tensor_parallel):
                peer = Child(_MODULE, f"process of rank {rank}")
                self._peers.append(peer)
                peer.channel.set_patience(_PATIENCE_S)
                peer.channel.send(Seat(config, rank, self.meeting))
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> list[int]:
        return [peer.pid for peer in self._peers]

    def ask(self, question: Question) -> None:
        """Each answers once; see `replies`. One that is gone is told of there."""
        for peer in self._peers:
            # Whether it arrives shows when the answer does, or when the ranks wait for each other.
            with contextlib.suppress(OSError):
                peer.channel.send(question)

    def replies(self) -> list[Reply]:
        """One of each, in the order of ranks.

        Raises:
            BackendError: one has failed, in its own words, or is gone.
        """
        return [self._reply(rank, peer) for rank, peer in enumerate(self._peers, 1)]

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Says which rank is to blame when the others could not be reached."""
        try:
            yield
        except RankLost as lost:
            for rank, peer in enumerate(self._peers, 1):
                # The one that is gone raises what there is to say; others have lost it as well.
                with contextlib.suppress(RankLost):
                    self._reply(rank, peer)
            raise lost

    def _reply(self, rank: int, peer: Child) -> Reply:
        try:
            frame = peer.channel.receive()
        except TimeoutError as error:
            raise BackendError(
                f"the process of rank {rank} {peer.pid} has not answered for {_PATIENCE_S:.0f} s"
            ) from error
        except OSError as error:
            raise BackendError(peer.obituary()) from error
        if frame is None:
            raise BackendError(peer.obituary())
        reply: Reply = self._decoder.decode(frame)
        if isinstance(reply, Failed):
            kind = RankLost if reply.by_another else BackendError
            raise kind(f"rank {rank}: {reply.message}")
        return reply

    def forget_meeting(self) -> None:
        """All have met."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        """Ends all of them; may be called twice."""
        for peer in self._peers:
            peer.hang_up()
        for peer in self._peers:
            peer.close()
        self.forget_meeting()
