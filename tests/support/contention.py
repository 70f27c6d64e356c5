"""Programs that want more pages than there are, and the loads that they make together."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from pie_backend.batch import Adjustment, Sampling
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.request import CANCELLED
from support.stepping import Stepper

Program = Generator[int | None, list[int], list[int]]
"""Yields the request that it waits for and gets its tokens, or None to pause for a step; returns
all tokens that it made."""

MAX_STEPS = 20_000
"""Nothing here takes a tenth of it."""


@dataclass(frozen=True)
class Launch:
    make: Callable[[Stepper, str], Program]
    """With the name of its owner."""
    at_step: int = 0
    user: str = ""


def talk(turns: list[list[int]], num_tokens: int, sampling: Sampling | None = None) -> Launch:
    """One context over several turns, idle in between."""

    def program(stepper: Stepper, owner: str) -> Program:
        context = stepper.context([], owner)
        made: list[int] = []
        for turn in turns:
            stepper.state.append(context, turn)
            made += yield ask(stepper, context, num_tokens, sampling)
            for _ in range(3):
                yield None
        return made

    return Launch(program)


def branch(prompt: list[int], tails: list[list[int]], num_tokens: int) -> Launch:
    """A computed context, forked for each tail; all forks at once, then the first again."""

    def program(stepper: Stepper, owner: str) -> Program:
        context = stepper.context(prompt, owner)
        flush = stepper.state.flush(context)
        if flush is not None:
            yield flush
        forks = [stepper.state.fork(context) for _ in tails]
        for fork, tail in zip(forks, tails, strict=True):
            stepper.state.append(fork, tail)
        requests = [ask(stepper, fork, num_tokens) for fork in forks]
        made: list[int] = []
        for request in requests:
            made += yield request
        made += yield ask(stepper, context, num_tokens)
        return made

    return Launch(program)


def ask(stepper: Stepper, context: int, num_tokens: int, sampling: Sampling | None = None) -> int:
    params = GenerateParams(sampling or Sampling(), max_tokens=num_tokens, ignore_eos=True)
    return stepper.state.generate(context, params)


PENALISED = Sampling(
    temperature=0.9,
    seed=7,
    adjustment=Adjustment(repetition_penalty=1.2, frequency_penalty=0.3),
)


def prompt_of(number: int, num_tokens: int) -> list[int]:
    """Different from the first token on, for up to 250 numbers."""
    return [1 + (number + i * (number + 3)) % 250 for i in range(num_tokens)]


def run(stepper: Stepper, launches: list[Launch]) -> list[list[int]]:
    """What each program made. Owners are dropped as their programs end."""
    load = _Load(stepper)
    last_launch = max(launch.at_step for launch in launches)
    for step in range(MAX_STEPS):
        for number, launch in enumerate(launches):
            if launch.at_step == step:
                load.start(number, launch)
        moved = load.advance()
        if len(load.made) == len(launches):
            return [load.made[number] for number in range(len(launches))]
        assert stepper.step() is not None or moved or step < last_launch, "stuck"
    raise AssertionError(f"not done after {MAX_STEPS} steps")


@dataclass
class _Running:
    owner: str
    program: Program
    request: int | None = None
    tokens: list[int] = field(default_factory=list)


class _Load:
    def __init__(self, stepper: Stepper) -> None:
        self.made: dict[int, list[int]] = {}
        self._stepper = stepper
        self._running: dict[int, _Running] = {}

    def start(self, number: int, launch: Launch) -> None:
        owner = f"program-{number}"
        self._stepper.state.owners.add(owner, launch.user)
        running = _Running(owner, launch.make(self._stepper, owner))
        self._running[number] = running
        running.request = next(running.program)

    def advance(self) -> bool:
        """Whether a program went on."""
        return sum(self._advance(*item) for item in list(self._running.items())) > 0

    def _advance(self, number: int, running: _Running) -> bool:
        if running.request is not None:
            running.tokens += self._stepper.drain(running.request)
            finish = self._stepper.state.finish(running.request)
            assert finish != CANCELLED
            if finish is None:
                return False
        tokens, running.tokens = running.tokens, []
        try:
            running.request = running.program.send(tokens)
        except StopIteration as stop:
            self.made[number] = stop.value
            self._stepper.state.drop_owner(running.owner)
            del self._running[number]
        return True
