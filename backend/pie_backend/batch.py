"""What crosses the border between scheduler and backend: plain data, msgpack-encodable.

Rows and what is in them are `gc=False`: a batch has thousands, and no cycle can go through any.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import msgspec

FORCING_BIAS = 100.0
"""A bias of so much leaves the token only others that have it; its negative never draws it."""


class Adjustment(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What changes the logits before a token is drawn, in the order of the fields."""

    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of tokens in the context; 1 is off."""
    presence_penalty: float = 0.0
    """Taken off the logits of tokens drawn before; 0 is off."""
    frequency_penalty: float = 0.0
    """Taken off once for every time the token was drawn before; 0 is off."""
    logit_bias: dict[int, float] = {}
    """Added by token id, within [-FORCING_BIAS, FORCING_BIAS]."""

    @property
    def counts_prompt(self) -> bool:
        return self.repetition_penalty != 1

    @property
    def counts_drawn(self) -> bool:
        return self.presence_penalty != 0 or self.frequency_penalty != 0

    @property
    def looks_back(self) -> bool:
        """At tokens that occurred."""
        return self.counts_prompt or self.counts_drawn


class SeenTokens(msgspec.Struct, frozen=True, gc=False):
    """What penalties look at: ids as int32 in the byte order of this machine, in any order, and as
    often as they occurred."""

    prompt: bytes
    """Of the prompt, if a repetition penalty looks at it; how often does not matter."""
    drawn: bytes
    """By this generation."""


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """How one token is drawn from one row's logits."""

    temperature: float = 0.0
    """0 is greedy; the lowest id wins ties."""
    top_k: int = 0
    """Keep the k most likely tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of tokens whose probability reaches top_p; 1 keeps all."""
    min_p: float = 0.0
    """Drop tokens below min_p times the likeliest one's probability; 0 keeps all."""
    seed: int = 0
    """64 bits. A draw depends on (seed, draw) alone, never on the batch."""
    adjustment: Adjustment | None = None
    """None leaves the logits as they are. Greedy draws are adjusted too."""
    logprobs: int | None = None
    """Report the drawn token's log probability and so many of the likeliest; None: none at all."""


