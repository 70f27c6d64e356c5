"""The official JSON-Schema-Test-Suite: what is supported, what comes out, and whether it is valid.

`make schemas` prints the table.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import jsonschema
import pytest

from pie_backend.batch import Adjustment, Sampling
from pie_daemon.errors import PieError
from pie_daemon.grammar.guidance import GuidanceMatcher
from pie_daemon.grammar.source import Source
from pie_daemon.scheduler.params import GenerateParams
from support.guided import Guided, Written
from support.schema_suite import Case, load

pytestmark = pytest.mark.slow
DRAFT = "draft2020-12"
MAX_TOKENS = 512
# So small a model repeats itself; penalties are what people use against it.
SAMPLING = Sampling(adjustment=Adjustment(presence_penalty=1.0, frequency_penalty=2.0))
NOTHING_VALID = "nothing is valid under it"


@dataclass
class Report:
    """Of one draft."""

    cases: list[Case]
    matchers: dict[int, GuidanceMatcher] = field(default_factory=dict)
    """Of the supported ones, by their place among the cases."""
    refusals: dict[int, str] = field(default_factory=dict)
    written: dict[int, Written] = field(default_factory=dict)

    @property
    def unfinished(self) -> list[int]:
        return [i for i, one in self.written.items() if ended_by(one) == "length"]

    def refused_keywords(self) -> Counter[str]:
        return Counter(keyword_of(why) for why in self.refusals.values())


def ended_by(written: Written) -> str:
    assert written.finish is not None
    return written.finish.kind


def keyword_of(refusal: str) -> str:
    """Every refusal names the keyword it is about, or says that nothing is valid."""
    if NOTHING_VALID in refusal:
        return NOTHING_VALID
    found = re.search(r"cannot be used: .*?'([$\w]+)'", refusal)
    assert found is not None, refusal
    return found[1]


@pytest.fixture(scope="module")
def guided() -> Iterator[Guided]:
    guided = Guided("crumb", dtype="float32")
    yield guided
    guided.close()


@pytest.fixture(scope="module")
def report(guided: Guided) -> Report:
    report = Report(load(DRAFT))
    for i, case in enumerate(report.cases):
        try:
            report.matchers[i] = guided.matcher(Source("json-schema", json.dumps(case.schema)))
        except PieError as error:
            report.refusals[i] = error.message
    prompt = guided.prompt("Extract the name and the age as JSON: Ada is 36 years old.")
    asked = [
        (
            prompt,
            GenerateParams(
                matcher=matcher.fork(), sampling=SAMPLING, max_tokens=MAX_TOKENS, chunk_tokens=0
            ),
        )
        for matcher in report.matchers.values()
    ]
    report.written = dict(zip(report.matchers, guided.write(asked), strict=True))
    return report


def test_most_schemas_are_supported_and_the_rest_is_refused_by_keyword(
    report: Report, capsys: pytest.CaptureFixture[str]
) -> None:
    """At least four in five; no more than one in twenty does not come to an end."""
    with capsys.disabled():
        sys.stdout.write(f"\n{table(report)}\n")
    num_supported = len(report.matchers)

    assert num_supported >= 0.8 * len(report.cases)
    assert len(report.unfinished) <= 0.05 * num_supported
    for i, why in report.refusals.items():
        if keyword_of(why) == NOTHING_VALID and report.cases[i].is_satisfied:
            # Nothing is left once it was rewritten more narrowly.
            assert report.cases[i].keyword in ("not", "dynamicRef", "unevaluatedItems"), why


def test_everything_that_is_finished_is_valid(report: Report) -> None:
    """Each text that the embedded model wrote, judged by the reference implementation."""
    for i, written in report.written.items():
        if ended_by(written) != "length":
            case = report.cases[i]
            validator = jsonschema.Draft202012Validator(case.schema)
            assert validator.is_valid(json.loads(written.text)), (case, written.text)


def test_no_invalid_instance_is_accepted(
    report: Report, guided: Guided, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the suite's own instances in compact form: none that is invalid, most that are valid."""
    judged = Counter(
        (test["valid"], accepts(guided, matcher, test["data"]))
        for i, matcher in report.matchers.items()
        for test in report.cases[i].tests
    )
    num_valid = judged[True, True] + judged[True, False]
    num_invalid = judged[False, True] + judged[False, False]
    with capsys.disabled():
        sys.stdout.write(
            f"\ninstances that can be written: {judged[True, True]} of {num_valid} valid ones, "
            f"{judged[False, True]} of {num_invalid} invalid ones\n"
        )

    assert 0 == judged[False, True]
    assert judged[True, True] >= 0.9 * num_valid


def accepts(guided: Guided, matcher: GuidanceMatcher, value: object) -> bool:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    fork = matcher.fork()
    try:
        for token in guided.tokenizer.encode(text, add_special=False):
            fork.accept(token)
    except PieError:
        return False
    return fork.allows_end


def table(report: Report) -> str:
    cases, unfinished = report.cases, set(report.unfinished)
    columns = (report.matchers.keys(), report.refusals.keys(), unfinished)
    lines = [f"{DRAFT}, {len(cases)} schemas    supported  refused  unfinished"]
    for keyword in sorted({case.keyword for case in cases}):
        own = [i for i, case in enumerate(cases) if case.keyword == keyword]
        lines.append(_line(keyword, *(sum(i in column for i in own) for column in columns)))
    lines.append(_line("all", *map(len, columns)))
    refused = ", ".join(f"{word} {n}" for word, n in report.refused_keywords().most_common())
    return "\n".join([*lines, f"  refused for: {refused}"])


def _line(name: str, *counts: int) -> str:
    return f"  {name:28}" + "".join(
        f"{n:{width}}" for n, width in zip(counts, (9, 9, 12), strict=True)
    )
