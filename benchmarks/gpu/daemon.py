"""Stage `daemon`: programs on a whole daemon, forks, and more wanted than there is room for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial

from benchmarks.contenders.bare_loop import BareLoop, pages_for
from benchmarks.contenders.programs import Programs
from benchmarks.gpu.rows import Found, Task
from benchmarks.gpu.setup import Setup, config
from benchmarks.load import Load
from benchmarks.model import checkpoint, prompts
from pie_backend.create import create_backend
from support.contention import run, talk
from support.stepping import Stepper

_PROMPT_TOKENS = 64


def tasks(setup: Setup) -> list[Task]:
    n = setup.num_programs
    return [
        Task(f"{n} programs at once", partial(_programs, setup, 1.0)),
        Task(f"{n} programs, a quarter of the pages", partial(_programs, setup, 0.25)),
        Task(f"{n} conversations, a quarter of the pages", partial(_pressure, setup)),
        Task(f"a fork into {min(n, 64)}", partial(_forks, setup)),
    ]


def _load(setup: Setup, seed: int) -> Load:
    asked = prompts(setup.num_programs, _PROMPT_TOKENS, seed, shape=setup.served)
    return Load(asked, setup.new_tokens)


def _pages(setup: Setup) -> int:
    return setup.num_programs * pages_for(_PROMPT_TOKENS + setup.new_tokens + 1)


@contextmanager
def _daemon(setup: Setup, pages: int, host_pages: int = 0) -> Iterator[Programs]:
    overrides = (f"backend.device={setup.name}", f"backend.host_pages={host_pages}")
    # Compiling may come first.
    programs = Programs(checkpoint(setup.served), pages, "branches", overrides=overrides)
    with closing(programs):
        yield programs


def _programs(setup: Setup, share: float) -> Found:
    """All complete, whatever there is room for; with room for all, what they cost beside the
    engine's bare loop, the launches included."""
    wanted = _pages(setup)
    pages = int(wanted * share)
    with _daemon(setup, pages, 0 if share >= 1 else pages) as programs:
        programs.run(_load(setup, 0))
        timing = programs.run(_load(setup, 1))
        status = programs.status()
    rate = timing.tokens_per_s(_load(setup, 1))
    ((_, model),) = status.detail["models"].items()
    stats = model["scheduler"]
    values: dict[str, float | str] = {
        "tokens/s": rate,
        "gave way": float(stats["preemptions"]),
        "device": str(model["info"]["device"]),
        "kernels": str(model["info"]["kernels"]),
    }
    if share >= 1:
        values["of the bare loop"] = rate / _bare(setup, wanted)
    return Found(not stats["failure"] and not stats["integrity_error"], values)


def _bare(setup: Setup, pages: int) -> float:
    loop = BareLoop(checkpoint(setup.served), pages, device=setup.name)
    with closing(loop):
        loop.run(_load(setup, 0))
        return loop.run(_load(setup, 1)).tokens_per_s(_load(setup, 1))


def _pressure(setup: Setup) -> Found:
    """Through scheduler and engine: contexts give pages up in the middle, some of them to the
    host's memory, and go on."""
    turns = prompts(2 * setup.num_programs, 32, shape=setup.served)
    talks = [talk(turns[i :: setup.num_programs], 16) for i in range(setup.num_programs)]
    quarter = setup.num_programs * pages_for(2 * (32 + 16)) // 4
    settings = config(
        setup,
        str(checkpoint(setup.served)),
        placement="inline",
        kv_pages=quarter,
        host_pages=quarter,
    )
    with closing(create_backend(settings)) as backend:
        stepper = Stepper(backend=backend)
        made = run(stepper, talks)
    num_suspended = stepper.state.contexts.num_suspensions
    num_restored = stepper.state.contexts.host.num_restored
    complete = all(len(tokens) == 2 * 16 for tokens in made)
    values: dict[str, float | str] = {
        "suspended": float(num_suspended),
        "pages back from the host": float(num_restored),
    }
    return Found(complete and num_suspended > 0 and num_restored > 0, values)


def _forks(setup: Setup) -> Found:
    """One context, forked, and all of them decode together."""
    branches = min(setup.num_programs, 64)
    with _daemon(setup, _pages(setup)) as programs:
        asked = {"length": _PROMPT_TOKENS, "branches": branches, "new_tokens": setup.new_tokens}
        made = programs.ask("branches", **asked, seed=7)
    wanted = branches * setup.new_tokens
    values: dict[str, float | str] = {
        "tokens/s": wanted / made["decode_s"],
        "fork ms": made["fork_s"] * 1e3,
    }
    return Found(made["num_tokens"] == wanted, values)
