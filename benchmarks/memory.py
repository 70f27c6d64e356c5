"""How fast this machine reads memory: the ceiling of decoding one row."""

from __future__ import annotations

import ctypes
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

_MEMCHR = ctypes.CDLL(None).memchr
_MEMCHR.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
_MEMCHR.restype = ctypes.c_void_p


def read_s(num_bytes: int, rounds: int = 8) -> float:
    """Of so many bytes once: the best of some rounds, a thread for each core.

    C's `memchr` for a byte that does not occur: it reads with the widest loads, does next to
    nothing with what it has read, and Python's lock is free meanwhile.
    """
    num_threads = len(os.sched_getaffinity(0))
    share = num_bytes // num_threads
    buffer = np.ones(share * num_threads, dtype=np.uint8)
    starts = [buffer.ctypes.data + number * share for number in range(num_threads)]

    def read(start: int) -> None:
        assert _MEMCHR(start, 0, share) is None

    with ThreadPoolExecutor(num_threads) as pool:
        times = []
        for _ in range(rounds):
            begun = time.perf_counter()
            list(pool.map(read, starts))
            times.append(time.perf_counter() - begun)
    return min(times)
