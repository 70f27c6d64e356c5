"""The constraint of one generation: the mask of its next draw, and where it ends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pie_backend.batch import FORCING_BIAS, Adjustment
from pie_daemon.errors import PieError
from pie_daemon.grammar.matcher import Matcher


class Guide:
    """Between a draw and the `make` that follows it there is no mask, and no batch.

    `make` may run outside of the scheduler's lock: only one thread does, and nothing else
    touches the guide until it is done.
    """

    __slots__ = ("_forbidden", "_matcher", "_only", "ahead", "error", "is_over", "mask")

    def __init__(
        self, matcher: Matcher, adjustment: Adjustment | None, forbidden: Iterable[int]
    ) -> None:
        """`forbidden` tokens are not drawn though the grammar may allow them."""
        biases = adjustment.logit_bias if adjustment is not None else {}
        banned = (token for token, bias in biases.items() if bias <= -FORCING_BIAS)
        self._matcher = matcher
        self._forbidden = _bits((*forbidden, *banned))
        self._only = _bits(token for token, bias in biases.items() if bias >= FORCING_BIAS)
        self.mask: bytes | None = None
        """What may be drawn next; None: not made yet, or the constraint has ended."""
        self.ahead: list[bytes] = []
        """What may be drawn after each of the guesses of `look_ahead`."""
        self.is_over = False
        """The text satisfies the grammar and nothing may follow."""
        self.error: PieError | None = None

    @property
    def is_slow(self) -> bool:
        return self._matcher.is_slow

    @property
    def is_due(self) -> bool:
        """Its mask has to be made before it can go on."""
        return self.mask is None and not self.is_done

    @property
    def is_done(self) -> bool:
        """It has ended or failed."""
        return self.is_over or self.error is not None

    def look_ahead(self, guesses: Sequence[int]) -> int:
        """How many of the guesses can be verified: no more than the constraint allows, and none
        that it ends with, since nothing could be drawn after that."""
        self.ahead = []
        if not guesses or self.mask is None or self.is_slow:
            return 0
        matcher, mask = self._matcher.fork(), self.mask
        for guess in guesses:
            following = self._after(matcher, mask, guess)
            if following is None:
                break
            mask = following
            self.ahead.append(mask)
        return len(self.ahead)

    def _after(self, matcher: Matcher, mask: bytes, guess: int) -> bytes | None:
        if not mask[guess // 8] >> guess % 8 & 1:
            return None
        try:
            matcher.accept(guess)
            following = matcher.mask()
            return None if matcher.is_over else self._narrowed(following)
        except PieError:
            return None  # if it comes to that, drawing the token will say so

    def accept(self, token: int) -> None:
        """Takes in a drawn token, an end token or a stop token among them."""
        self.mask, self.ahead = None, []
        try:
            self._matcher.accept(token)
        except PieError as error:
            self.error = error
            return
        self.is_over = self._matcher.is_over

    def make(self) -> None:
        if not self.is_due:
            return
        try:
            mask = self._matcher.mask()
            self.is_over = self._matcher.is_over
            if not self.is_over:
                self.mask = self._narrowed(mask)
        except PieError as error:
            self.error = error

    def _narrowed(self, mask: bytes) -> bytes:
        """What neither the options forbid; biases and penalties work within it."""
        if not self._forbidden and not self._only:
            return mask
        bits = int.from_bytes(mask, "little") & ~self._forbidden
        if self._only:
            bits &= self._only
        if not bits:
            raise PieError(
                "invalid-argument",
                "the constraint, logit_bias and ignore_eos leave no token to draw",
            )
        return bits.to_bytes(len(mask), "little")


def guide_for(
    matcher: Matcher | None, adjustment: Adjustment | None, forbidden: Iterable[int]
) -> Guide | None:
    """With its first mask, which its matcher has at hand.

    Raises: PieError: when nothing can be drawn.
    """
    if matcher is None:
        return None
    guide = Guide(matcher, adjustment, forbidden)
    guide.make()
    if guide.error is not None:
        raise guide.error
    return guide


def _bits(tokens: Iterable[int]) -> int:
    bits = 0
    for token in tokens:
        bits |= 1 << token
    return bits
