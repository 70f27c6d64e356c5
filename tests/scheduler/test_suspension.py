"""Whose pages go when they are short, and how they come back."""

from __future__ import annotations

from math import log2

import pytest

from pie_backend.batch import Sampling
from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.pressure import Expectation
from pie_daemon.scheduler.request import LENGTH
from support.contention import PENALISED, prompt_of
from support.stepping import Stepper


def short_sighted() -> Expectation:
    """Promises nearly nothing, until requests have ended."""
    return Expectation(mean_tokens=0, min_run_tokens=4)


def limited(max_tokens: int) -> GenerateParams:
    """Nothing but a limit."""
    return GenerateParams(max_tokens=max_tokens, ignore_eos=True)


def computed(stepper: Stepper, tokens: list[int], owner: str = "one") -> int:
    """A context whose tokens are computed."""
    context = stepper.context(tokens, owner)
    stepper.state.flush(context)
    stepper.run()
    return context


def suspended(stepper: Stepper, *contexts: int) -> list[bool]:
    """Which of them are."""
    return [stepper.state.contexts.get(context).suspended is not None for context in contexts]


def cost_of_next(stepper: Stepper, context: int) -> int:
    """Tokens that one generated token takes, which is checked."""
    state = stepper.state
    before = state.counters.computed_tokens
    prompt = state.tokens(context, 0, state.length(context))
    request = state.generate(context, limited(1))
    stepper.run()
    assert stepper.expected(prompt, 1) == stepper.drain(request)
    return state.counters.computed_tokens - before


def test_the_least_recently_used_context_goes_first() -> None:
    """Of three idle contexts the one used longest ago makes room, and only that one."""
    stepper = Stepper(num_pages=9)
    first, second, third = (computed(stepper, prompt_of(n, 9)) for n in (1, 2, 3))
    cost_of_next(stepper, first)

    computed(stepper, prompt_of(4, 9))

    assert [False, True, False] == suspended(stepper, first, second, third)


def test_cached_pages_go_before_contexts() -> None:
    """As long as nobody's pages do, no context is suspended."""
    stepper = Stepper(num_pages=9)
    idle = computed(stepper, prompt_of(1, 9))
    for n in range(2, 9):
        stepper.state.drop_context(computed(stepper, prompt_of(n, 9)))

    assert [False] == suspended(stepper, idle)


def test_a_program_that_goes_on_at_once_finds_its_pages() -> None:
    """For some batches newcomers wait, as long as others run; then they get the pages."""
    stepper = Stepper(num_pages=12)
    runner = stepper.start(prompt_of(1, 4), 24, "runner")  # 7 pages
    lately = stepper.context(prompt_of(2, 12), "lately")
    stepper.state.flush(lately)
    stepper.step()
    newcomer = stepper.start(prompt_of(3, 16), 1, "newcomer")
    for _ in range(10):
        stepper.step()
    assert [False] == suspended(stepper, lately)
    again = stepper.state.generate(lately, limited(3))
    stepper.step()
    assert 1 == len(stepper.state.waiting)
    while newcomer in stepper.state.waiting:
        stepper.step()

    assert [True] == suspended(stepper, lately)
    assert runner in stepper.state.running
    stepper.run()
    assert stepper.expected(prompt_of(2, 12), 3) == stepper.drain(again)
    assert stepper.expected(prompt_of(3, 16), 1) == stepper.drain(newcomer)


def test_a_context_that_frees_nothing_is_left_alone() -> None:
    """An old fork of a running context holds only its pages; a newer context goes instead."""
    stepper = Stepper(num_pages=10)
    parent = computed(stepper, prompt_of(1, 8))
    fork = stepper.state.fork(parent)
    other = computed(stepper, prompt_of(2, 16))
    request = stepper.state.generate(parent, limited(20))
    stepper.step()

    assert [False, True] == suspended(stepper, fork, other)
    stepper.run()
    assert stepper.expected(prompt_of(1, 8), 20) == stepper.drain(request)


