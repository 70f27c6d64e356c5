"""Prompts that begin with pages that others have computed."""

from __future__ import annotations

import random

import pytest

from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.scheduler.contexts import ContextTable
from pie_daemon.scheduler.owners import OwnerTable
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.policy import FollowTheFirst
from support.stepping import Stepper

PROMPT = [11, 12, 13, 14, 15, 16, 17, 18, 19, 20]


def limited(max_tokens: int) -> GenerateParams:
    """Nothing but a limit."""
    return GenerateParams(max_tokens=max_tokens)


def random_tokens(num_tokens: int, seed: int = 0) -> list[int]:
    """Within the vocabulary of dummy."""
    source = random.Random(seed)
    return [source.randrange(1, 512) for _ in range(num_tokens)]


def cost(stepper: Stepper, prompt: list[int], owner: str = "one") -> int:
    """Tokens that one generated token took; its context is dropped afterwards."""
    before = stepper.state.counters.computed_tokens
    context = stepper.context(prompt, owner)
    request = stepper.state.generate(context, limited(1))
    stepper.run()
    assert stepper.expected(prompt, 1) == stepper.drain(request)
    stepper.state.drop_context(context)
    return stepper.state.counters.computed_tokens - before


@pytest.fixture
def stepper() -> Stepper:
    """A pool of 64 pages of 4 tokens."""
    return Stepper()


def test_whole_pages_of_a_finished_program_are_found(stepper: Stepper) -> None:
    """After its owner is gone, an equal prompt computes only what is left of the last page."""
    first = stepper.start(PROMPT, 3, "gone")
    stepper.run()
    stepper.drain(first)
    stepper.state.drop_owner("gone")

    request = stepper.start(PROMPT, 3, "next")
    batch = stepper.step()
    stepper.run()

    assert batch is not None
    assert [PROMPT[8:]] == [row.tokens for row in batch.rows]
    assert stepper.expected(PROMPT, 3) == stepper.drain(request)
    owner = stepper.state.owners.find("next")
    assert owner is not None
    assert (8, 8) == (stepper.state.usage(request).cached_tokens, owner.cached_tokens)
    assert 0.4 == stepper.state.counters.prefix_hit_rate  # 8 of 10 + 10


def test_generated_pages_are_found_too(stepper: Stepper) -> None:
    """A prompt that goes on from what another program generated begins with its pages."""
    cost(stepper, [1])
    first = stepper.start(PROMPT, 11)
    stepper.run()
    generated = stepper.drain(first)

    assert 2 == cost(stepper, [*PROMPT, *generated, 5])  # 22 tokens, 5 pages are whole


@pytest.mark.parametrize("num_tokens", [8, 9])
def test_a_full_hit_leaves_something_to_compute(stepper: Stepper, num_tokens: int) -> None:
    """A draw needs the logits of the last token, so the page that it is on is computed again."""
    cost(stepper, PROMPT)

    assert {8: 4, 9: 1}[num_tokens] == cost(stepper, PROMPT[:num_tokens])


def test_a_flush_begins_with_cached_pages(stepper: Stepper) -> None:
    """So does a generation after it, which recomputes its last token only."""
    state = stepper.state
    cost(stepper, PROMPT)
    context = stepper.context(PROMPT)
    flush = state.flush(context)
    assert flush is not None
    before = state.counters.computed_tokens
    stepper.run()
    request = state.generate(context, limited(1))
    stepper.run()

    assert (2 + 1, 8) == (
        state.counters.computed_tokens - before,
        state.usage(flush).cached_tokens,
    )
    assert stepper.expected(PROMPT, 1) == stepper.drain(request)


def test_only_equal_beginnings_hit(stepper: Stepper) -> None:
    """The same page after another one has other KV."""
    cost(stepper, PROMPT)

    assert 10 == cost(stepper, [99, *PROMPT[1:]])
    assert 6 == cost(stepper, [*PROMPT[:4], 99, *PROMPT[5:]])


def test_users_do_not_find_each_others_pages(stepper: Stepper) -> None:
    """Instances of one user share; another user computes the same prompt anew."""
    for owner, user in (("a", "ann"), ("b", "ann"), ("z", "zoe")):
        stepper.state.owners.add(owner, user)

    assert [10, 2, 10, 2] == [cost(stepper, PROMPT, owner) for owner in "abzz"]


