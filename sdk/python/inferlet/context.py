"""A token sequence with its KV cache, owned by the program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack

from inferlet import _host, _json
from inferlet._handle import Handle
from inferlet.adapter import Adapter
from inferlet.constraint import Constraint
from inferlet.generation import Generation
from inferlet.model import Model


class NgramSpeculation(TypedDict, total=False):
    """How tokens are guessed from repetitions."""

    max_draft: int
    """Tokens guessed at a time, 0 to 32; default 8."""
    min_match: int
    """So many of the last tokens must have occurred before, 1 to 16; default 2."""
    max_match: int
    """The longest match up to so many tokens is gone by, up to 16; default 4."""


class GenerateOptions(TypedDict, total=False):
    """What `generate` takes; `schemas/generate.json` beside the WIT is the full description."""

    max_tokens: int | None
    temperature: float | None
    """0 takes the most likely token every time."""
    top_k: int | None
    top_p: float | None
    min_p: float | None
    seed: int | None
    stop_strings: Sequence[str] | None
    stop_tokens: Sequence[int] | None
    ignore_eos: bool | None
    chunk_tokens: int | None
    """How many tokens a chunk holds at least; 0 hands everything over at the end."""
    repetition_penalty: float | None
    """Above 1 against tokens that occurred, in the context or since."""
    presence_penalty: float | None
    """Above 0 against tokens that this generation has drawn."""
    frequency_penalty: float | None
    """The same, once for every time."""
    logit_bias: Mapping[int, float] | None
    """By token id, added to the logits; -100 never draws the token, 100 draws no other."""
    logprobs: int | None
    """Report log probabilities of the drawn token and of so many of the likeliest."""
    ngram_speculation: int | NgramSpeculation | None
    """Guess tokens from repetitions, so many at a time, and verify them together: faster where text
    is copied, and the same output always."""


class SampleOptions(TypedDict, total=False):
    """How one token is drawn; `schemas/sample.json` beside the WIT is the full description."""

    temperature: float | None
    """0 takes the most likely token."""
    top_k: int | None
    top_p: float | None
    min_p: float | None
    seed: int | None
    """Left out, every sample takes a fresh one."""
    draw: int | None
    """How many of the context's last tokens were drawn before. With the same seed, draws 0, 1, 2,
    ... are those of `generate`; presence and frequency penalties count these tokens."""
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    logit_bias: Mapping[int, float] | None


def saved() -> list[str]:
    """The names under which this user's programs have saved contexts, in order."""
    return list(_host.call(_host.contexts.saved))


def delete_saved(name: str) -> None:
    """Contexts opened from it stay. Raises `NotFound` when there is none."""
    _host.call(_host.contexts.delete_saved, name)


class Context(Handle):
    """Lives until closed, which gives its KV cache back; forks in O(1), and is never freed behind
    the program's back.

    While a generation runs on it, every call that changes it raises `Busy`.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.handle: Any = _host.call(_host.contexts.Context.create, model.handle)

    @classmethod
    def open(cls, name: str) -> Context:
        """A fork of the context that a program of this user has saved under that name."""
        context = object.__new__(cls)
        context.handle = _host.call(_host.contexts.Context.open, name)
        context.model = Model.open(context.handle.model_name())
        return context

    def __len__(self) -> int:
        return self.length

    @property
    def length(self) -> int:
        """Tokens in it, those appended but not yet computed included."""
        return int(self.handle.length())

    def tokens(self, start: int = 0, end: int | None = None) -> list[int]:
        """Token ids of [start, end)."""
        return list(_host.call(self.handle.tokens, start, self.length if end is None else end))

    def append(self, tokens: Sequence[int]) -> None:
        """Queues tokens; the next generation or `flush` computes them."""
        _host.call(self.handle.append, list(tokens))

    def append_text(self, text: str) -> int:
        """Appends the tokens of `text` and returns how many they are."""
        return int(_host.call(self.handle.append_text, text))

    def flush(self) -> None:
        """Blocks until everything appended is in the KV cache."""
        _host.call(self.handle.flush)

    def truncate(self, length: int) -> None:
        """Keeps the first `length` tokens."""
        _host.call(self.handle.truncate, length)

    def fork(self) -> Context:
        """A second context with the same content; the two go separate ways from here."""
        fork = object.__new__(Context)
        fork.model = self.model
        fork.handle = _host.call(self.handle.fork)
        return fork

    def hide(self, start: int, end: int | None = None) -> None:
        """Nothing that is computed from now on sees tokens [start, end); positions stay.

        This holds for appended tokens that nothing has asked to compute yet, and for the last
        token, from which the next one is drawn. What was computed before keeps what it saw.
        """
        self._set_visible(start, end, False)

    def show(self, start: int = 0, end: int | None = None) -> None:
        """Ends a `hide` for tokens [start, end). Their KV is there still."""
        self._set_visible(start, end, True)

    def _set_visible(self, start: int, end: int | None, visible: bool) -> None:
        _host.call(self.handle.set_visible, start, self.length if end is None else end, visible)

    def save(self, name: str, *, durable: bool = False) -> None:
        """Under that name for all programs of this user, in place of what was there.

        A durable one is on the disk once this returns, and outlives the daemon. KV that is neither
        in the cache any more when the context is opened, nor on the disk, is computed again.
        """
        _host.call(self.handle.save, name, durable)

    def set_priority(self, priority: int) -> None:
        """Among requests of programs from one launch, the highest is served first; 0 at first.

        Cut to what the program is granted.
        """
        _host.call(self.handle.set_priority, priority)

    def next_token(self, tokens: Sequence[int] = (), **options: Unpack[SampleOptions]) -> int:
        """Appends `tokens` and draws the token after the last of them; blocks. Without any, the
        one after the context's last token. It is not appended.

        What a `ForwardPass` of the same input with one sample answers, in one call of the host
        instead of seven.
        """
        given = _json.dumps_given(options)
        return int(_host.call(_host.inference.next_token, self.handle, list(tokens), given))

    def generate(
        self,
        *,
        constraint: Constraint | None = None,
        adapter: Adapter | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Generation:
        """Starts decoding after the last token; see `GenerateOptions`.

        With a constraint the text keeps to it, from where it stands now, and ends when nothing may
        follow; the constraint itself stays where it is.
        An adapter computes what is not computed yet and what is drawn; what is computed stays.
        """
        lora = None if adapter is None else adapter.handle
        return Generation(
            _host.call(
                _host.inference.generate,
                self.handle,
                _json.dumps_given(options),
                None if constraint is None else constraint.handle,
                lora,
            )
        )
