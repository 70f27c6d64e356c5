"""How much of the host's memory may be taken, and how many pages of KV a device has room for."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from pie_backend.base import BackendError

_CONTEXTS = 64

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_MMAP_THRESHOLD_BYTES = 32 << 20
_KEPT_BYTES = 1 << 30


def keep_freed_memory() -> None:
    """Asks glibc to reuse what intermediate results free instead of giving it back to the kernel.

    Page faults of buffers that are returned and taken again cost a fifth of prefill. Other C
    libraries have no such switch, and need none that is known.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def choose_num_pages(room_bytes: int, page_bytes: int, page_size: int, max_context: int) -> int:
    """As many as there is room for, at most enough for 64 full contexts.

    Raises:
        BackendError: not even one full page fits.
    """
    wanted = _CONTEXTS * -(-max_context // page_size)
    num_pages = min(wanted, room_bytes // page_bytes)
    if num_pages < 1:
        raise BackendError(
            f"no memory for KV pages: there is room for {room_bytes} bytes and one page takes "
            f"{page_bytes}; free some, or set backend.kv_pages"
        )
    return num_pages


def check_fits(what: str, num_pages: int, page_bytes: int, free_bytes: int) -> None:
    """`what`: which settings, and how many they say.

    Raises BackendError, since the kernel would grant the memory now and kill us later."""
    wanted = num_pages * page_bytes
    if wanted > free_bytes:
        raise BackendError(
            f"{what} pages of {page_bytes} bytes take {wanted} bytes, but "
            f"{free_bytes} are free; at most {max(0, free_bytes) // page_bytes} pages fit"
        )


def available_bytes() -> int:
    """What this process may still take: the machine's free memory, cut by its control groups."""
    return min([_machine_bytes(), *_cgroup_bytes()])


def _machine_bytes() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        values = dict(line.split(":", 1) for line in lines)
        return int(values["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        # Not Linux: half of the installed memory is the best guess the standard library allows.
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _cgroup_bytes() -> list[int]:
    """Room left in each version 2 control group above this process that has a limit."""
    try:
        line = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()[-1]
    except (OSError, IndexError):
        return []
    root = Path("/sys/fs/cgroup")
    group = root / line.rpartition(":")[2].lstrip("/")
    rooms = [_group_room(path) for path in (group, *group.parents) if path.is_relative_to(root)]
    return [room for room in rooms if room is not None]


def _group_room(group: Path) -> int | None:
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        stat = dict(s.split() for s in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return max(0, limit - used + int(stat.get("inactive_file", 0)))
