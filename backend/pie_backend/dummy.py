"""A backend without a model, bit-exact under every schedule, for all tests that need no numbers.

It keeps marks where a model keeps KV (see `dummy_memory`), and draws each token from the mark of
the one before it. A page that is wrong, stale, lost or shared by mistake changes the tokens that
follow, or is refused at once; so does a token that was computed with others hidden than it should.
"""

from __future__ import annotations

import struct
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import TypeVar

import msgspec

from pie_backend.base import BackendError, SinglePasses
from pie_backend.batch import (
    AdapterInfo,
    BackendConfig,
    BackendInfo,
    Batch,
    BatchResult,
    Logprobs,
    Probe,
    Probed,
    Row,
    Sample,
    Sampling,
    SeenTokens,
)
from pie_backend.dummy_adapters import DummyAdapters
from pie_backend.dummy_memory import Hidden, Memory, expected_mark, extended_mark, seen_nothing
from pie_backend.dummy_probes import expected_probe
from pie_backend.fingerprint import fingerprint
from pie_backend.model_dir import resolve
from pie_backend.page_files import PageFileError

DEFAULT_NUM_PAGES = 1024
MAX_VOCAB_SIZE = 1 << 24
GREEDY = Sampling()
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What dummy draws from."""

    size: int = 512
    eos_tokens: tuple[int, ...] = (0,)
    max_context: int = 32768
    eos_period: int | None = None
    """About one token in so many is the first of eos_tokens; None: none of them is ever drawn."""
    lag: int | None = None
    """About three of four tokens are the one so many places before; None: no more than by chance.
    Text that can be guessed, for tests of speculation."""


def vocabulary_of(path: str) -> Vocabulary:
    """That of a Hugging Face directory, of `crumb`, or without a path the default one."""
    if not path:
        return Vocabulary()
    model = resolve(path)
    try:
        return Vocabulary(
            size=int(model.config["vocab_size"]),
            eos_tokens=tuple(model.eos_tokens),
            max_context=int(model.config["max_position_embeddings"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BackendError(f"{model.path / 'config.json'} has no usable {error}") from error


def expected_tokens(
    prompt: Sequence[int],
    num_tokens: int,
    sampling: Sampling = GREEDY,
    vocabulary: Vocabulary | None = None,
    hidden: Sequence[Hidden] = (),
    adapters: Sequence[str | None] = (),
) -> list[int]:
    """What a dummy backend generates after a prompt, computed without pages or batches.

    hidden[i] is what token i did not see, adapters[i] what computed it; of all others the last.
    """
    vocabulary = vocabulary or Vocabulary()
    if any(hidden) or any(adapters):
        length = len(prompt) + num_tokens
        unseen, by = _lengthened(hidden, (), length), _lengthened(adapters, None, length)
        return _expected_slowly(list(prompt), num_tokens, sampling, vocabulary, (unseen, by))
    seen, mark = seen_nothing(), b""
    for position, token in enumerate(prompt):
        mark = extended_mark(seen, token, position)
    sequence = list(prompt)
    for draw in range(num_tokens):
        echo = _echo(sequence, vocabulary.lag)
        sequence.append(_draw(mark, sampling, draw, vocabulary, echo=echo))
        mark = extended_mark(seen, sequence[-1], len(prompt) + draw)
    return sequence[len(prompt) :]


def _lengthened(values: Sequence[_T], default: _T, length: int) -> list[_T]:
    last = values[-1] if values else default
    return [*values, *[last] * (length - len(values))]


def _expected_slowly(
    sequence: list[int],
    num_tokens: int,
    sampling: Sampling,
    vocabulary: Vocabulary,
    how: tuple[Sequence[Hidden], Sequence[str | None]],
) -> list[int]:
    length = len(sequence)
    for draw in range(num_tokens):
        mark, echo = expected_mark(sequence, *how), _echo(sequence, vocabulary.lag)
        sequence.append(_draw(mark, sampling, draw, vocabulary, echo=echo))
    return sequence[length:]


def expected_logprobs(tokens: Sequence[int], num_top: int, vocab_size: int) -> list[Logprobs]:
    """What a dummy backend reports with the tokens it generates."""
    return [_logprobs(token, num_top, vocab_size) for token in tokens]


def _logprobs(token: int, num_top: int, vocab_size: int) -> Logprobs:
    """No distribution, but one to recognise the token by; exact as 32-bit floats."""
    chosen = -(token % 64) / 8
    return Logprobs(chosen, [((token + i) % vocab_size, chosen - i) for i in range(num_top)])


def _counts(sequence: Sequence[int], sample: Sample) -> dict[int, int]:
    """What a sample's counts have to say about the sequence, which ends with `draw` drawn ones."""
    adjustment = sample.sampling.adjustment
    if adjustment is None or not adjustment.looks_back:
        return {}
    drawn = sequence[len(sequence) - sample.draw :]
    counts = Counter(dict.fromkeys(sequence if adjustment.counts_prompt else drawn, 0))
    counts.update(drawn)
    return counts


