"""Input checked key by key, with errors a user can act on."""

from __future__ import annotations

from typing import Any

import pytest

from inferlet import Arguments, InvalidArgument, generate_options

BIASES = "`logit_bias` must be an object of token ids and numbers within 100"


def read(input: Any) -> None:
    arguments = Arguments(input)
    arguments.text("prompt")
    generate_options(arguments)
    arguments.finish()


def refusal(input: Any) -> str:
    with pytest.raises(InvalidArgument) as caught:
        read(input)
    return caught.value.message


def test_defaults_of_the_sampling_keys() -> None:
    """Whoever gives only a prompt gets 128 tokens at 0.7, and nothing else is decided for him."""
    options = generate_options(Arguments({}))
    given = {name: value for name, value in options.items() if value}
    assert {"max_tokens": 128, "temperature": 0.7} == given


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"temperature": "hot"},
            '`temperature` must be a number at least 0 and at most 100, not "hot"',
        ),
        ({"temperature": -1}, "`temperature` must be a number at least 0 and at most 100, not -1"),
        (
            {"temperature": True},
            "`temperature` must be a number at least 0 and at most 100, not true",
        ),
        ({"max_tokens": 0}, "`max_tokens` must be an integer at least 1, not 0"),
        ({"max_tokens": 1.5}, "`max_tokens` must be an integer at least 1, not 1.5"),
        ({"top_p": 0}, "`top_p` must be a number above 0 and at most 1, not 0"),
        ({"stop": [""]}, '`stop` must be a list of strings, none of them empty, not [""]'),
        ({"ignore_eos": 1}, "`ignore_eos` must be true or false, not 1"),
        (
            {"repetition_penalty": 0},
            "`repetition_penalty` must be a number at least 0.01 and at most 100, not 0",
        ),
        (
            {"presence_penalty": 2.1},
            "`presence_penalty` must be a number at least -2 and at most 2, not 2.1",
        ),
        (
            {"frequency_penalty": "a"},
            '`frequency_penalty` must be a number at least -2 and at most 2, not "a"',
        ),
        ({"logprobs": 21}, "`logprobs` must be an integer at least 0 and at most 20, not 21"),
        ({"logprobs": True}, "`logprobs` must be an integer at least 0 and at most 20, not true"),
        ({"logit_bias": [1]}, f"{BIASES}, not [1]"),
        ({"logit_bias": {"the": 1}}, f'{BIASES}, not {{"the": 1}}'),
        ({"logit_bias": {"5": 101}}, f'{BIASES}, not {{"5": 101}}'),
        ({"logit_bias": {"-5": 1}}, f'{BIASES}, not {{"-5": 1}}'),
        ({"logit_bias": {"\u0665": 1}}, f'{BIASES}, not {{"\u0665": 1}}'),
        ({"max_token": 5}, "unknown key `max_token`; did you mean `max_tokens`?"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(given: dict[str, Any], message: str) -> None:
    """The error says which key, what may stand there, and what stood there."""
    assert message == refusal({"prompt": "x", **given})


def test_an_unknown_key_far_from_all_lists_them() -> None:
    """Nothing comes close, so the user sees everything there is."""
    assert refusal({"prompt": "x", "zzz": 1}).startswith("unknown key `zzz`; allowed are `prompt`")


def test_a_missing_key_points_at_its_misspelling() -> None:
    """`promt` given and `prompt` wanted is one mistake, told once."""
    assert "`prompt` is missing: it must be a string (the input has `promt`)" == refusal(
        {"promt": "x"}
    )


def test_an_input_that_is_no_object_is_refused() -> None:
    """A list has no keys to read."""
    assert "the input must be a JSON object, not [1]" == refusal([1])


def test_null_counts_as_absent_and_one_string_as_a_list_of_one() -> None:
    """What an OpenAI client sends is understood."""
    options = generate_options(Arguments({"max_tokens": None, "stop": "END"}))
    assert (128, ["END"]) == (options["max_tokens"], options["stop_strings"])
