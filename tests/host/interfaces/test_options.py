"""The options of `generate`."""

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pie_backend.batch import Adjustment, Sampling
from pie_daemon.errors import PieError
from pie_daemon.host.interfaces import inference
from pie_daemon.host.interfaces.options import GenerateOptions, parse_options
from pie_daemon.scheduler.drafts import DraftParams

SCHEMA = Path(__file__).parents[3] / "sdk/wit/schemas/generate.json"


def test_no_options_are_the_defaults() -> None:
    """An empty text and an empty object mean the same."""
    assert GenerateOptions() == parse_options("{}") == parse_options("")


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("{", "invalid-argument", "truncated"),
        ("[]", "invalid-argument", "object"),
        ('{"temprature": 1}', "invalid-argument", "'temprature'"),
        ('{"top_p": 0}', "invalid-argument", "top_p"),
        ('{"max_tokens": 0}', "invalid-argument", "max_tokens"),
        ('{"stop_strings": [""]}', "invalid-argument", "stop_strings"),
        ('{"ngram_speculation": 33}', "invalid-argument", "ngram_speculation"),
        ('{"ngram_speculation": -1}', "invalid-argument", "ngram_speculation"),
        ('{"ngram_speculation": true}', "invalid-argument", "ngram_speculation"),
        ('{"ngram_speculation": {"min": 2}}', "invalid-argument", "min"),
        ('{"ngram_speculation": {"min_match": 0}}', "invalid-argument", "min_match"),
        ('{"repetition_penalty": 0}', "invalid-argument", "repetition_penalty"),
        ('{"repetition_penalty": 1e400}', "invalid-argument", "out of range"),
        ('{"presence_penalty": 2.01}', "invalid-argument", "presence_penalty"),
        ('{"frequency_penalty": "high"}', "invalid-argument", "frequency_penalty"),
        ('{"logit_bias": {"x": 1}}', "invalid-argument", "logit_bias"),
        ('{"logit_bias": {"-1": 1}}', "invalid-argument", "logit_bias"),
        ('{"logit_bias": {"1": 100.5}}', "invalid-argument", "logit_bias"),
        ('{"logit_bias": [1]}', "invalid-argument", "logit_bias"),
        ('{"logprobs": -1}', "invalid-argument", "logprobs"),
        ('{"logprobs": 21}', "invalid-argument", "logprobs"),
        ('{"logprobs": true}', "invalid-argument", "logprobs"),
    ],
)
def test_what_is_wrong_is_named(text: str, code: str, words: str) -> None:
    """Unknown keys and bad values are invalid."""
    with pytest.raises(PieError) as refused:
        parse_options(text)
    assert code == refused.value.code
    assert words in refused.value.message.lower()


def test_options_that_are_off_are_not_sent() -> None:
    """A backend sees an adjustment only where there is one."""
    off = parse_options('{"repetition_penalty": 1, "presence_penalty": 0, "logit_bias": {}}')
    assert Sampling() == off.sampling()
    on = parse_options('{"logit_bias": {"5": -100}, "logprobs": 0, "frequency_penalty": 1}')
    adjustment = Adjustment(frequency_penalty=1.0, logit_bias={5: -100.0})
    assert Sampling(adjustment=adjustment, logprobs=0) == on.sampling()


numbers = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
anything = numbers | st.lists(numbers) | st.dictionaries(st.text("0123456789-x"), numbers)
KEYS = sorted(GenerateOptions.__struct_fields__)


def refusal(text: str) -> PieError | None:
    try:
        parse_options(text)
    except PieError as error:
        return error
    return None


@settings(max_examples=400, deadline=None)
@given(asked=st.dictionaries(st.sampled_from(KEYS), anything, max_size=4))
def test_whatever_is_given_is_understood_or_refused_by_name(asked: dict[str, object]) -> None:
    """The message names a key that was given; what is accepted, the scheduler accepts too."""
    text = json.dumps(asked)
    refused = refusal(text)
    if refused is None:
        read = parse_options(text)
        inference._params(read).check()
        plain = [key for key in asked if not isinstance(asked[key], dict)]
        assert all(getattr(read, key) == asked[key] for key in plain)
        return
    assert refused.code == "invalid-argument"
    named = any(key in refused.message for key in asked)
    assert named or "malformed" in refused.message or "out of range" in refused.message


@settings(max_examples=200, deadline=None)
@given(
    repetition=st.floats(0.01, 100),
    penalty=st.floats(-2, 2),
    biases=st.dictionaries(st.integers(0, 2**31 - 1), st.floats(-100, 100), max_size=20),
    logprobs=st.none() | st.integers(0, 20),
)
def test_values_in_range_arrive_as_they_are(
    repetition: float, penalty: float, biases: dict[int, float], logprobs: int | None
) -> None:
    """Through JSON, where ids are strings, to what the backend gets."""
    asked = {
        "repetition_penalty": repetition,
        "presence_penalty": penalty,
        "logit_bias": biases,
        "logprobs": logprobs,
    }
    params = inference._params(parse_options(json.dumps(asked)))
    params.check()
    adjustment = params.sampling.adjustment or Adjustment()
    assert Adjustment(repetition, penalty, 0.0, biases) == adjustment
    assert logprobs == params.sampling.logprobs


@pytest.mark.parametrize(
    ("text", "drafts"),
    [
        ("{}", None),
        ('{"ngram_speculation": 0}', None),
        ('{"ngram_speculation": {"max_draft": 0}}', None),
        ('{"ngram_speculation": 5}', DraftParams(5, 2, 4)),
        ('{"ngram_speculation": {}}', DraftParams(8, 2, 4)),
        ('{"ngram_speculation": {"min_match": 6}}', DraftParams(8, 6, 6)),
        ('{"ngram_speculation": {"max_draft": 3, "max_match": 2}}', DraftParams(3, 2, 2)),
    ],
)
def test_speculation_is_a_number_or_an_object(text: str, drafts: DraftParams | None) -> None:
    """Both mean the same parameters; off is none at all."""
    assert drafts == inference._params(parse_options(text)).drafts


def test_the_published_schema_and_the_host_agree() -> None:
    """Every key of the schema is accepted, with the same default."""
    properties = json.loads(SCHEMA.read_text())["properties"]
    fields = {field.name: field for field in msgspec.structs.fields(GenerateOptions)}

    assert set(properties) == set(fields)
    for name, field in fields.items():
        given = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
        assert properties[name].get("default") == given, name
