"""Matchers: masks, acceptance, rollback, forks, ends, and what they say when they cannot go on."""

from __future__ import annotations

import json
import re
from array import array
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pie_backend.batch import BackendInfo
from pie_backend.tokenizer import Tokenizer
from pie_daemon.errors import PieError
from pie_daemon.grammar import compiler
from pie_daemon.grammar.compiler import GrammarCompiler
from pie_daemon.grammar.guidance import GuidanceMatcher
from pie_daemon.grammar.runs import runs_of
from pie_daemon.grammar.source import Source, choice
from support.guided import compiled

TOKENIZER = Tokenizer("crumb")
ENDS = [2, 0]
INFO = BackendInfo(
    name="crumb",
    architecture="test",
    vocab_size=TOKENIZER.vocab_size,
    max_context=1024,
    page_size=16,
    num_pages=8,
    page_bytes=0,
    eos_tokens=ENDS,
    device="cpu",
    dtype="float32",
)
LIMITS = SimpleNamespace(constraints=8, constraint_bytes=1 << 16, constraint_compile_s=10.0)
COMPILER = GrammarCompiler(TOKENIZER, INFO, lambda: LIMITS)


def matcher(source: Source) -> GuidanceMatcher:
    return compiled(COMPILER, source)


def bits(mask: bytes) -> set[int]:
    return {token for token in range(len(mask) * 8) if mask[token // 8] >> token % 8 & 1}


def encode(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special=False)


def follow(one: GuidanceMatcher, text: str) -> GuidanceMatcher:
    for token in encode(text):
        one.accept(token)
    return one


def refusal(source: Source) -> str:
    with pytest.raises(PieError) as refused:
        matcher(source)
    return f"{refused.value.code}: {refused.value.message}"


@pytest.mark.parametrize(
    ("source", "text", "longer"),
    [
        (Source("json"), '{"a": [1, 2, {"b": null}]}', None),
        (Source("json-schema", '{"type": "object"}'), '{"a":1}', None),
        (Source("json-schema", "true"), "true", None),
        (Source("regex", r"[a-z]+ is \d+"), "bob is 42", "bob is 420"),
        (Source("regex", "a/b\n\\\\"), "a/b\n\\", None),
        (Source("lark", 'start: "(" start ")" | "x"'), "((x))", None),
        (
            Source("lark", 'start: "<tool_call>" /[a-z]/ "</tool_call>"'),
            "<tool_call>a</tool_call>",
            None,
        ),
        (choice(["yes", "yesterday"]), "yes", "yesterday"),
        (choice(['a"b\\c\n\t', "né 你好 👩"]), "né 你好 👩", None),
        (choice(["x", "<|im_end|> is text"]), "<|im_end|>"[:5], "<|im_end|> is text"),
    ],
)
def test_a_text_of_the_grammar_is_followed_to_its_end(
    source: Source, text: str, longer: str | None
) -> None:
    """The mask allows the end where the text may end, and only the end where nothing may follow."""
    one = follow(matcher(source), text)

    if longer is None:
        assert one.complete
        assert set(ENDS) == bits(one.mask())
    else:
        assert not one.complete
        assert bits(one.mask()) - set(ENDS)


def test_every_token_of_the_mask_is_accepted_and_spells_text() -> None:
    """Special tokens have no place inside a text, though the pattern allows every character."""
    one = matcher(Source("regex", r"(?s:.){3,5}"))
    allowed = bits(one.mask())

    assert len(allowed) > 1000
    for token in allowed:
        assert not TOKENIZER.is_special(token)
        one.fork().accept(token)


def test_forced_text_is_never_spelt_with_special_tokens() -> None:
    """A constant that looks like an end token is written letter by letter."""
    one = matcher(Source("json-schema", '{"const": "<|im_end|>"}'))
    data = b""
    while not one.complete:
        token = min(bits(one.mask()))
        assert not TOKENIZER.is_special(token)
        data += TOKENIZER.token_bytes(token)
        one.accept(token)

    assert b'"<|im_end|>"' == data


def test_a_refused_token_changes_nothing() -> None:
    """Whether it does not fit, is special, ends too early or is none at all."""
    one = matcher(choice(["yes"]))
    before = one.mask()
    for token in (*encode("no"), 1, 2, INFO.vocab_size, 4_000_000_000):
        with pytest.raises(PieError, match="does not allow token") as refused:
            one.accept(token)
        assert "invalid-argument" == refused.value.code
    assert before == one.mask()
    assert follow(one, "yes").complete


def test_an_end_token_ends_and_can_be_taken_back() -> None:
    """After it nothing but the end may come."""
    one = follow(matcher(Source("regex", "a+")), "aa")
    before = one.mask()
    one.accept(2)
    assert (True, set(ENDS)) == (one.complete, bits(one.mask()))
    with pytest.raises(PieError):
        one.accept(*encode("a"))
    one.accept(0)
    one.rollback(2)
    assert (False, before) == (one.complete, one.mask())


def test_no_more_is_taken_back_than_was_accepted() -> None:
    """A fork may take back what came before it."""
    one = follow(matcher(Source("regex", "[a-z]{8}")), "abc")
    num_tokens = len(encode("abc"))
    fork = one.fork()
    fork.rollback(num_tokens)
    for too_many in (1, -1):
        with pytest.raises(PieError, match=f"cannot take back {too_many} tokens: 0 were"):
            fork.rollback(too_many)
    assert follow(fork, "xyz").mask() != matcher(Source("regex", "[a-z]{8}")).mask()
    one.rollback(0)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_forks_and_rollbacks_never_meet(data: st.DataObject) -> None:
    """Any walk: a matcher with its history undone or repeated is where a fresh one would be."""
    one = matcher(Source("json-schema", '{"type": "array", "items": {"enum": ["ab", 1, true]}}'))
    start = one.fork()
    taken: list[int] = []
    for _ in range(data.draw(st.integers(1, 12))):
        token = data.draw(st.sampled_from(sorted(bits(one.mask()))))
        other = one.fork()
        one.accept(token)
        taken.append(token)
        if data.draw(st.booleans()):
            one.rollback(1)
            taken.pop()
            assert other.mask() == one.mask()
    again = start.fork()
    for token in taken:
        again.accept(token)

    assert (again.mask(), again.complete) == (one.mask(), one.complete)
    one.rollback(len(taken))
    assert start.mask() == one.mask()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (Source("regex", "a(b"), "invalid-argument: the regex cannot be used: unclosed group"),
        (Source("regex", "a(?=b)"), "look-around"),
        (Source("regex", "a\\"), "in the middle of an escape"),
        (Source("lark", "start: a\na: b"), 'line 2, column 4: unknown name: "b"'),
        (Source("lark", '{"grammars": []}'), "invalid-argument"),
        (Source("json-schema", "{"), "invalid-argument: the schema is not JSON"),
        (Source("json-schema", '{"type": "text"}'), "Invalid type: text"),
        (Source("json-schema", '{"properties": []}'), "invalid-argument"),
        (Source("json-schema", '{"not": 5}'), "invalid-argument"),
        (Source("json-schema", "false"), "nothing is valid under it"),
        (Source("json-schema", '{"$ref": "http://x/y"}'), "'$ref'"),
        (
            Source("json-schema", '{"uniqueItems": true}'),
            "unsupported: the json-schema cannot be used: 'uniqueItems'",
        ),
        (Source("json-schema", "[" * 60_000), "the schema is not JSON"),
        (Source("regex", "a" * (1 << 17)), "limits.constraint_bytes allows 65536"),
    ],
)
def test_what_cannot_be_used_is_refused_with_reason_and_place(source: Source, said: str) -> None:
    """The keyword, or the line and column."""
    assert said in refusal(source)


