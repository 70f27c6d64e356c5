"""Forward passes under the program's full control: what goes in, who sees whom, what comes out."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, Unpack, cast

from inferlet import _host, _json
from inferlet._handle import Handle
from inferlet.context import Context, SampleOptions
from inferlet.events import Waitable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Slot(Generic[T]):
    """Names one answer of a pass: `answers[slot]`."""

    number: int


class Answers:
    """What a pass answered, in the order in which samples and probes were attached."""

    def __init__(self, values: list[Any]) -> None:
        self.values = values

    def __getitem__(self, slot: Slot[T]) -> T:
        return cast("T", self.values[slot.number])

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values)

    def __len__(self) -> int:
        return len(self.values)


class _HasHandle(Protocol):
    @property
    def handle(self) -> Any: ...


class ForwardPass:
    """One pass over a context. Its input is appended to the context; sampled tokens are not.

        forward = ForwardPass(context, [token])
        following = forward.sample(temperature=0)
        answers = forward.submit().get()
        token = answers[following]

    `index` counts the input tokens; left out, it is the last one. Without any input the questions
    are about the context's last token, again.
    """

    def __init__(
        self,
        context: Context,
        tokens: Sequence[int] = (),
        positions: Sequence[int] | None = None,
    ) -> None:
        """`positions` go on from the last one unless given, one per token."""
        self.handle: Any = _host.inference.ForwardPass(context.handle)
        self._last = max(0, len(tokens) - 1)
        if tokens:
            given = None if positions is None else list(positions)
            _host.call(self.handle.input, list(tokens), given)

    def attention_mask(self, rows: Sequence[Sequence[int]]) -> None:
        """Which tokens of the whole context each input token sees: one row of run lengths per
        input token, see `masks`. Causal when absent."""
        _host.call(self.handle.attention_mask, [list(row) for row in rows])

    def logit_mask(self, mask: Sequence[int]) -> None:
        """Which tokens of the vocabulary may be drawn, as run lengths; probes see no others."""
        _host.call(self.handle.logit_mask, list(mask))

    def constraint(self, constraint: _HasHandle) -> None:
        """Only what the constraint allows now; the mask does not cross the border."""
        _host.call(self.handle.constraint, constraint.handle)

    def adapter(self, adapter: _HasHandle) -> None:
        """Computes the pass with a LoRA adapter."""
        _host.call(self.handle.adapter, adapter.handle)

    def sample(self, index: int | None = None, **options: Unpack[SampleOptions]) -> Slot[int]:
        """A token drawn after the input token."""
        given = _json.dumps_given(options)
        return Slot(_host.call(self.handle.sample, self._index(index), given))

    def distribution(self, top: int, index: int | None = None) -> Slot[list[tuple[int, float]]]:
        """The likeliest tokens and their probabilities, in descending order."""
        return self._probe(index, _host.inference.Probe_Distribution, top)

    def logits(self, index: int | None = None) -> Slot[array[float]]:
        """Of all tokens of the vocabulary, as `array('f')`."""
        return self._probe(index, _host.inference.Probe_Logits)

    def logprobs(self, tokens: Sequence[int], index: int | None = None) -> Slot[list[float]]:
        """Natural logarithms of the probabilities of these tokens."""
        return self._probe(index, _host.inference.Probe_Logprobs, list(tokens))

    def entropy(self, index: int | None = None) -> Slot[float]:
        """Of the distribution, in nats."""
        return self._probe(index, _host.inference.Probe_Entropy)

    def hidden_state(self, index: int | None = None) -> Slot[array[float]]:
        """After the model's last norm, as `array('f')`."""
        return self._probe(index, _host.inference.Probe_HiddenState)

    def submit(self) -> Pass:
        """Never blocks. Several at once: `submit`."""
        return submit([self])[0]

    def close(self) -> None:
        """Also done by submitting it, and at the end of the program."""
        self.handle.__exit__(None, None, None)

    def _probe(self, index: int | None, kind: Callable[..., Any], *value: Any) -> Slot[Any]:
        return Slot(_host.call(self.handle.probe, self._index(index), kind(*value)))

    def _index(self, index: int | None) -> int:
        return self._last if index is None else index


class Pass(Handle):
    """A submitted pass. Dropping it gives up its answers; its input stays in the context."""

    def __init__(self, handle: Any) -> None:
        super().__init__(handle)
        self._answers: Answers | None = None

    def get(self) -> Answers:
        """Blocks until it is computed."""
        if self._answers is None:
            self._answers = Answers([_answer(slot) for slot in _host.call(self.handle.get)])
        return self._answers

    @property
    def tokens(self) -> list[int]:
        """All that were sampled, in their order; blocks."""
        return [value for value in self.get() if isinstance(value, int)]

    def waitable(self) -> Waitable:
        return Waitable(self.handle.subscribe())


def submit(passes: Sequence[ForwardPass]) -> list[Pass]:
    """One admission for all of them, so that branches land in one batch. Never blocks.

    Passes on one context run in their order.
    """
    handles = _host.call(_host.inference.submit, [one.handle for one in passes])
    for one in passes:
        one.close()
    return [Pass(handle) for handle in handles]


def _answer(slot: Any) -> Any:
    match type(slot).__name__:
        case "Slot_Logits" | "Slot_HiddenState":
            numbers = array("f")
            numbers.frombytes(slot.value)
            return numbers
        case "Slot_Distribution":
            return [(token, probability) for token, probability in slot.value]
        case _:
            return slot.value