def test_forks_give_up_their_common_pages_together() -> None:
    """When nothing else helps, all holders of a page are suspended, and find it again."""
    stepper = Stepper(num_pages=6, host_pages=6)
    parent = computed(stepper, prompt_of(1, 18))
    forks = [stepper.state.fork(parent) for _ in range(3)]
    other = computed(stepper, prompt_of(2, 22))
    assert [True] * 4 == suspended(stepper, parent, *forks)

    # The first one writes the half-filled page that they had in common.
    assert [1, 2, 2] == [cost_of_next(stepper, fork) for fork in forks]
    assert [True] == suspended(stepper, other)


@pytest.mark.parametrize(("host_pages", "cost"), [(0, 10), (1, 6), (3, 1), (8, 1)])
def test_suspended_contexts_come_back_from_host_memory(host_pages: int, cost: int) -> None:
    """Page by page, half-filled ones too; what has no room there is computed again."""
    stepper = Stepper(num_pages=4, host_pages=host_pages)
    context = computed(stepper, prompt_of(1, 10))
    computed(stepper, prompt_of(2, 16))
    assert [True] == suspended(stepper, context)

    assert cost == cost_of_next(stepper, context)
    # The last token would have been computed again in any case.
    assert cost - 1 == stepper.state.counters.recomputed_tokens


def test_pages_that_nobody_needed_are_still_there() -> None:
    """A suspended context whose pages were not taken goes on as if nothing had been."""
    stepper = Stepper(num_pages=8)
    context = computed(stepper, prompt_of(1, 10))
    stepper.state.contexts.suspend(stepper.state.contexts.get(context))

    assert 8 == stepper.state.contexts.pool.num_free
    assert 1 == cost_of_next(stepper, context)


def test_a_suspended_context_can_be_changed() -> None:
    """Truncated, appended to, forked and dropped it behaves as ever, in host memory or not."""
    for host_pages in (0, 8):
        stepper = Stepper(num_pages=4, host_pages=host_pages)
        state = stepper.state
        context = computed(stepper, prompt_of(1, 14))
        computed(stepper, prompt_of(2, 16))
        fork = state.fork(context)
        state.truncate(context, 6)
        state.append(context, [99, 98])
        state.drop_context(state.fork(fork))
        requests = [state.generate(each, limited(3)) for each in (context, fork)]
        stepper.run()

        assert stepper.expected([*prompt_of(1, 14)[:6], 99, 98], 3) == stepper.drain(requests[0])
        assert stepper.expected(prompt_of(1, 14), 3) == stepper.drain(requests[1])
        state.drop_owner("one")
        state.check()
        assert (4, 0) == (state.contexts.pool.num_free, len(state.contexts))


def test_what_nobody_can_find_again_is_not_kept() -> None:
    """The half-filled page of a dropped context leaves host memory; whole ones stay for others."""
    stepper = Stepper(num_pages=4, host_pages=8)
    context = computed(stepper, prompt_of(1, 10))
    computed(stepper, prompt_of(2, 16))
    assert 3 == stepper.state.contexts.host.num_used

    stepper.state.drop_context(context)

    assert 2 == stepper.state.contexts.host.num_used


@pytest.mark.parametrize("host_pages", [0, 16])
def test_a_running_generation_gives_way_and_goes_on(host_pages: int) -> None:
    """Penalties, seed, text and log probabilities go on where they were."""
    stepper = Stepper(num_pages=12, host_pages=host_pages, expectation=short_sighted())
    calm = Stepper(num_pages=64)
    params = GenerateParams(
        Sampling(0.9, seed=5, adjustment=PENALISED.adjustment, logprobs=2),
        max_tokens=30,
        chunk_tokens=0,
        stop_strings=("zzzzz",),
        ignore_eos=True,
    )
    found = []
    for each in (stepper, calm):
        contexts = [each.context(prompt_of(n, 6), f"owner-{n}") for n in range(4)]
        requests = [each.state.generate(context, params) for context in contexts]
        each.run()
        found.append([each.state.take(request) for request in requests])
        assert [LENGTH] * 4 == [each.state.finish(request) for request in requests]
        usages = [each.state.usage(request) for request in requests]
        assert [(6, 0, 30)] * 4 == [
            (usage.prompt_tokens, usage.cached_tokens, usage.generated_tokens) for usage in usages
        ]

    assert stepper.state.counters.preemptions >= 3
    assert 0 == calm.state.counters.preemptions
    assert found[0] == found[1]


