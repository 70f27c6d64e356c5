"""What `forward-pass` makes of a program's wishes, before anything is submitted."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from pie_backend.batch import Adjustment, Probe, Sample
from pie_daemon.errors import PieError
from pie_daemon.host.context import Model
from pie_daemon.host.interfaces import passes
from pie_daemon.host.interfaces.contexts import Context
from pie_daemon.host.interfaces.passes import ForwardPass
from pie_daemon.host.interfaces.sample_options import parse_sample_options
from pie_daemon.host.stop import Stopped
from pie_daemon.host.table import Table
from pie_daemon.scheduler.passes import PassSpec


def model(name: str = "one") -> Model:
    info: Any = SimpleNamespace(vocab_size=20, max_context=64)
    scheduler: Any = SimpleNamespace(
        info=info, new_seed=lambda: 77, drop_context=lambda context: None
    )
    return Model(name, None, scheduler, None)  # type: ignore[arg-type]


@pytest.fixture
def host() -> Any:
    return SimpleNamespace(table=Table(), pass_bytes=0)


@pytest.fixture
def forward(host: Any) -> ForwardPass:
    return ForwardPass(host, Context(model(), 1))


def constraint(allowed: int, of: Model) -> Any:
    """One that allows the tokens of these bits."""
    mask = allowed.to_bytes(3, "little")
    return SimpleNamespace(model=of, matcher=SimpleNamespace(mask=lambda: mask))


def refused(function: Any, *arguments: Any) -> str:
    with pytest.raises(PieError) as caught:
        function(*arguments)
    return f"{caught.value.code}: {caught.value.message}"


def test_masks_and_constraints_hold_together(host: Any, forward: ForwardPass) -> None:
    """For samples and probes; when nothing is left, the call that leaves nothing is refused."""
    passes.sample(host, forward, 0, "{}")
    passes.logit_mask(host, forward, [3, 10, 7])
    passes.follow_constraint(host, forward, constraint(0b11000, forward.context.model))
    passes.probe(host, forward, 0, ("entropy", None))

    asked = forward.spec().questions
    assert [b"\x18\x00\x00"] * 2 == [question.mask for question in asked]
    other = constraint(1, forward.context.model)
    assert "leave no token" in refused(passes.follow_constraint, host, forward, other)
    foreign = constraint(1, model("two"))
    assert "is for two" in refused(passes.follow_constraint, host, forward, foreign)
    assert "19 bits" in refused(passes.logit_mask, host, forward, [0, 19])


def test_questions_keep_their_order_and_options(host: Any, forward: ForwardPass) -> None:
    """Without a seed a fresh one is drawn."""
    slots = [
        passes.sample(host, forward, 2, '{"temperature": 1, "seed": 5, "draw": 3}'),
        passes.probe(host, forward, 1, ("distribution", 4)),
        passes.sample(host, forward, 0, '{"presence_penalty": 1, "logit_bias": {"3": -1}}'),
        passes.probe(host, forward, 0, ("logprobs", [1, 2])),
    ]

    first, second, third, fourth = forward.spec().questions
    assert [0, 1, 2, 3] == slots
    assert isinstance(first, Sample)
    assert isinstance(third, Sample)
    assert (2, 5, 3) == (first.index, first.sampling.seed, first.draw)
    assert (Probe(1, "distribution", 4), Probe(0, "logprobs", 0, [1, 2])) == (second, fourth)
    assert 77 == third.sampling.seed
    adjustment = Adjustment(presence_penalty=1, logit_bias={3: -1})
    assert adjustment == third.sampling.adjustment


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("{", "truncated"),
        ('{"draw": -1}', "draw"),
        ('{"top_p": 0}', "top_p"),
        ('{"tempo": 1}', "unknown key 'tempo'"),
        ('{"stop_tokens": []}', "`generate` has the key 'stop_tokens'"),
        ('{"logprobs": 1}', "`generate` has the key 'logprobs'"),
    ],
)
def test_options_that_are_none_are_refused_by_name(options: str, words: str) -> None:
    """Those of `generate` that are not about drawing as well."""
    assert words in refused(parse_sample_options, options)


def test_what_a_program_holds_is_bounded(
    host: Any, forward: ForwardPass, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over all its forward passes; dropping one makes room."""
    monkeypatch.setattr(passes, "MAX_PASS_BYTES", 100)
    host.table.add(forward)
    passes.give_input(host, forward, [1] * 10, None)
    second = ForwardPass(host, Context(forward.context.model, 2))
    assert "exhausted" in refused(passes.give_input, host, second, [1] * 10, None)
    assert "has its input already" in refused(passes.give_input, host, forward, [1], None)
    forward.close()
    passes.give_input(host, second, [1] * 10, None)
    assert 80 == host.pass_bytes
    monkeypatch.setattr(passes, "MAX_MASK_BYTES", 10)
    assert "exhausted" in refused(passes.attention_mask, host, second, [[0, 64]] * 2)
    assert "64 bits are the most" in refused(passes.attention_mask, host, second, [[0, 65]])