def _draw(
    mark: bytes,
    sampling: Sampling,
    draw: int,
    vocabulary: Vocabulary,
    mask: bytes | None = None,
    echo: int | None = None,
) -> int:
    """A hash has no likeliest tokens: filters mean nothing, the temperature only switches the seed,
    penalties and biases lead to other tokens, and a mask to the next one that it allows. Three
    times in four it is the `echo`, if there is one."""
    digest = blake2b(mark, digest_size=8)
    if sampling.adjustment is not None:
        *penalties, biases = msgspec.structs.astuple(sampling.adjustment)
        digest.update(msgspec.msgpack.encode((penalties, sorted(biases.items()))))
    if sampling.temperature > 0:
        digest.update(struct.pack("<QQ", sampling.seed, draw))
    number = int.from_bytes(digest.digest(), "little")
    period = vocabulary.eos_period
    ends = [token for token in vocabulary.eos_tokens if _allows(mask, token)]
    if ends and period is not None and (number >> 32) % period == 0:
        return ends[0]
    if (
        echo is not None
        and (number >> 40) % 4
        and echo not in vocabulary.eos_tokens
        and _allows(mask, echo)
    ):
        return echo
    for token in chain(range(number % vocabulary.size, vocabulary.size), range(vocabulary.size)):
        if token not in vocabulary.eos_tokens and _allows(mask, token):
            return token
    return ends[0]


def _echo(sequence: Sequence[int], lag: int | None) -> int | None:
    """The token so many places before the next one."""
    return None if lag is None or len(sequence) < lag else sequence[-lag]


