"""Forward passes in the scheduler, bit-exact on the dummy backend."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pie_backend.batch import Adjustment, Probe, Sample, Sampling
from pie_backend.dummy import expected_tokens
from pie_daemon.errors import PieError
from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.scheduler.journal import Journal
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.passes import MaskRow, PassSpec
from support.adapter_files import write_adapter_files
from support.stepping import Stepper

GREEDY = Sampling()
DRAW = (Sample(0, GREEDY),)
PROMPT = [5, 6, 7, 8, 9, 10, 11]


def row(seen: Iterable[int], num_tokens: int) -> MaskRow:
    """One that sees these tokens of the context."""
    bits = sum(1 << index for index in seen)
    return MaskRow(bits.to_bytes(-(-num_tokens // 8), "little"), num_tokens)


def answers(stepper: Stepper, *specs: PassSpec) -> list[list[Any]]:
    """Of passes submitted together."""
    passes = stepper.state.submit(specs)
    stepper.run()
    found: list[list[Any]] = [stepper.state.take_answers(one) for one in passes]
    for one in passes:
        stepper.state.drop_request(one)
    return found


def drawn(prompt: Sequence[int], sampling: Sampling = GREEDY) -> int:
    return expected_tokens(prompt, 1, sampling)[0]


def refused(stepper: Stepper, *specs: PassSpec) -> PieError:
    """Why; and nothing may have changed."""
    lengths = {one.id: len(one.journal) for one in stepper.state.contexts}
    with pytest.raises(PieError) as caught:
        stepper.state.submit(specs)
    assert lengths == {one.id: len(one.journal) for one in stepper.state.contexts}
    stepper.state.check()
    return caught.value


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(1.0, seed=7)])
def test_a_loop_of_passes_draws_what_generate_draws(sampling: Sampling) -> None:
    """The i-th draw with `draw` i, greedy and sampled, while a generation runs beside it."""
    stepper = Stepper()
    context = stepper.context(PROMPT)
    stepper.start([1, 2, 3], 50, owner="two")
    tokens: list[int] = []
    for draw in range(32):
        given = tokens[-1:]
        ((token,),) = answers(
            stepper, PassSpec(context, given, questions=[Sample(0, sampling, draw)])
        )
        tokens.append(token)

    assert expected_tokens(PROMPT, 32, sampling) == tokens
    assert PROMPT + tokens[:-1] == stepper.state.tokens(context, 0, len(PROMPT) + 31)


def test_penalties_count_what_draw_says() -> None:
    """The last `draw` tokens of the context count as drawn, as in a generation."""
    stepper = Stepper()
    sampling = Sampling(adjustment=Adjustment(1.3, 0.5, 0.25))
    context = stepper.context(PROMPT)
    tokens: list[int] = []
    for draw in range(6):
        ((token,),) = answers(
            stepper, PassSpec(context, tokens[-1:], questions=[Sample(0, sampling, draw)])
        )
        tokens.append(token)

    assert expected_tokens(PROMPT, 6, sampling) == tokens
    question = [Sample(0, sampling, 99)]
    assert "to have been drawn" in refused(stepper, PassSpec(context, questions=question)).message


def test_slots_come_in_the_order_attached() -> None:
    """Samples and probes mixed, about several tokens, some of them twice."""
    stepper = Stepper()
    context = stepper.context(PROMPT[:4])
    questions = [
        Probe(2, "distribution", top=2),
        Sample(0, GREEDY),
        Probe(0, "logprobs", tokens=[3]),
        Sample(2, Sampling(1.0, seed=3), 5),
        Probe(1, "entropy"),
        Probe(1, "logits"),
        Sample(0, GREEDY),
    ]

    (found,) = answers(stepper, PassSpec(context, PROMPT[4:], questions=questions))

    firsts = [drawn(PROMPT[: 5 + index]) for index in range(3)]
    assert [firsts[2], (firsts[2] + 1) % 512] == found[0].tokens
    assert [firsts[0], firsts[0]] == [found[1], found[6]]
    assert isinstance(found[3], int)
    assert array("f", [firsts[1] / 8]).tobytes() == found[4].values
    logits = array("f", found[5].values)
    assert firsts[1] == max(range(512), key=logits.__getitem__)


@pytest.mark.parametrize("max_batch_tokens", [1, 2, 3, 5, 100])
def test_a_pass_may_be_cut_into_chunks(max_batch_tokens: int) -> None:
    """Each question is asked in the chunk that its token is in; masked tokens as well."""
    stepper = Stepper(config=SchedulerConfig(max_batch_tokens=max_batch_tokens))
    context = stepper.context(PROMPT[:2])
    length = len(PROMPT)
    masks = [row(range(index % 2, index + 1), length) for index in range(2, length)]
    questions = [Sample(index, GREEDY) for index in (4, 0, 2)]
    fork = stepper.state.fork(context)

    (causal,) = answers(stepper, PassSpec(context, PROMPT[2:], questions=questions))
    (masked,) = answers(stepper, PassSpec(fork, PROMPT[2:], attention=masks, questions=questions))

    assert [drawn(PROMPT[: 3 + index]) for index in (4, 0, 2)] == causal
    assert causal[2] != masked[2]
    whole = Stepper()
    other = whole.context(PROMPT[:2])
    spec = PassSpec(other, PROMPT[2:], attention=masks, questions=questions)
    assert [masked] == answers(whole, spec)


def test_without_input_the_last_token_is_asked_about_again() -> None:
    """Also when nothing of the context is computed yet, and as often as one likes."""
    stepper = Stepper()
    context = stepper.context(PROMPT)

    found = [answers(stepper, PassSpec(context, questions=DRAW)) for _ in range(3)]

    assert [[[drawn(PROMPT)]]] * 3 == found
    assert len(PROMPT) == stepper.state.length(context)


def test_branches_of_one_submit_land_in_one_batch() -> None:
    """All are admitted in the same decision, whatever else runs; so are as many as fit a batch."""
    stepper = Stepper(num_pages=400)
    trunk = stepper.context(PROMPT)
    stepper.state.flush(trunk)
    stepper.run()
    branches = [stepper.state.fork(trunk) for _ in range(40)]
    stepper.start([1, 2, 3], 9, owner="two")
    stepper.step()
    before = len(stepper.batches)

    specs = [PassSpec(fork, [20 + i], questions=DRAW) for i, fork in enumerate(branches)]
    passes = stepper.state.submit(specs)
    stepper.step()

    assert [len(stepper.batches) - before, 41] == [1, len(stepper.batches[-1].rows)]
    assert all(stepper.state.ready(one) for one in passes)
    found = [stepper.state.take_answers(one) for one in passes]
    assert [[drawn([*PROMPT, 20 + i])] for i in range(40)] == found


def test_more_branches_than_a_batch_takes_need_few_batches() -> None:
    """Ten of them go through batches of four tokens in three."""
    stepper = Stepper(config=SchedulerConfig(max_batch_tokens=4))
    trunk = stepper.context(PROMPT)
    stepper.state.flush(trunk)
    stepper.run()
    before = len(stepper.batches)

    specs = [PassSpec(stepper.state.fork(trunk), [i], questions=DRAW) for i in range(10)]
    found = answers(stepper, *specs)

    assert [[drawn([*PROMPT, i])] for i in range(10)] == found
    assert 3 == len(stepper.batches) - before


def test_all_or_none_are_admitted() -> None:
    """While one of them has no pages, none of them runs."""
    stepper = Stepper(num_pages=8)
    stepper.start([1] * 20, 5, owner="two")
    stepper.step()
    one, two = stepper.context([2] * 8), stepper.context([3] * 8)

    passes = stepper.state.submit([PassSpec(one, [4], questions=DRAW), PassSpec(two, [4])])
    stepper.step()

    assert not any(map(stepper.state.ready, passes))
    assert 1 == len(stepper.batches[-1].rows)
    stepper.state.drop_owner("two")
    stepper.run()
    assert all(map(stepper.state.ready, passes))
    assert [drawn([2] * 8 + [4])] == stepper.state.take_answers(passes[0])


def test_forks_that_share_a_page_fit_the_pool_together() -> None:
    """The last of them writes in place, so they need no page more than there is."""
    stepper = Stepper(num_pages=3)
    trunk = stepper.context(PROMPT[:6])
    stepper.state.flush(trunk)
    stepper.run()
    fork = stepper.state.fork(trunk)

    specs = [PassSpec(trunk, [1], questions=DRAW), PassSpec(fork, [2], questions=DRAW)]
    found = answers(stepper, *specs)

    assert [[drawn([*PROMPT[:6], last])] for last in (1, 2)] == found
    third = stepper.state.fork(fork)
    error = refused(stepper, *(PassSpec(one, [3]) for one in (trunk, fork, third)))
    assert ("exhausted", "need 4 pages" in error.message) == (error.code, True)


def test_a_pass_that_computes_again_takes_no_page_of_others() -> None:
    """One behind another of its submit, without input, while everything else is taken."""
    stepper = Stepper(num_pages=12, page_size=1)
    context = stepper.context([1, 2, 3])
    specs = [PassSpec(context, tokens, questions=DRAW) for tokens in ([4], [], [5])]
    passes = stepper.state.submit(specs)
    stepper.start([1, 2, 3, 4], 3, owner="two")
    stepper.run()

    expected = [[drawn([1, 2, 3, *more])] for more in ([4], [4], [4, 5])]
    assert expected == [stepper.state.take_answers(one) for one in passes]


def test_passes_on_one_context_run_in_order() -> None:
    """Of one submit and of several; each goes on from what those before it brought."""
    stepper = Stepper()
    context = stepper.context(PROMPT)
    passes = [
        *stepper.state.submit(
            [PassSpec(context, [1], questions=DRAW), PassSpec(context, [2], questions=DRAW)]
        ),
        *stepper.state.submit([PassSpec(context, questions=DRAW)]),
        *stepper.state.submit([PassSpec(context, [3], questions=DRAW)]),
    ]
    assert len(PROMPT) + 3 == stepper.state.length(context)
    order = []
    while stepper.step() is not None:
        order.append([stepper.state.ready(one) for one in passes].count(True))

    assert [1, 2, 3, 4] == order
    prompts = [[1], [1, 2], [1, 2], [1, 2, 3]]
    expected = [[drawn(PROMPT + more)] for more in prompts]
    assert expected == [stepper.state.take_answers(one) for one in passes]


def test_a_group_waits_for_earlier_passes_of_its_contexts() -> None:
    """None of it runs before all of it can."""
    stepper = Stepper()
    one, two = stepper.context([1, 2]), stepper.context([3, 4])
    (first,) = stepper.state.submit([PassSpec(one, [5], questions=DRAW)])
    later = stepper.state.submit(
        [PassSpec(two, [6], questions=DRAW), PassSpec(one, [7], questions=DRAW)]
    )

    stepper.step()
    assert [True, False, False] == [stepper.state.ready(each) for each in (first, *later)]
    stepper.step()
    assert all(map(stepper.state.ready, later))


def test_dropping_a_pass_gives_up_its_answers_only() -> None:
    """Its input stays; those behind it take its turn, at whatever moment it goes."""
    for moment in range(4):
        stepper = Stepper()
        context = stepper.context(PROMPT)
        other = stepper.context([1])
        first, second = stepper.state.submit(
            [PassSpec(context, [1], questions=DRAW), PassSpec(other, [2], questions=DRAW)]
        )
        (third,) = stepper.state.submit([PassSpec(context, [3], questions=DRAW)])
        if moment == 1:
            stepper.depart()
        if moment == 2:
            stepper.step()
        stepper.state.drop_request(third if moment == 3 else first)
        if moment == 1:
            stepper.land()
        stepper.run()
        stepper.state.check()

        kept, expected = (first, [1]) if moment == 3 else (third, [1, 3])
        assert [drawn(PROMPT + expected)] == stepper.state.take_answers(kept)
        assert [drawn([1, 2])] == stepper.state.take_answers(second)
        assert len(PROMPT) + 2 == stepper.state.length(context)


def test_the_context_is_busy_while_passes_are_live() -> None:
    """Everything that changes it; a generation on it likewise refuses passes."""
    stepper = Stepper()
    context = stepper.context(PROMPT)
    (one,) = stepper.state.submit([PassSpec(context, [1], questions=DRAW)])

    for call in (
        lambda: stepper.state.append(context, [1]),
        lambda: stepper.state.truncate(context, 1),
        lambda: stepper.state.fork(context),
        lambda: stepper.state.flush(context),
        lambda: stepper.state.generate(context, GenerateParams()),
    ):
        with pytest.raises(PieError, match="running"):
            call()
    stepper.run()
    assert stepper.state.ready(one)
    stepper.state.generate(context, GenerateParams())
    assert "busy" == refused(stepper, PassSpec(context, questions=DRAW)).code


def test_positions_go_on_from_the_last_one() -> None:
    """Given ones last: what comes later continues after them; equal positions give equal tokens."""
    stepper = Stepper()
    shifted, plain = stepper.context([1, 2]), stepper.context([1, 2])
    (found,) = answers(stepper, PassSpec(shifted, [3, 4], positions=[10, 12], questions=DRAW))
    (same,) = answers(stepper, PassSpec(plain, [3, 4], positions=[2, 3], questions=DRAW))
    stepper.state.append(shifted, [5])
    stepper.state.flush(shifted)
    stepper.run()

    assert [[drawn([1, 2, 3])], True] == [same, same != found]
    assert [13] == stepper.batches[-1].rows[0].positions
    assert not stepper.batches[1].rows[-1].positions


def test_a_tree_in_one_pass_draws_what_forks_draw() -> None:
    """Siblings stand at one position and see the trunk and their own branch only."""
    stepper = Stepper()
    context = stepper.context(PROMPT)
    length = len(PROMPT)
    # Two branches of two tokens: 20 21 and 30 31.
    tokens, parents = [20, 30, 21, 31], [None, None, 0, 1]
    total = length + len(tokens)
    masks, positions = [], []
    for index, parent in enumerate(parents):
        seen = [*range(length), length + index]
        positions.append(length if parent is None else length + 1)
        masks.append(row(seen if parent is None else [*seen, length + parent], total))
    questions = [Sample(index, GREEDY) for index in range(4)]

    (found,) = answers(stepper, PassSpec(context, tokens, positions, masks, questions))

    paths = [[20], [30], [20, 21], [30, 31]]
    assert [drawn(PROMPT + path) for path in paths] == found


def test_masks_and_positions_survive_forks_truncation_and_recomputing() -> None:
    """The record of them is the context's, and pages computed by it are nobody else's."""
    stepper = Stepper(page_size=2)
    context = stepper.context(PROMPT)
    total = len(PROMPT) + 3
    masks = [row([0, 2, index], total) for index in range(len(PROMPT), total)]
    ahead = [row([0, total - 1], total)] * 3
    for attention in (masks, ahead):
        one = stepper.state.fork(context)
        spec = PassSpec(one, [1, 2, 3], [9, 9, 9], attention, [Sample(2, GREEDY)])
        (found,) = answers(stepper, spec)
        again = stepper.state.fork(one)
        # Computed anew from the record, in other rows.
        stepper.state.contexts.rewind(stepper.state.contexts.get(again), 0)
        assert [found] == answers(stepper, PassSpec(again, questions=DRAW))
        stepper.state.truncate(again, total - 1)
        (cut,) = answers(stepper, PassSpec(again, questions=DRAW))
        stepper.state.contexts.rewind(stepper.state.contexts.get(again), 0)
        assert [cut] == answers(stepper, PassSpec(again, questions=DRAW))
        stepper.state.truncate(again, len(PROMPT))
        assert [[drawn(PROMPT)]] == answers(stepper, PassSpec(again, questions=DRAW))
    stepper.state.check()


def test_a_journal_keeps_positions_and_masks() -> None:
    """Through a file, into another daemon, unless its batches are too small for what it holds."""
    stepper = Stepper()
    context = stepper.context(PROMPT)
    total = len(PROMPT) + 3
    ahead = [row([0, total - 1], total)] * 3
    answers(stepper, PassSpec(context, [1, 2, 3], [9, 9, 30], ahead))
    (found,) = answers(stepper, PassSpec(context, [4], questions=DRAW))
    journal = msgspec.msgpack.decode(
        msgspec.msgpack.encode(stepper.state.saving.snapshot(context)), type=Journal
    )

    other = Stepper(page_size=3)
    opened = other.state.open_journal("two", journal)
    assert [found] == answers(other, PassSpec(opened, questions=DRAW))
    assert len(PROMPT) + 4 + 3 * 2 // 4 == journal.weight
    with pytest.raises(PieError, match="at once"):
        Stepper(config=SchedulerConfig(max_batch_tokens=4)).state.open_journal("x", journal)


def test_masked_pages_are_nobody_elses() -> None:
    """An equal context without the mask computes its own."""
    stepper = Stepper(page_size=2)
    masked = stepper.context(PROMPT)
    total = len(PROMPT) + 4
    attention = [row([index], total) for index in range(len(PROMPT), total)]
    answers(stepper, PassSpec(masked, [1, 2, 3, 4], attention=attention))
    plain = stepper.context([*PROMPT, 1, 2, 3, 4])

    assert [[drawn([*PROMPT, 1, 2, 3, 4])]] == answers(stepper, PassSpec(plain, questions=DRAW))


def test_tokens_that_see_later_ones_are_computed_at_once() -> None:
    """In one row, though decoding rows fill the batch; more than half a batch is refused."""
    stepper = Stepper(config=SchedulerConfig(max_batch_tokens=8), num_pages=256)
    decoding = [stepper.start([i + 1], 12, owner=f"o{i}") for i in range(7)]
    context = stepper.context(PROMPT[:2])
    for _ in range(3):
        stepper.step()
    attention = [row(range(6), 6)] * 4
    spec = PassSpec(context, [1, 2, 3, 4], attention=attention, questions=[Sample(3, GREEDY)])
    (one,) = stepper.state.submit([spec])
    while not stepper.state.ready(one):
        assert stepper.step() is not None
    widths = [
        len(each.tokens) for batch in stepper.batches for each in batch.rows if each.attention
    ]
    assert [4] == widths
    stepper.run()
    assert [12] * 7 == [len(stepper.drain(each)) for each in decoding]
    five = PassSpec(stepper.context([1]), [1] * 5, attention=[row(range(6), 6)] * 5)
    assert "computed at once" in refused(stepper, five).message


def test_what_is_wrong_is_named_and_nothing_is_queued() -> None:
    """Also when only the last pass of several is wrong."""
    stepper = Stepper()
    good, empty = stepper.context(PROMPT), stepper.state.create_context("one")
    fine = PassSpec(good, [1], questions=DRAW)
    cases: list[tuple[PassSpec, str]] = [
        (PassSpec(good), "nothing to do"),
        (PassSpec(empty, questions=DRAW), "a context that is not empty"),
        (PassSpec(good, [999]), "outside the vocabulary"),
        (PassSpec(good, [1, 2], [3]), "1 positions for 2 tokens"),
        (PassSpec(good, [1], [1 << 20]), "positions reach from"),
        (PassSpec(good, [1], attention=[row([0], 8)]), "speaks of 8 tokens"),
        (PassSpec(good, [1], attention=[row([], 9)]), "first run is FALSE"),
        (PassSpec(good, [1], attention=[]), "0 attention rows for 1 tokens"),
        (PassSpec(good, questions=[Sample(1, GREEDY)]), "only 0"),
        (PassSpec(good, [1], questions=[Probe(1, "logits")]), "input token 1 of 1"),
        (PassSpec(good, [1], questions=[Probe(0, "logprobs", tokens=[999])]), "vocabulary"),
        (PassSpec(good, [1] * 40000), "takes 32768"),
        (PassSpec(good, [1], questions=[Sample(0, GREEDY)] * 2000), "the limit is 1024"),
        (PassSpec(good, [1], questions=[Probe(0, "logits")] * 1024 * 2), "the limit is 1024"),
    ]
    for spec, message in cases:
        error = refused(stepper, fine, spec)
        assert message in error.message
        assert error.message.startswith("pass 1: ")
    assert "1 to 256 passes" in refused(stepper).message
    assert "1 to 256 passes" in refused(stepper, *[fine] * 257).message


def test_sampled_tokens_are_generated_tokens() -> None:
    """They are counted, and a spent budget refuses before anything is queued."""
    stepper = Stepper()

    class Budget:
        tokens = 3

        def spend(self, num_tokens: int) -> bool:
            self.tokens -= num_tokens
            return True

        def left(self) -> int | None:
            return self.tokens

    stepper.state.owners.add("one", budget=Budget())
    context = stepper.context(PROMPT)
    answers(stepper, PassSpec(context, questions=[*DRAW, *DRAW]))

    assert 2 == stepper.state.counters.generated_tokens
    error = refused(stepper, PassSpec(context, [1], questions=[*DRAW, *DRAW]))
    assert ("quota", True) == (error.code, "has 1 left" in error.message)


def test_pages_of_a_quota_count_for_the_whole_list() -> None:
    """Each alone would do; together they do not."""
    stepper = Stepper()
    stepper.state.owners.add("one", max_kv_pages=4)
    specs = [PassSpec(stepper.context([i] * 9), [1]) for i in range(2)]

    assert "quota" == refused(stepper, *specs).code
    assert [[]] == answers(stepper, specs[0])


def test_answers_are_taken_once() -> None:
    """And a failed backend fails the passes, those behind others as well."""
    stepper = Stepper()
    context = stepper.context(PROMPT)
    (one,) = stepper.state.submit([PassSpec(context, questions=DRAW)])
    stepper.run()
    stepper.state.take_answers(one)
    with pytest.raises(PieError, match="taken already"):
        stepper.state.take_answers(one)
    passes = [
        *stepper.state.submit([PassSpec(context, [1])]),
        *stepper.state.submit([PassSpec(context, [1])]),
    ]
    assert sorted(passes) == sorted(stepper.state.fail(PieError("internal", "it died")))
    for each in passes:
        with pytest.raises(PieError, match="it died"):
            stepper.state.take_answers(each)


def test_a_pass_computes_with_its_adapter(tmp_path: Path) -> None:
    """Its tokens and those still open; the last one again when there is no input; in order."""
    stepper = Stepper(page_size=2)
    digest = stepper.backend.load_adapter(str(write_adapter_files(tmp_path))).digest
    one, two = stepper.context(PROMPT), stepper.context(PROMPT)
    stepper.state.flush(two)
    stepper.run()

    (adapted,) = answers(stepper, PassSpec(one, [1], questions=DRAW, adapter=digest))
    assert {digest} == {row.adapter for row in stepper.batches[-1].rows}
    (later,) = answers(stepper, PassSpec(two, [1], questions=DRAW, adapter=digest))
    assert [(1, digest)] == [(len(row.tokens), row.adapter) for row in stepper.batches[-1].rows]
    (plain,) = answers(stepper, PassSpec(stepper.context(PROMPT), [1], questions=DRAW))
    assert [drawn([*PROMPT, 1])] == plain
    assert 3 == len({tuple(each) for each in (adapted, later, plain)})
    (again,) = answers(stepper, PassSpec(two, questions=DRAW))
    assert plain == again
    specs = [PassSpec(two, [2], adapter=digest), PassSpec(two, questions=DRAW)]
    assert "busy" == refused(stepper, *specs).code
