"""A budget of tokens, as the scheduler knows them."""

from __future__ import annotations


class Purse:
    def __init__(self, num_tokens: int) -> None:
        self.num_tokens = num_tokens

    def spend(self, num_tokens: int) -> bool:
        if num_tokens > self.num_tokens:
            return False
        self.num_tokens -= num_tokens
        return True

    def left(self) -> int | None:
        return self.num_tokens
