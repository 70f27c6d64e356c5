"""A model's vocabulary as grammars see it: tokens as bytes. Built once per model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from llguidance import LLTokenizer

    from pie_backend.batch import BackendInfo


class Spelling(Protocol):
    """What a grammar needs of a tokenizer."""

    def encode(self, text: str, add_special: bool) -> list[int]: ...

    def decode(self, tokens: list[int], skip_special: bool) -> str: ...

    def token_bytes(self, token: int) -> bytes:
        """Empty for special tokens and beyond the vocabulary: no text is spelt with them."""
        ...

    def is_special(self, token: int) -> bool: ...


class Vocabulary:
    """Which bytes each token stands for, and which tokens end a text."""

    def __init__(self, spelling: Spelling, info: BackendInfo) -> None:
        self.size = info.vocab_size
        self.num_mask_bytes = -(-self.size // 8)
        self.ends = frozenset(info.eos_tokens)
        bits = sum(1 << token for token in self.ends)
        self.end_mask = bits.to_bytes(self.num_mask_bytes, "little")
        self.tokenizer = _llguidance_tokenizer(_Words(spelling, info))


def _llguidance_tokenizer(words: _Words) -> LLTokenizer:
    from llguidance import LLTokenizer

    wrapper: Any = words
    return LLTokenizer(wrapper, n_vocab=len(words.tokens), eos_token=words.ends)


class _Words:
    """In the shape of llguidance's `TokenizerWrapper`. Left to itself the library would read
    tokenizer.json and take every `<...>` in it for special."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, spelling: Spelling, info: BackendInfo) -> None:
        self._spelling = spelling
        size = info.vocab_size
        # A model without end tokens gets one that no vocabulary has.
        self.ends = sorted(info.eos_tokens) or [size]
        self.eos_token_id = self.ends[0]
        special = {token for token in range(size) if spelling.is_special(token)}
        self.special_token_ids = sorted(special.union(self.ends))
        self.tokens = [
            _name(spelling, token) if token in special else spelling.token_bytes(token)
            for token in range(size)
        ]
        if not info.eos_tokens:
            self.tokens.append(b"<|end|>")
        self._ids = {
            word: token for token, word in enumerate(self.tokens) if word and token not in special
        }
        self._longest = max(map(len, self._ids), default=1)

    def __call__(self, text: str) -> list[int]:
        """How the model itself would spell what the grammar forces."""
        data = text.encode()
        tokens = self._spelling.encode(text, False)
        if b"".join(map(self._spelling.token_bytes, tokens)) == data:
            return tokens
        # It took a part for a special token, or put a space in front.
        return self._longest_first(data)

    def _longest_first(self, data: bytes) -> list[int]:
        tokens: list[int] = []
        start = 0
        while start < len(data):
            ends = range(min(len(data), start + self._longest), start, -1)
            end = next((end for end in ends if data[start:end] in self._ids), None)
            if end is None:
                break
            tokens.append(self._ids[data[start:end]])
            start = end
        return tokens


def _name(spelling: Spelling, token: int) -> bytes:
    """By which a Lark grammar may ask for a special token."""
    return spelling.decode([token], False).encode()
