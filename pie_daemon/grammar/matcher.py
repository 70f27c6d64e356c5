"""What the scheduler and the host know of a constraint that is being followed."""

from __future__ import annotations

from typing import Protocol


class Matcher(Protocol):
    """Where one sequence of tokens stands in a grammar. One thread at a time may use it."""

    def mask(self) -> bytes:
        """Which tokens may come next: bit i % 8 of byte i // 8 is token i, ceil(vocab / 8) bytes.

        The model's end tokens have their bits where the text may end. Once the matcher is complete
        nothing else has one.

        Raises:
            PieError: `invalid-argument` when nothing at all may come, not even the end;
                `exhausted` when the grammar has grown too complex.
        """
        ...

    def accept(self, token: int) -> None:
        """Goes on by a token that the text may continue with; an end token ends it.

        A text may be accepted in other tokens than those that the mask spells it with.

        Raises:
            PieError: `invalid-argument`, with nothing changed, when the token is not allowed;
                `exhausted` as above.
        """
        ...

    def rollback(self, num_tokens: int) -> None:
        """Takes back the last ones accepted, those before a fork included.

        Raises: PieError: `invalid-argument` when so many were not accepted.
        """
        ...

    def fork(self) -> Matcher:
        """One at the same place that goes its own way; cheap."""
        ...

    @property
    def complete(self) -> bool:
        """The text satisfies the grammar and nothing but the end may follow. May make a mask."""
        ...

    @property
    def is_over(self) -> bool:
        """Complete, as far as can be told without making a mask."""
        ...

    @property
    def allows_end(self) -> bool:
        """The text satisfies the grammar; more may follow."""
        ...

    @property
    def is_slow(self) -> bool:
        """The last mask took long; the next one may as well."""
        ...