class Sample(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One token to draw from the logits after one of a row's tokens."""

    index: int
    """Which of the row's tokens, from 0."""
    sampling: Sampling
    draw: int = 0
    """The RNG counter: how many tokens this generation has drawn before. Unused when greedy."""
    seen: SeenTokens | None = None
    """Of the context up to that token; None unless `sampling` has a penalty. Sent whole with every
    batch, so that a backend has nothing to remember."""
    mask: bytes | None = None
    """Which tokens may be drawn: bit i % 8 of byte i // 8 is token i; ceil(vocab / 8) bytes with at
    least one bit set. It comes after penalties and biases, and wins. None allows all."""

    @property
    def is_plain(self) -> bool:
        """Nothing but the likeliest token is asked for."""
        wanted = self.sampling
        return (
            wanted.temperature == 0
            and wanted.adjustment is None
            and wanted.logprobs is None
            and self.mask is None
        )

    def later(self, num_draws: int) -> Sample:
        """After the only token of its row, so many tokens further on."""
        return Sample(0, self.sampling, self.draw + num_draws)


ProbeKind = Literal["distribution", "logits", "logprobs", "entropy", "hidden-state"]


class Probe(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Something to look at after one of a row's tokens, without drawing."""

    index: int
    """Which of the row's tokens, from 0."""
    kind: ProbeKind
    top: int = 0
    """Of `distribution`: so many of the likeliest tokens."""
    tokens: list[int] = []
    """Of `logprobs`: whose log probabilities."""
    mask: bytes | None = None
    """As in `Sample`: the logits of the others are -inf. `hidden-state` does not look at it."""


class Row(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One context's share of a pass: compute KV for its tokens [start, start+len(tokens))."""

    tokens: list[int]
    """At least one token id."""
    start: int
    """How many tokens of the context are in the cache already."""
    pages: list[int]
    """`pages[i]` holds tokens [i*page_size, (i+1)*page_size); covers the new ones."""
    samples: list[Sample] = []
    """Empty for a prefill chunk without output."""
    probes: list[Probe] = []
    positions: list[int] | None = None
    """One per token; None: start, start+1, ..."""
    hidden: list[tuple[int, int]] = []
    """Ranges [begin, end) of the context that none of these tokens sees: sorted, not empty, not
    touching. No token hides from itself: a token within a range still sees itself."""
    attention: list[bytes] | None = None
    """One per token, in place of causality and `hidden`: bit i % 8 of byte i // 8 is whether it
    sees the context's token i, for i in [0, start+len(tokens)); at least one bit set."""
    adapter: str | None = None
    """Digest of the LoRA adapter that computes these tokens."""

    def complaint_about_attention(self) -> str | None:
        """What is wrong with `attention`."""
        if self.attention is None:
            return None
        num_bytes = -(-(self.start + len(self.tokens)) // 8)
        if len(self.attention) != len(self.tokens):
            return f"has {len(self.attention)} attention rows for {len(self.tokens)} tokens"
        for number, bits in enumerate(self.attention):
            if len(bits) != num_bytes:
                return f"has {len(bits)} bytes in attention row {number}, not {num_bytes}"
            if not any(bits):
                return f"sees nothing by attention row {number}"
            if int.from_bytes(bits[-1:], "little") >> ((self.start + len(self.tokens) - 1) % 8 + 1):
                return f"sees more than its context by attention row {number}"
        return None

    @property
    def hides_in_order(self) -> bool:
        bounds = [0, *(bound for pair in self.hidden for bound in pair)]
        bounds.append(self.start + len(self.tokens))
        return all(low <= high for low, high in pairwise(bounds))


class PageFile(msgspec.Struct, frozen=True):
    """Whole pages on their way to a file or back."""

    path: str
    pages: list[int]
    first: int
    """The place in the file of the first of them; 0 begins a new file when it is written."""


class Batch(msgspec.Struct, frozen=True, tag="batch"):
    """One forward pass, or a burst of several. No page is written by two rows."""

    step: int
    rows: list[Row]
    copies: list[tuple[int, int]] = []
    """Whole-page copies (source, destination), done in order before the pass."""
    evict: list[tuple[int, int]] = []
    """Whole pages to host memory (page, slot), done in order before everything else."""
    restore: list[tuple[int, int]] = []
    """Whole pages from host memory (slot, page), done in order after `evict`, before `copies`."""
    store: PageFile | None = None
    """To be written. A batch with a file has no rows and no copies."""
    load: PageFile | None = None
    """To be read, after `evict`."""
    passes: int = 1
    """At most so many, each of which computes what the one before has drawn, until `until` or an
    interruption. Every row of a burst is one token with one sample without mask and counts; it sees
    all before it, stands at its own place, and has pages for all passes."""
    until: list[int] = []
    """A burst ends when any row draws one of these."""
    told: bool = False
    """Somebody waits for every token of the burst: each pass but its last is told as it comes."""


class Logprobs(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Natural logarithms of probabilities in the model's own distribution: before temperature,
    filters, penalties and biases."""

    chosen: float
    """Of the drawn token."""
    top: list[tuple[int, float]] = []
    """(token, log probability) of the likeliest, in descending order; the lowest id first among
    equals."""


class Probed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one probe saw."""

    values: bytes
    """float32 in the byte order of this machine: probabilities of `tokens`, all logits, the asked
    log probabilities, the entropy in nats, or the state after the last norm."""
    tokens: list[int] = []
    """Of `distribution`: the likeliest, in descending order; the lowest id first among equals."""


class BatchResult(msgspec.Struct, frozen=True, omit_defaults=True):
    step: int
    tokens: list[list[int]]
    """One list per row, in row order; in it one token per sample, or per pass of a burst."""
    logprobs: list[list[Logprobs | None]] = []
    """As `tokens`, None where a sample asked for none; empty when no sample of the batch asked."""
    probes: list[list[Probed]] = []
    """One list per row, in it one per probe; empty when no row of the batch has any."""
    file_failure: str | None = None
    """Why `store` or `load` could not be done; the pages of `load` hold anything then."""


class AdapterInfo(msgspec.Struct, frozen=True):
    """A loaded adapter."""

    digest: str
    """Of its content; rows name it by this."""
    num_bytes: int
    """Of memory that it takes until it is unloaded."""


class BackendInfo(msgspec.Struct, frozen=True):
    """What the scheduler has to know about a loaded model."""

    name: str
    architecture: str
    vocab_size: int
    max_context: int
    """In tokens: prompt and generated together."""
    page_size: int
    """Tokens in a page."""
    num_pages: int
    """Pages in the pool, numbered [0, num_pages)."""
    page_bytes: int
    """Bytes of KV in one page over all layers; 0 for dummy."""
    eos_tokens: list[int]
    device: str
    """For people: what computes, such as `cpu` or `cuda (NVIDIA H100 80GB HBM3)`."""
    dtype: str
    num_host_pages: int = 0
    """Slots in host memory that a page can be moved to, numbered [0, num_host_pages)."""
    revision: str = ""
    """Which content of the model directory: tokens of another one mean something else."""
    hidden_size: int = 1
    """Numbers in a hidden state."""
    device_reason: str = ""
    """Of `backend.device=auto`: why it is this device."""
    kernels: str = ""
    """What computes, and if it is not the fastest, why; for people."""
    tensor_parallel: int = 1
    """Ranks that compute the model together; sizes are those of all of them together."""


class BackendConfig(msgspec.Struct, frozen=True):
    """Everything a backend is built from; crosses into the worker process as msgpack."""

    name: str
    """The model's name in the daemon."""
    kind: str = "engine"
    """`engine` runs a model; `dummy` draws tokens from a hash of the context."""
    path: str = "crumb"
    """Hugging Face directory, or `crumb` for the embedded model."""
    device: str = "auto"
    """`cpu`, `cuda`, `metal`, or `auto`: the first of cuda and cpu that can be had."""
    dtype: str = "auto"
    """`auto` (the checkpoint's), `float32` or `bfloat16`."""
    placement: str = "process"
    """`process` or `inline`."""
    page_size: int = 16
    kv_pages: int | None = None
    """None sizes the pool from free memory."""
    host_pages: int = 0
    """Slots in host memory for pages that the pool has no room for."""
    max_batch_tokens: int = 2048
    adapter_bytes: int = 512 << 20
    """Memory of all adapters together."""
    kernels: str = "auto"
    """`native`: compiled for this processor; `torch`; `auto`: native where it can be had."""
    weights: str = "auto"
    """Of linear layers: `auto`, in the dtype; `int8`, with a scale for each output."""
    num_threads: int | None = None
    """Threads of torch, of all ranks together; None takes every core of the process's affinity."""
    tensor_parallel: int = 1
    """Ranks, each with a device or a share of the cores, that divide the model among them."""