def test_adapters_and_other_models_are_refused(host: Any, forward: ForwardPass) -> None:
    """By name, with nothing submitted."""
    other = ForwardPass(host, Context(model("two"), 2))
    assert "of one model" in refused(passes.submit, host, [forward, other])
    assert "each comes once" in refused(passes.submit, host, [forward, forward])
    adapter = SimpleNamespace(model=other.context.model, name="a", close=lambda: None)
    assert "is for two" in refused(passes.adapt, host, forward, adapter)
    adapter.opening = SimpleNamespace(digest="d1")
    host.table.add(adapter)
    passes.adapt(host, other, adapter)
    assert "d1" == other.spec().adapter
    assert "has its adapter already" in refused(passes.adapt, host, other, adapter)
    forward.is_submitted = True
    assert refused(passes.submit, host, [forward]).startswith("closed")


class Waits:
    """A scheduler and a mailbox: what is submitted is answered, unless the program is stopped."""

    def __init__(self, stopped: bool) -> None:
        self.submitted: list[PassSpec] = []
        self.dropped: list[int] = []
        self._stopped = stopped
        self.info = SimpleNamespace(vocab_size=20, max_context=64)
        self.host: Any = SimpleNamespace(mailbox=SimpleNamespace(wake=None, wait=self._wait))
        self.context = Context(Model("one", None, self, None), 1)  # type: ignore[arg-type]

    def _wait(self, ready: Callable[[], bool], timeout_s: float | None) -> None:
        if self._stopped:
            raise Stopped("cancelled", "by its client")
        assert ready()

    def submit(self, specs: list[PassSpec], wake: None) -> list[int]:
        self.submitted += specs
        return [5]

    def ready(self, request: int) -> bool:
        return request == 5

    def take_answers(self, request: int) -> list[int]:
        return [request + 6]

    def drop_request(self, request: int) -> None:
        self.dropped.append(request)

    def new_seed(self) -> int:
        return 77


def test_the_next_token_is_a_pass_with_one_sample_after_its_last_token() -> None:
    """It is dropped once it is answered."""
    waits = Waits(stopped=False)
    assert passes.next_token(waits.host, waits.context, [1, 2, 3], '{"temperature": 1}') == 11
    [spec] = waits.submitted
    [asked] = spec.questions
    assert isinstance(asked, Sample)
    assert ([1, 2, 3], 2, 77) == (spec.tokens, asked.index, asked.sampling.seed)
    assert waits.dropped == [5]


def test_a_program_that_is_stopped_while_it_waits_leaves_no_pass_behind() -> None:
    waits = Waits(stopped=True)
    with pytest.raises(Stopped):
        passes.next_token(waits.host, waits.context, [], "{}")
    assert waits.dropped == [5]
