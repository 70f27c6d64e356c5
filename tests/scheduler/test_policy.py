"""Who comes next: fairness, its bound, and admission under a short pool."""

from __future__ import annotations

from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.scheduler.fairness import fair_order
from pie_daemon.scheduler.params import GenerateParams
from support.stepping import Stepper

PROMPT = [11, 12, 13, 14, 15, 16]


def limited(max_tokens: int) -> GenerateParams:
    """Nothing but a limit."""
    return GenerateParams(max_tokens=max_tokens)


def add_owners(stepper: Stepper, owners: dict[str, tuple[str, str]]) -> None:
    """Owners by name, with their user and root."""
    for name, (user, root) in owners.items():
        stepper.state.owners.add(name, user=user, root=root)


def admitted_order(stepper: Stepper, requests: dict[int, str]) -> str:
    """The names of the requests in the order in which they join batches."""
    order: list[str] = []
    seen: set[int] = set()
    while stepper.depart() is not None:
        for request in stepper.state.running:
            if request not in seen:
                seen.add(request)
                order.append(requests[request])
        stepper.land()
    return "".join(order)


def test_users_then_families_then_first_come() -> None:
    """Turns go round users, within a user round families, within a family by arrival."""
    stepper = Stepper(config=SchedulerConfig(max_batch_rows=1))
    add_owners(
        stepper,
        {"a": ("ann", "a"), "b": ("ann", "b"), "child": ("ann", "a"), "z": ("zoe", "z")},
    )
    arrivals = [("a", "1"), ("child", "2"), ("a", "3"), ("b", "4"), ("b", "5"), ("z", "6")]
    names = {stepper.start([int(name)] * 6, 2, owner): name for owner, name in arrivals}

    assert "164253" == admitted_order(stepper, names)


def test_waiting_is_bounded_by_the_turns_of_others() -> None:
    """However much others queue, a newcomer waits for one turn of each other user at most."""
    num_users = 5
    stepper = Stepper(num_pages=256, config=SchedulerConfig(max_batch_rows=1))
    names: dict[int, str] = {}
    for user in range(num_users):
        for instance in range(3):
            owner = f"{user}.{instance}"
            stepper.state.owners.add(owner, user=str(user))
            names.update({stepper.start(PROMPT, 2, owner): str(user) for _ in range(4)})
    for _ in range(7):
        stepper.step()
    stepper.state.owners.add("late", user="late")
    names[stepper.start(PROMPT, 2, "late")] = "L"

    order = admitted_order(stepper, names)

    assert order.index("L") <= num_users + 1  # one was running when it came


def test_a_long_prompt_does_not_hold_up_another_users_short_one() -> None:
    """Chunks of prompts take turns: the short prompt is done while the long one goes on."""
    stepper = Stepper(num_pages=512, config=SchedulerConfig(max_batch_tokens=8))
    add_owners(stepper, {"long": ("ann", "long"), "short": ("zoe", "short")})
    stepper.start([1] * 800, 2, "long")
    stepper.step()
    short = stepper.start(PROMPT, 2, "short")
    num_steps = 0
    while not stepper.state.ready(short):
        stepper.step()
        num_steps += 1

    assert num_steps == 1


def test_decoding_never_starves_a_prompt() -> None:
    """With as many decoding rows as the budget allows, a prompt still gets a token each step."""
    stepper = Stepper(config=SchedulerConfig(max_batch_tokens=4))
    for _ in range(3):
        stepper.start([1], 30)
    stepper.step()
    prompt = stepper.start(PROMPT, 2)
    for _ in range(len(PROMPT)):
        stepper.step()

    assert stepper.state.ready(prompt)


def test_the_order_leaves_nobody_out() -> None:
    """Each waiting request appears exactly once."""
    stepper = Stepper(num_pages=512)
    for number in range(20):
        stepper.state.owners.add(str(number), user=str(number % 3), root=str(number % 7))
        stepper.start(PROMPT, 2, str(number))
        stepper.start(PROMPT, 2, str(number))
    waiting = stepper.state.waiting
    order = list(fair_order(waiting.values(), lambda request: request.id % 3))

    assert sorted(waiting) == sorted(request.id for request in order)


def test_short_pool_queues_and_then_completes() -> None:
    """Ten requests in a pool for two of them all get their tokens, as programs let go of theirs."""
    stepper = Stepper(num_pages=6)
    contexts = [stepper.context([n] * 6) for n in range(10)]
    requests = [stepper.state.generate(context, limited(6)) for context in contexts]  # 3 pages each
    tokens: dict[int, list[int]] = {}
    num_rows = 0
    while (batch := stepper.step()) is not None:
        num_rows = max(num_rows, len(batch.rows))
        live = stepper.state.waiting.keys() | stepper.state.running.keys()
        for number, (context, request) in enumerate(zip(contexts, requests, strict=True)):
            if number not in tokens and request not in live:
                tokens[number] = stepper.drain(request)
                stepper.state.drop_context(context)

    assert num_rows == 2
    assert {n: stepper.expected([n] * 6, 6) for n in range(10)} == tokens


def test_a_large_request_is_not_starved_by_small_ones() -> None:
    """It is next as soon as those that ran when it came have ended, whatever came after it."""
    stepper = Stepper(num_pages=8)
    small = [stepper.context([n]) for n in range(20)]
    first = stepper.state.generate(small[0], limited(4))
    stepper.step()
    large = stepper.state.generate(stepper.context(PROMPT), limited(26))  # all but one page
    rest = [stepper.state.generate(context, limited(4)) for context in small[1:]]
    while first in stepper.state.running:
        stepper.step()
    assert set(rest) <= stepper.state.waiting.keys() | stepper.state.running.keys()
    stepper.drain(first)
    stepper.state.drop_context(small[0])
    stepper.step()

    assert large in stepper.state.running


def test_idle_contexts_make_room() -> None:
    """A request that the pages of an idle context keep waiting gets them, and both go on."""
    stepper = Stepper(num_pages=8)
    idle = stepper.context([1] * 20)
    stepper.state.flush(idle)
    stepper.run()
    large = stepper.start([2] * 16, 8)  # 6 pages; 3 are free
    stepper.run()
    assert stepper.expected([2] * 16, 8) == stepper.drain(large)

    again = stepper.state.generate(idle, limited(4))
    stepper.run()

    assert stepper.expected([1] * 20, 4) == stepper.drain(again)


def test_pages_to_copy_are_reserved_too() -> None:
    """Three holders of one partial page need two copies; with one free page they take turns."""
    stepper = Stepper(num_pages=3)
    parent = stepper.context(PROMPT)
    stepper.state.flush(parent)
    stepper.run()
    contexts = [parent, stepper.state.fork(parent), stepper.state.fork(parent)]
    requests = [stepper.state.generate(context, limited(2)) for context in contexts]
    batch = stepper.step()
    assert batch is not None
    assert len(batch.rows) == 1
    stepper.run()

    assert [stepper.expected(PROMPT, 2)] * 3 == [stepper.drain(each) for each in requests]