def test_sharing_can_be_switched_on() -> None:
    """With `share_prefixes` all users find the same pages."""
    stepper = Stepper(config=SchedulerConfig(share_prefixes=True))
    for owner, user in (("a", "ann"), ("z", "zoe")):
        stepper.state.owners.add(owner, user)

    assert [10, 2] == [cost(stepper, PROMPT, owner) for owner in "az"]


def test_the_prefix_used_least_recently_goes_first() -> None:
    """Of three cached prompts in a full pool, the one that was not used again loses its pages."""
    stepper = Stepper(num_pages=9)
    first, second, third = ([n] * 9 for n in (1, 2, 3))
    for prompt in (first, second, third, first):
        cost(stepper, prompt)  # two whole pages each
    assert 6 == stepper.state.contexts.pool.num_cached

    cost(stepper, [4] * 18)  # five pages; three are free

    assert [1, 1] == [cost(stepper, prompt) for prompt in (first, third)]
    assert 9 == cost(stepper, second)


def test_eviction_takes_the_end_of_a_prefix_before_its_beginning() -> None:
    """Half of a prefix that is left is its first half."""
    stepper = Stepper(num_pages=5)
    cost(stepper, [1] * 17)  # four whole pages

    cost(stepper, [2] * 12)  # three pages; one is free

    assert 17 - 2 * 4 == cost(stepper, [1] * 17)


def test_cached_pages_never_keep_a_request_waiting() -> None:
    """A request that needs the whole pool gets it, whatever is cached."""
    stepper = Stepper(num_pages=5)
    for n in range(10):
        cost(stepper, [n + 1] * 9)

    request = stepper.start([50] * 12, 9)
    stepper.run()

    assert stepper.expected([50] * 12, 9) == stepper.drain(request)


def test_a_hit_gives_back_the_partial_page_that_it_replaces() -> None:
    """A request that fits without the hit fits with it: one page found, another returned."""
    stepper = Stepper(num_pages=3)
    cost(stepper, PROMPT[:5])  # one whole page stays
    context = stepper.context(PROMPT[:3])
    stepper.state.flush(context)
    stepper.run()
    stepper.state.append(context, PROMPT[3:])

    request = stepper.state.generate(context, limited(3))
    stepper.run()

    assert 4 == stepper.state.usage(request).cached_tokens
    assert stepper.expected(PROMPT, 3) == stepper.drain(request)


def test_found_pages_are_not_promised_to_others() -> None:
    """A request that begins with the pool's cached pages leaves the next one fewer."""
    stepper = Stepper(num_pages=4)
    cost(stepper, PROMPT[:9])  # two whole pages stay
    first = stepper.start(PROMPT, 3)
    second = stepper.start([50] * 10, 3)
    stepper.step()
    assert ([first], [second]) == (list(stepper.state.running), list(stepper.state.waiting))
    stepper.run()
    assert stepper.expected(PROMPT, 3) == stepper.drain(first)
    stepper.state.drop_owner("one")


def test_a_context_that_finds_its_own_page_again_returns_none() -> None:
    """Cut in the middle of a page and continued as before, it takes just the page that it lacks."""
    stepper = Stepper(num_pages=3)
    context = stepper.context(PROMPT[:8])
    stepper.state.flush(context)
    stepper.run()
    stepper.state.truncate(context, 5)
    stepper.state.append(context, PROMPT[5:])
    first = stepper.state.generate(context, limited(3))
    second = stepper.start([50], 2)
    stepper.step()
    assert ([first], [second]) == (list(stepper.state.running), list(stepper.state.waiting))
    stepper.run()

    assert stepper.expected(PROMPT, 3) == stepper.drain(first)