def test_giving_way_is_bounded() -> None:
    """Requests that each want the whole pool: none gives way more often than its length doubles."""
    max_tokens, num_requests = 120, 6
    stepper = Stepper(num_pages=32, expectation=short_sighted())
    prompts = [prompt_of(n, 4) for n in range(num_requests)]
    requests = [stepper.start(prompt, max_tokens, f"o{n}") for n, prompt in enumerate(prompts)]
    stepper.run()

    assert [stepper.expected(prompt, max_tokens) for prompt in prompts] == [
        stepper.drain(request) for request in requests
    ]
    counters = stepper.state.counters
    assert 0 < counters.preemptions <= num_requests * (log2(max_tokens / 4) + 1)
    # Each time the whole length so far is lost, and the next time it is twice as long.
    assert counters.recomputed_tokens <= num_requests * 2 * max_tokens


def test_who_keeps_within_its_promise_is_not_suspended() -> None:
    """A request admitted with room for all that it makes runs through, whatever comes."""
    stepper = Stepper(num_pages=16, expectation=Expectation(mean_tokens=4, min_run_tokens=4))
    safe = stepper.start(prompt_of(1, 8), 8, "safe")
    greedy = [stepper.start(prompt_of(n, 8), 40, f"greedy-{n}") for n in (2, 3)]
    while safe in stepper.state.running or safe in stepper.state.waiting:
        stepper.step()
        assert safe not in stepper.state.waiting
    stepper.run()

    assert stepper.state.counters.preemptions > 0
    assert [stepper.expected(prompt_of(n, 8), 40) for n in (2, 3)] == [
        stepper.drain(request) for request in greedy
    ]


def test_who_is_most_over_its_share_gives_way_first() -> None:
    """Two users beyond their promises: the one for whom more was computed is suspended."""
    stepper = Stepper(num_pages=16, expectation=Expectation(mean_tokens=2, min_run_tokens=4))
    for owner in ("much", "little"):
        stepper.state.owners.add(owner, owner)
    much = [stepper.start(prompt_of(n, 8), 24, "much") for n in (1, 2)]
    little = stepper.start(prompt_of(3, 8), 24, "little")
    while not stepper.state.counters.preemptions:
        stepper.step()

    assert little in stepper.state.running
    assert any(request in stepper.state.waiting for request in much)
    stepper.run()
    assert stepper.expected(prompt_of(3, 8), 24) == stepper.drain(little)


def test_low_priority_gives_way_within_a_family() -> None:
    """Of one family the lowest priority is suspended first and served last."""
    stepper = Stepper(num_pages=14, expectation=Expectation(mean_tokens=2, min_run_tokens=4))
    contexts = [stepper.context(prompt_of(n, 8)) for n in (1, 2, 3)]
    for context, priority in zip(contexts, (-1, 0, 1), strict=True):
        stepper.state.contexts.get(context).priority = priority
    low, *_ = [stepper.state.generate(context, limited(24)) for context in contexts]
    while not stepper.state.counters.preemptions:
        stepper.step()

    assert low in stepper.state.waiting


def test_generations_learn_how_long_they_are() -> None:
    """After some that used all they might, as many are admitted as fit, and none gives way."""
    stepper = Stepper(
        num_pages=32,
        config=SchedulerConfig(max_batch_rows=8),
        expectation=Expectation(mean_tokens=1, min_run_tokens=4),
    )
    for n in range(32):
        stepper.start(prompt_of(n, 4), 28, f"early-{n}")
    stepper.run()
    before = stepper.state.counters.preemptions
    for n in range(32, 64):
        stepper.start(prompt_of(n, 4), 28, f"late-{n}")
    stepper.run()

    assert before == stepper.state.counters.preemptions > 0


def test_open_ended_requests_run_together() -> None:
    """A request that may fill the pool does not keep it to itself."""
    stepper = Stepper(num_pages=40, expectation=Expectation(mean_tokens=8))
    for n in range(4):
        stepper.state.generate(stepper.context(prompt_of(n, 8)), GenerateParams())
    batch = stepper.step()

    assert batch is not None
    assert 2 <= len(batch.rows)
