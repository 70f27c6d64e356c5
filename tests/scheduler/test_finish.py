"""How generations end, and the text they give."""

from __future__ import annotations

import pytest

from pie_backend.dummy import Vocabulary
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.request import BUDGET, LENGTH, Chunk, Finish
from support.purse import Purse
from support.stepping import Stepper, letters

PROMPT = [11, 12, 13, 14, 15, 16]


def generate(stepper: Stepper, params: GenerateParams) -> tuple[Chunk, Finish | None, list[int]]:
    """All of it as one chunk, how it ended, and the context's tokens after it."""
    state = stepper.state
    context = stepper.context(PROMPT)
    request = state.generate(context, params)
    stepper.run()
    chunk = state.take(request) or Chunk([], "")
    assert state.take(request) is None
    return chunk, state.finish(request), state.tokens(context, 0, state.length(context))


def text_of(tokens: list[int]) -> str:
    """The text that `letters` makes of tokens."""
    return b"".join(map(letters, tokens)).decode()


def test_a_stop_token_is_a_token_but_not_text() -> None:
    """The stop token ends tokens and context; the text ends before it."""
    stepper = Stepper()
    expected = stepper.expected(PROMPT, 5)

    chunk, finish, tokens = generate(stepper, GenerateParams(stop_tokens=(expected[4],)))

    assert (Chunk(expected, text_of(expected[:4])), Finish("stop-token", token=expected[4])) == (
        chunk,
        finish,
    )
    assert PROMPT + expected == tokens


@pytest.mark.parametrize("ignore_eos", [False, True])
def test_the_models_end_stops_unless_ignored(ignore_eos: bool) -> None:
    """An eos token is a stop token; with `ignore_eos` it is one like any other."""
    stepper = Stepper(vocabulary=Vocabulary(eos_period=6))
    expected = stepper.expected(PROMPT, 40)
    first_end = expected.index(0)

    chunk, finish, _ = generate(stepper, GenerateParams(max_tokens=40, ignore_eos=ignore_eos))

    assert (expected if ignore_eos else expected[: first_end + 1]) == chunk.tokens
    assert (LENGTH if ignore_eos else Finish("stop-token", token=0)) == finish


def test_a_stop_string_across_tokens_cuts_the_text() -> None:
    """Text ends before the string; the tokens end with the one that completed it."""
    stepper = Stepper()
    expected = stepper.expected(PROMPT, 8)
    stop = text_of(expected[5:8])

    chunk, finish, tokens = generate(stepper, GenerateParams(stop_strings=("nowhere", stop)))

    assert (Chunk(expected, text_of(expected[:5])), Finish("stop-string", text=stop)) == (
        chunk,
        finish,
    )
    assert PROMPT + expected == tokens


def test_held_back_text_comes_with_the_last_chunk() -> None:
    """A possible stop string that never completed is text after all."""
    stepper = Stepper()
    text = text_of(stepper.expected(PROMPT, 4))

    chunk, finish, _ = generate(
        stepper, GenerateParams(max_tokens=4, stop_strings=(text[2:] + "-never",))
    )

    assert (text, LENGTH) == (chunk.text, finish)


def test_the_models_context_bounds_a_generation() -> None:
    """It ends with `length` when prompt and tokens fill the context."""
    stepper = Stepper(vocabulary=Vocabulary(max_context=10))

    for params in (GenerateParams(), GenerateParams(max_tokens=50)):
        chunk, finish, _ = generate(stepper, params)
        assert (4, LENGTH) == (len(chunk.tokens), finish)


def test_a_full_context_ends_at_once() -> None:
    """There is room for no token, and no batch is made."""
    stepper = Stepper(vocabulary=Vocabulary(max_context=6))

    assert (Chunk([], ""), LENGTH, PROMPT) == generate(stepper, GenerateParams())
    assert not stepper.batches


def test_the_pool_bounds_a_generation_without_max_tokens() -> None:
    """Alone in a small pool, it uses every page and ends with `length`."""
    stepper = Stepper(num_pages=3)
    chunk, finish, _ = generate(stepper, GenerateParams())

    assert (stepper.expected(PROMPT, 7), LENGTH) == (chunk.tokens, finish)
    assert stepper.state.contexts.pool.num_free == 0


@pytest.mark.parametrize(("num_tokens", "finish"), [(3, BUDGET), (5, LENGTH), (0, BUDGET)])
def test_a_budget_ends_a_generation(num_tokens: int, finish: Finish) -> None:
    """With the last token of the budget the generation ends; without any it never starts."""
    stepper = Stepper()
    stepper.state.owners.add("one", budget=Purse(num_tokens))

    chunk, reason, _ = generate(stepper, GenerateParams(max_tokens=5))

    assert (min(num_tokens, 5), finish) == (len(chunk.tokens), reason)


def test_generations_share_one_budget_exactly() -> None:
    """Three at once, whose batch would overdraw it, get as many tokens as there were."""
    stepper = Stepper()
    purse = Purse(7)
    for name in "abc":
        stepper.state.owners.add(name, budget=purse)
    requests = [stepper.start(PROMPT, 30, owner=name) for name in "abc"]
    stepper.run()

    assert 7 == sum(len(stepper.drain(request)) for request in requests)
    assert [BUDGET] * 3 == [stepper.state.finish(request) for request in requests]


def test_a_quota_of_pages_is_refused_with_numbers() -> None:
    """What an owner's contexts hold and may come to hold stays within its grant."""
    stepper = Stepper()
    stepper.state.owners.add("one", max_kv_pages=5)
    first = stepper.start(PROMPT, 7)  # up to 12 computed tokens: 3 pages

    with pytest.raises(Exception, match="may hold 5 pages; this takes up to 3 beside 3"):
        stepper.start(PROMPT, 7)
    stepper.start(PROMPT, 3)
    stepper.run()

    assert stepper.expected(PROMPT, 7) == stepper.drain(first)


def test_a_family_shares_the_page_quota_of_whoever_launched_it() -> None:
    """What a child may come to hold its parent and its siblings cannot; its end gives it back."""
    stepper = Stepper()
    state = stepper.state
    state.owners.add("parent", max_kv_pages={"parent": 5})
    state.owners.add("child", root="parent", max_kv_pages={"parent": 5, "child": 4})
    state.owners.add("sibling", root="parent", max_kv_pages={"parent": 5})
    state.owners.add("other")

    with pytest.raises(Exception, match="child may hold 4 pages; this takes up to 5 beside 0"):
        stepper.start(PROMPT, 14, "child")
    stepper.start(PROMPT, 7, "child")
    for owner in ("parent", "sibling"):
        with pytest.raises(Exception, match="parent may hold 5 pages; this takes up to 3 beside 3"):
            stepper.start(PROMPT, 7, owner)
    stepper.start(PROMPT, 7, "other")
    state.drop_owner("parent")
    state.drop_owner("child")
    stepper.start(PROMPT, 7, "sibling")
    stepper.run()
