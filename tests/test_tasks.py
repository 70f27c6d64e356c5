"""Tasks are named, owned, and loud when they fail."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import structlog

from pie_daemon.tasks import Tasks

ROOT = Path(__file__).parents[1] / "pie_daemon"


async def test_a_failure_is_logged_at_once() -> None:
    """Nobody has to await a task for its failure to be seen, with name and traceback."""

    async def fail() -> None:
        raise ValueError("broken")

    seen: list[BaseException] = []
    tasks = Tasks("owner", on_failure=seen.append)
    with structlog.testing.capture_logs() as logs:
        await tasks.spawn(fail(), "work")
    assert [(entry["task"], entry["exc_info"]) for entry in logs] == [("owner.work", True)]
    assert [str(error) for error in seen] == ["broken"]
    assert len(tasks) == 0


async def test_close_ends_everything() -> None:
    """Close cancels running tasks, and those that have not begun, and waits for their end."""
    ended: list[str] = []

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("running")

    async def never_begun() -> None:
        ended.append("begun")

    tasks = Tasks("owner")
    tasks.spawn(stubborn(), "stubborn")
    await asyncio.sleep(0)
    tasks.spawn(never_begun(), "never")
    await tasks.close()
    assert ended == ["running"]
    assert len(tasks) == 0
    await tasks.close()


async def test_a_task_may_close_its_owner() -> None:
    """Close called from one of the tasks ends the others and returns."""
    tasks = Tasks("owner")
    closed = asyncio.Event()

    async def close() -> None:
        await tasks.close()
        closed.set()

    tasks.spawn(asyncio.Event().wait(), "other")  # type: ignore[arg-type]
    tasks.spawn(close(), "closer")
    async with asyncio.timeout(10):
        await closed.wait()


def test_tasks_are_made_in_one_place() -> None:
    """No other module of the daemon starts a task."""
    pattern = re.compile(r"\b(create_task|ensure_future)\(")
    found = [path.name for path in ROOT.rglob("*.py") if pattern.search(path.read_text())]
    assert found == ["tasks.py"]