def test_a_choice_of_nothing_is_refused() -> None:
    """There is no grammar for it."""
    with pytest.raises(PieError, match="at least one option"):
        choice([])


@pytest.mark.parametrize(
    "source",
    [
        Source("regex", "(a{1000}){1000}"),
        Source("regex", "(" * 5000 + "a" + ")" * 5000),
        Source("regex", "(.*a.*){20}[ab]{3}.{200}c"),
        Source("lark", "start: " + "(" * 3000 + '"a"' + ")" * 3000),
        Source("lark", 'start: e\ne: e e | e e e | "a" |'),
        Source("json-schema", '{"items":' * 3000 + "{}" + "}" * 3000),
        Source("json-schema", json.dumps({"oneOf": [{"anyOf": [{"not": {"$ref": "#"}}] * 9}] * 9})),
        Source("json-schema", json.dumps({"allOf": [{"$ref": "#"}, {"not": {"$ref": "#"}}]})),
    ],
    ids=range(8),
)
def test_hostile_grammars_end_in_time(source: Source) -> None:
    """They are refused, or stop with an error as they are followed, or work."""
    assert ended(source) in ("followed", "invalid-argument", "unsupported", "exhausted")


def ended(source: Source) -> str:
    """What became of following a grammar by whatever it allows first."""
    try:
        one = matcher(source)
        for _ in range(40):
            one.accept(min(bits(one.mask())))
    except PieError as error:
        return error.code
    return "followed"


def test_a_grammar_that_has_spent_its_states_is_compiled_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All forks share them; what one program used up another one gets back."""
    monkeypatch.setattr(compiler, "MAX_LEXER_STATES", 300)
    source = Source("regex", "[a-z]{0,5000}")
    with pytest.raises(PieError, match="too complex") as refused:
        walk(matcher(source), encode("ab")[0], 400)
    assert "exhausted" == refused.value.code

    assert encode("ab")[0] in bits(follow(matcher(source), "ab").mask())


def walk(one: GuidanceMatcher, token: int, times: int) -> None:
    """As a generation does."""
    for _ in range(times):
        one.mask()
        one.accept(token)


@settings(deadline=None)
@given(data=st.binary(max_size=40), cut=st.integers(0, 7))
def test_runs_say_what_the_bits_say(data: bytes, cut: int) -> None:
    """The first run is of zeros, and only that one may be empty."""
    num_bits = max(0, len(data) * 8 - cut)
    runs = runs_of(data, num_bits)

    unpacked = array("b", (bit for i, n in enumerate(runs) for bit in [i % 2] * n)).tolist()
    assert [data[i // 8] >> i % 8 & 1 for i in range(num_bits)] == unpacked
    assert all(runs[1:])


def test_python_and_the_grammar_agree_on_a_regex() -> None:
    """What may be written matches as a whole."""
    pattern = r"(ab|a)*c?\d{2}"
    for text in ("ab01", "aac99", "12", "abab00"):
        assert re.fullmatch(pattern, text)
        assert follow(matcher(Source("regex", pattern)), text).complete
