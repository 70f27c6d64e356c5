"""The process of a rank other than 0: `python -m pie_backend.engine.parallel.peer FD`."""

from __future__ import annotations

import sys

import msgspec

from pie_backend import worker
from pie_backend.base import SinglePasses
from pie_backend.batch import AdapterInfo, BackendInfo, Batch, BatchResult
from pie_backend.engine.engine import Engine, build_engine
from pie_backend.engine.parallel.group import join
from pie_backend.engine.parallel.peers import Seat


class Peer(SinglePasses):
    """Implements `Backend`; what was drawn is rank 0's to tell."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def info(self) -> BackendInfo:
        return self._engine.info

    def execute(self, batch: Batch) -> BatchResult:
        result = self._engine.execute(batch)
        return BatchResult(result.step, [], file_failure=result.file_failure)

    def load_adapter(self, path: str) -> AdapterInfo:
        return self._engine.load_adapter(path)

    def unload_adapter(self, digest: str) -> None:
        self._engine.unload_adapter(digest)

    def close(self) -> None:
        self._engine.close()


def build(frame: bytearray) -> Peer:
    """Raises: BackendError."""
    seat = msgspec.msgpack.decode(frame, type=Seat)
    team = join(seat.meeting, seat.rank, seat.config.tensor_parallel)
    return Peer(build_engine(seat.config, team))


if __name__ == "__main__":
    sys.exit(worker.main(int(sys.argv[1]), build))
