"""Token bytes to text."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie_daemon.scheduler.text import TextStream


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """The data cut at these places."""
    borders = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(borders)]


def stream(tokens: list[bytes], stops: list[str]) -> tuple[list[str], str | None]:
    """What each token released, then what the end released; and the stop string met."""
    text = TextStream(stops)
    released = []
    for token in tokens:
        released.append(text.push(token))
        if text.matched is not None:
            break
    return [*released, text.finish()], text.matched


bytes_near_utf8 = st.one_of(
    st.binary(max_size=20),
    st.text(max_size=8).map(str.encode),
    st.tuples(st.text(max_size=4).map(str.encode), st.binary(max_size=3)).map(b"".join),
)


@given(bytes_near_utf8, st.lists(st.integers(0, 50), max_size=8))
def test_text_is_that_of_the_whole(data: bytes, cuts: list[int]) -> None:
    """However bytes are cut into tokens, the pieces join to Python's own decoding of all."""
    released, _ = stream(pieces(data, cuts), [])

    assert data.decode("utf-8", "replace") == "".join(released)


def test_a_character_is_never_split() -> None:
    """The bytes of one emoji in four tokens come out with the last of them."""
    released, _ = stream([b"a\xf0", b"\x9f", b"\x98", b"\x80b"], [])

    assert ["a", "", "", "😀b", ""] == released


def test_half_a_character_at_the_end_is_a_replacement() -> None:
    """What never became a character is U+FFFD once the generation is over."""
    assert ["x", "\ufffd"] == stream([b"x\xe2\x82"], [])[0]


@pytest.mark.parametrize(
    ("tokens", "stops", "released", "matched"),
    [
        (["one END two"], ["END"], ["one ", ""], "END"),
        (["one E", "N", "D"], ["END"], ["one ", "", "", ""], "END"),
        (["one E", "N", "ough"], ["END"], ["one ", "", "ENough", ""], None),
        (["one E", "N"], ["END"], ["one ", "", "EN"], None),
        (["aab", "aac"], ["aac"], ["aab", "", ""], "aac"),
        (["aaa", "ab"], ["aab"], ["a", "a", ""], "aab"),
        (["xab"], ["ab", "b"], ["x", ""], "ab"),
        (["xab"], ["abc", "b"], ["xa", ""], "b"),
        (["xab", "d"], ["abcd", "bd"], ["x", "a", ""], "bd"),
        (["\n", "\n"], ["\n\n"], ["", "", ""], "\n\n"),
        (["ü", "ß"], ["üß"], ["", "", ""], "üß"),
    ],
)
def test_stop_strings(
    tokens: list[str], stops: list[str], released: list[str], matched: str | None
) -> None:
    """Text is held back only while it may be the beginning of a stop string, and cut before it."""
    assert (released, matched) == stream([token.encode() for token in tokens], stops)


@given(
    st.text("ab", max_size=30),
    st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3),
    st.lists(st.integers(0, 50), max_size=8),
)
def test_stop_strings_do_not_depend_on_token_borders(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    """The stop string that ends first cuts the text, wherever tokens begin and end."""
    ends = [(text.index(stop) + len(stop), -len(stop)) for stop in stops if stop in text]
    end, minus_length = min(ends, default=(len(text), 0))

    released, matched = stream(pieces(text.encode(), cuts), stops)

    assert text[: end + minus_length] == "".join(released)
    assert (text[end + minus_length : end] if ends else None) == matched


@given(st.text("ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=4), min_size=1))
def test_hold_back_is_minimal(text: str, stops: list[str]) -> None:
    """What is held back is the longest end of the text that begins some stop string."""
    if any(stop in text for stop in stops):
        return
    starts = {stop[:length] for stop in stops for length in range(len(stop))}
    held = max((start for start in starts if text.endswith(start)), key=len)

    assert text[: len(text) - len(held)] == TextStream(stops).push(text.encode())


def test_nothing_follows_a_stop_string() -> None:
    """After a match the rest of the token is gone, and the end releases nothing."""
    text = TextStream(["stop"])

    assert text.push(b"go stop\xf0 and more") == "go "
    assert text.finish() == ""
