"""Chats for the embedded model whose answers repeat much, some or nothing of what was said."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

_NOUNS = "apple river stone garden window bread forest paper silver candle bridge spoon".split()
_NAMES = "Anna Ben Clara David Emma Felix Greta Henry".split()
_CITIES = "Berlin Paris Rome Madrid Vienna Oslo Lisbon Prague".split()

Chat = list[dict[str, str]]


def copying(source: Random) -> Chat:
    return [_user(f"Repeat these words: {' '.join(source.sample(_NOUNS, 6))}")]


def extraction(source: Random) -> Chat:
    """The third of three sentences: the shape of the answer is there already."""
    chat: Chat = []
    for _ in range(3):
        name, city, age = source.choice(_NAMES), source.choice(_CITIES), source.randint(20, 80)
        question = f"{name} is {age} years old and lives in {city}."
        chat.append(_user(f"Extract name, age and city as JSON: {question}"))
        answer = f'{{"name": "{name}", "age": {age}, "city": "{city}"}}'
        chat.append({"role": "assistant", "content": answer})
    return chat[:-1]


def story(source: Random) -> Chat:
    """Nothing to copy."""
    return [_user(f"Tell me a story about {source.choice(_NAMES)} and a {source.choice(_NOUNS)}.")]


CHATS: dict[str, Callable[[Random], Chat]] = {
    "copying words": copying,
    "extracting JSON": extraction,
    "a story": story,
}


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}