def _allows(mask: bytes | None, token: int) -> bool:
    return mask is None or bool(mask[token // 8] >> token % 8 & 1)


class DummyBackend(SinglePasses):
    """Refuses every batch that a real backend would compute wrong numbers from."""

    def __init__(self, config: BackendConfig, vocabulary: Vocabulary | None = None) -> None:
        self.vocabulary = vocabulary or vocabulary_of(config.path)
        if self.vocabulary.size > MAX_VOCAB_SIZE:
            raise BackendError(f"dummy takes vocabularies up to {MAX_VOCAB_SIZE} tokens")
        num_pages = DEFAULT_NUM_PAGES if config.kv_pages is None else config.kv_pages
        self._info = BackendInfo(
            name=config.name,
            architecture="dummy",
            vocab_size=self.vocabulary.size,
            max_context=self.vocabulary.max_context,
            page_size=config.page_size,
            num_pages=num_pages,
            page_bytes=0,
            eos_tokens=list(self.vocabulary.eos_tokens),
            device="cpu",
            dtype="none",
            num_host_pages=config.host_pages,
            revision=fingerprint(resolve(config.path).path) if config.path else "dummy",
        )
        self._memory = Memory(num_pages, config.page_size)
        self._adapters = DummyAdapters(config.adapter_bytes)
        self._closed = False

    @property
    def info(self) -> BackendInfo:
        return self._info

    def execute(self, batch: Batch) -> BatchResult:
        if self._closed:
            raise BackendError("the dummy backend is closed")
        self._check(batch)
        self._move(batch)
        failure = self._move_files(batch)
        for source, destination in batch.copies:
            self._memory.copy(source, destination)
        answers = [self._compute(row) for row in batch.rows]
        tokens = [drawn for drawn, _ in answers]
        probes = [probed for _, probed in answers]
        logprobs = [
            [self._logprobs(*pair) for pair in zip(row.samples, drawn, strict=True)]
            for row, drawn in zip(batch.rows, tokens, strict=True)
        ]
        return BatchResult(
            batch.step,
            tokens,
            logprobs if any(map(any, logprobs)) else [],
            probes if any(probes) else [],
            file_failure=failure,
        )

    def load_adapter(self, path: str) -> AdapterInfo:
        return self._adapters.load(Path(path))

    def unload_adapter(self, digest: str) -> None:
        self._adapters.unload(digest)

    def close(self) -> None:
        self._closed = True

    def _move_files(self, batch: Batch) -> str | None:
        try:
            if batch.store is not None:
                self._memory.store(batch.store)
            if batch.load is not None:
                self._memory.load(batch.load)
        except PageFileError as error:
            return str(error)
        return None

    def _move(self, batch: Batch) -> None:
        for page, slot in batch.evict:
            self._memory.evict(page, slot)
        for slot, page in batch.restore:
            self._memory.restore(slot, page)

    def _compute(self, row: Row) -> tuple[list[int], list[Probed]]:
        """What it draws, and what its probes see."""
        marks = self._memory.write(row)
        return (
            [self._sample(row, sample, marks[sample.index]) for sample in row.samples],
            [self._probe(probe, marks[probe.index]) for probe in row.probes],
        )

    def _probe(self, probe: Probe, mark: bytes) -> Probed:
        chosen = _draw(mark, GREEDY, 0, self.vocabulary, probe.mask)
        return expected_probe(probe, chosen, self.vocabulary.size, mark)

    def _sample(self, row: Row, sample: Sample, mark: bytes) -> int:
        if sample.seen is not None or sample.sampling.adjustment is not None:
            self._check_counts(row, sample)
        return _draw(
            mark,
            sample.sampling,
            sample.draw,
            self.vocabulary,
            sample.mask,
            self._echo(row, sample),
        )

    def _echo(self, row: Row, sample: Sample) -> int | None:
        if self.vocabulary.lag is None:
            return None
        sequence = self._memory.tokens(row, row.start + sample.index + 1)
        return _echo(sequence, self.vocabulary.lag)

    def _logprobs(self, sample: Sample, token: int) -> Logprobs | None:
        num_top = sample.sampling.logprobs
        return None if num_top is None else _logprobs(token, num_top, self.vocabulary.size)

    def _check_counts(self, row: Row, sample: Sample) -> None:
        wanted = _counts(self._memory.tokens(row, row.start + sample.index + 1), sample)
        given = sample.seen or SeenTokens(b"", b"")
        counts = Counter(dict.fromkeys(array("i", given.prompt), 0))
        counts.update(array("i", given.drawn))
        if counts != wanted:
            raise BackendError("a sample counts tokens that its context does not have")

    def _check(self, batch: Batch) -> None:
        read: set[int] = set()
        written: list[int] = []
        for row in batch.rows:
            self._check_row(row)
            first = row.start // self.info.page_size
            read.update(row.pages[:first])
            written.extend(row.pages[first:])
        if len(set(written)) != len(written):
            raise BackendError("two rows write one page")
        if not read.isdisjoint(written):
            raise BackendError("one row writes a page that another one reads")
        for pair in batch.copies:
            self._check_pages(pair)
        for file in (batch.store, batch.load):
            self._check_pages(file.pages if file else [])
        self._check_moves(batch)

    def _check_moves(self, batch: Batch) -> None:
        self._check_pages([page for page, _ in batch.evict])
        self._check_pages([page for _, page in batch.restore])
        slots = [*(slot for _, slot in batch.evict), *(slot for slot, _ in batch.restore)]
        if not all(0 <= slot < self.info.num_host_pages for slot in slots):
            raise BackendError(f"a slot is outside [0, {self.info.num_host_pages})")

    def _check_row(self, row: Row) -> None:
        end = row.start + len(row.tokens)
        if not row.tokens or row.start < 0:
            raise BackendError("a row needs tokens and a start that is not negative")
        self._adapters.check(row.adapter)
        self._check_questions(row)
        if (complaint := row.complaint_about_attention()) is not None:
            raise BackendError(f"a row {complaint}")
        if not row.hides_in_order:
            raise BackendError(f"a row hides {row.hidden}, which are not ranges in order")
        if end > self.info.max_context:
            raise BackendError(f"a row ends at {end}, beyond {self.info.max_context}")
        if len(row.pages) * self.info.page_size < end:
            raise BackendError(f"{len(row.pages)} pages do not hold {end} tokens")
        if not all(0 <= token < self.info.vocab_size for token in row.tokens):
            raise BackendError("a row has a token outside the vocabulary")
        self._check_pages(row.pages)

    def _check_questions(self, row: Row) -> None:
        asked = [("sample", one.index) for one in row.samples]
        asked += [("probe", one.index) for one in row.probes]
        for kind, index in asked:
            if not 0 <= index < len(row.tokens):
                raise BackendError(f"a {kind} is after none of the row's {len(row.tokens)} tokens")

    def _check_pages(self, pages: Sequence[int]) -> None:
        if not all(0 <= page < self.info.num_pages for page in pages):
            raise BackendError(f"a page is outside [0, {self.info.num_pages})")