@pytest.mark.parametrize("length", [5, 8])
def test_a_hit_after_truncate(stepper: Stepper, length: int) -> None:
    """A context cut short finds its old pages when the same tokens come again, and only then."""
    state = stepper.state
    context = stepper.context(PROMPT)
    state.flush(context)
    stepper.run()
    state.truncate(context, length)
    state.append(context, PROMPT[length:])
    request = state.generate(context, limited(2))
    batch = stepper.step()
    stepper.run()
    assert batch is not None
    assert [PROMPT[8:]] == [row.tokens for row in batch.rows]
    assert stepper.expected(PROMPT, 2) == stepper.drain(request)

    state.truncate(context, length)
    state.append(context, [99, *PROMPT[length:]])
    request = state.generate(context, limited(2))
    stepper.run()

    assert stepper.expected([*PROMPT[:length], 99, *PROMPT[length:]], 2) == stepper.drain(request)


def test_a_published_page_in_use_is_copied_before_writing(stepper: Stepper) -> None:
    """Two programs on one page: the one that cuts and goes another way does not disturb it."""
    state = stepper.state
    contexts = [stepper.context(PROMPT, owner) for owner in ("one", "two")]
    for context in contexts:
        state.flush(context)
        stepper.run()
    state.truncate(contexts[1], 6)
    state.append(contexts[1], [99])
    requests = [state.generate(context, limited(5)) for context in contexts]
    stepper.run()

    assert 1 == sum(len(batch.copies) for batch in stepper.batches)
    assert [stepper.expected(PROMPT, 5), stepper.expected([*PROMPT[:6], 99], 5)] == [
        stepper.drain(request) for request in requests
    ]


def test_a_sole_holder_writes_its_published_page_in_place() -> None:
    """With no page free for a copy it goes on, and the old content is found no longer."""
    stepper = Stepper(num_pages=2)
    state = stepper.state
    context = stepper.context(PROMPT[:8])
    state.flush(context)
    stepper.run()
    state.truncate(context, 6)
    state.append(context, [99])
    request = state.generate(context, limited(2))
    stepper.run()
    assert stepper.expected([*PROMPT[:6], 99], 2) == stepper.drain(request)
    state.drop_context(context)

    assert 4 == cost(stepper, PROMPT[:8])


def test_pages_computed_twice_are_held_once() -> None:
    """Two that did not know of each other end up on the same pages."""
    stepper = Stepper()  # both prompts are too short to wait for
    for owner in ("one", "two"):
        stepper.state.flush(stepper.context(PROMPT, owner))
    stepper.run()

    assert 20 == stepper.state.counters.computed_tokens
    assert 64 - 4 == stepper.state.contexts.pool.num_free


def test_a_page_that_others_hold_is_not_swapped_for_a_cached_one() -> None:
    """That would take a page from the pool which nobody reserved."""
    contexts = ContextTable(num_pages=4, page_size=4)
    owner = OwnerTable().add("one")
    published, twin = contexts.create(owner), contexts.create(owner)
    for context in (published, twin):
        context.journal = PROMPT[:4]
        contexts.extend(context, 4, [])
        context.num_computed = 4
    fork = contexts.fork(twin)
    contexts.publish(published)
    contexts.drop(published)

    contexts.publish(twin)

    assert (3, fork.pages) == (contexts.pool.num_free, twin.pages)
    contexts.check()


