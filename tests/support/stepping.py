"""A scheduler state on a dummy backend, driven step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pie_backend.base import Backend
from pie_backend.batch import BackendConfig, Batch, BatchResult
from pie_backend.dummy import DummyBackend, Vocabulary, expected_tokens
from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.scheduler.delivery import Delivery, Lost
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.policy import FollowTheFirst
from pie_daemon.scheduler.pressure import Expectation
from pie_daemon.scheduler.state import SchedulerState


def letters(token: int) -> bytes:
    """Bytes of a token: one letter of `a` to `z`."""
    return bytes([ord("a") + token % 26])


class Stepper:
    """`state` is under test; every landing proves the page accounting."""

    def __init__(  # noqa: PLR0913 - a test names what it changes
        self,
        *,
        num_pages: int = 64,
        host_pages: int = 0,
        page_size: int = 4,
        config: SchedulerConfig | None = None,
        vocabulary: Vocabulary | None = None,
        follow: FollowTheFirst | None = None,
        expectation: Expectation | None = None,
        backend: Backend | None = None,
    ) -> None:
        """`backend`: another one than dummy, which then has its own pool."""
        self.vocabulary = vocabulary or Vocabulary()
        dummy = BackendConfig(
            name="dummy",
            kind="dummy",
            path="",
            page_size=page_size,
            kv_pages=num_pages,
            host_pages=host_pages,
        )
        self.build: Callable[[], Backend] = lambda: DummyBackend(dummy, self.vocabulary)
        """What comes after a backend that dies."""
        self.backend = backend or self.build()
        self.now_s = 0.0
        self.state = SchedulerState(
            self.backend.info,
            config or SchedulerConfig(),
            letters,
            lambda: self.now_s,
            follow,
            expectation,
        )
        self.batches: list[Batch] = []

    def depart(self) -> Batch | None:
        batch = self.state.decide()
        if batch is not None:
            self.batches.append(batch)
        return batch

    def land(self) -> Delivery:
        batch = self.batches[-1]
        if batch.told:
            result = self.backend.execute_telling(batch, self.hear)
        else:
            result = self.backend.execute(batch)
        delivery = self.state.complete(result)
        self.state.check()
        return delivery

    def hear(self, result: BatchResult) -> None:
        """A pass of a burst that goes on."""
        self.state.complete(result, goes_on=True)
        self.state.check()

    def die(self) -> Lost:
        """The backend ends, in the middle of a batch if one has departed, and the next one comes;
        both tell the state what there is now."""
        self.backend.close()
        lost = self.state.lose_backend(self.state.info, "it was killed")
        self.state.check()
        self.backend = self.build()
        self.state.lose_backend(self.backend.info, "it was started again")
        self.state.check()
        return lost

    def step(self) -> Batch | None:
        batch = self.depart()
        if batch is not None:
            self.land()
        return batch

    def run(self) -> int:
        """Steps until there is nothing to compute; how many batches that took."""
        num_steps = 0
        while self.step() is not None:
            num_steps += 1
        return num_steps

    def context(self, tokens: Sequence[int], owner: str = "one") -> int:
        context = self.state.create_context(owner)
        self.state.append(context, tokens)
        return context

    def start(self, tokens: Sequence[int], num_tokens: int, owner: str = "one") -> int:
        """A generation on a context of its own."""
        context = self.context(tokens, owner)
        return self.state.generate(context, GenerateParams(max_tokens=num_tokens))

    def drain(self, request: int) -> list[int]:
        """All tokens that are ready."""
        tokens: list[int] = []
        while (chunk := self.state.take(request)) is not None:
            tokens += chunk.tokens
        return tokens

    def expected(self, prompt: Sequence[int], num_tokens: int) -> list[int]:
        return expected_tokens(prompt, num_tokens, vocabulary=self.vocabulary)