@pytest.mark.parametrize("max_batch_tokens", [100, 392, 2048, 16384])
def test_32_programs_compute_a_common_prompt_once(max_batch_tokens: int) -> None:
    """However prompts are chunked, 2,000 tokens are computed once, and every tail for itself."""
    stepper = Stepper(
        num_pages=600,
        page_size=16,
        config=SchedulerConfig(max_batch_tokens=max_batch_tokens),
    )
    system = random_tokens(2000)
    prompts = [system + random_tokens(7 + n, seed=n + 1) for n in range(32)]
    requests = [stepper.start(prompt, 5, f"program-{n}") for n, prompt in enumerate(prompts)]
    stepper.run()

    assert [stepper.expected(prompt, 5) for prompt in prompts] == [
        stepper.drain(request) for request in requests
    ]
    tails = sum(len(prompt) - 2000 + 5 - 1 for prompt in prompts)
    assert 2000 + tails == stepper.state.counters.computed_tokens
    assert 31 * 2000 == stepper.state.counters.found_tokens
    pages = {page for context in stepper.state.contexts for page in context.pages}
    assert len(pages) <= 125 + sum(-(-(7 + n + 4) // 16) for n in range(32))


def test_32_forks_cost_one_context_and_their_tails() -> None:
    """Forked before anything was computed, they compute the common tokens once."""
    stepper = Stepper(num_pages=600, page_size=16)
    state = stepper.state
    common = random_tokens(320)
    parent = stepper.context(common)
    forks = [state.fork(parent) for _ in range(32)]
    for n, fork in enumerate(forks):
        state.append(fork, [n + 1])
    requests = [state.generate(fork, limited(4)) for fork in forks]
    stepper.run()

    assert 320 + 32 * (1 + 3) == state.counters.computed_tokens
    assert 600 - 20 - 32 == state.contexts.pool.num_free
    assert [stepper.expected([*common, n + 1], 4) for n in range(32)] == [
        stepper.drain(request) for request in requests
    ]


def test_followers_go_on_when_their_leader_is_cancelled() -> None:
    """The first of them takes over where it stopped; the common tokens are computed once."""
    stepper = Stepper(num_pages=300, config=SchedulerConfig(max_batch_tokens=64))
    prompt = random_tokens(320)
    leader, *others = [stepper.start(prompt, 2, f"program-{n}") for n in range(3)]
    stepper.step()
    stepper.step()
    assert [leader] == list(stepper.state.running)
    stepper.state.drop_request(leader)
    stepper.run()

    assert [stepper.expected(prompt, 2)] * 2 == [stepper.drain(request) for request in others]
    assert 320 + 4 + 2 == stepper.state.counters.computed_tokens


def test_a_leader_that_gets_no_place_leads_no_longer() -> None:
    """A follower never waits for one that a batch left out: it computes for itself at once."""
    stepper = Stepper(
        num_pages=1200, config=SchedulerConfig(max_batch_tokens=64, share_prefixes=True)
    )
    state = stepper.state
    common = random_tokens(640)
    state.owners.add("busy", "ann", root="ann")
    for n in range(3):
        stepper.start(random_tokens(640, seed=n + 1), 1, "busy")
    leader = stepper.start(common, 1, "busy")
    stepper.step()
    assert leader in state.running  # and behind three prompts of its own family
    state.owners.add("idle", "zoe")
    request = stepper.start(common, 1, "idle")
    num_steps = 0
    while not state.ready(request):
        stepper.step()
        num_steps += 1

    assert num_steps == 2 * 10 - 1  # two families take turns
    assert not state.ready(leader)


def test_short_common_beginnings_are_not_waited_for(stepper: Stepper) -> None:
    """Two programs that share less than a step's worth of tokens are in the same batch."""
    requests = [stepper.start(PROMPT, 2, owner) for owner in ("one", "two")]
    batch = stepper.step()

    assert batch is not None
    assert requests == list(stepper.state.running)
    assert [10, 10] == [len(row.tokens) for row in batch.rows]


def test_waiting_ends_where_prompts_part() -> None:
    """A follower starts as soon as the leader has passed what they have in common."""
    stepper = Stepper(
        num_pages=300,
        config=SchedulerConfig(max_batch_tokens=20),
        follow=FollowTheFirst(min_tokens=4),
    )
    common = random_tokens(22)
    leader = stepper.start(common + random_tokens(400, seed=1), 1)
    follower = stepper.start([*common, 7], 1)
    running = []
    for _ in range(3):
        stepper.step()
        running.append(follower in stepper.state.running or stepper.state.ready(follower))

    # Whole pages in common end at 20, which one batch computes.
    assert [False, True, True] == running
    stepper.run()
    assert stepper.expected([*common, 7], 1) == stepper.drain(follower)
    assert stepper.state.ready(leader)


def test_equal_prompts_are_not_waited_for_to_their_last_page() -> None:
    """The page with the last token is computed by each, so both are in the leader's last batch."""
    stepper = Stepper(page_size=16, config=SchedulerConfig(max_batch_tokens=112))
    for owner in ("one", "two"):
        stepper.start(random_tokens(128), 1, owner)
    batches = [stepper.step(), stepper.step()]

    assert [[112], [16, 16]] == [
        [len(row.tokens) for row in batch.rows] for batch in batches if batch is not None
    ]
