"""The same work as inferlets: N `text-completion` programs through a real daemon."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from benchmarks.model import as_text, prompts
from benchmarks.throughput import NUM_NEW_TOKENS, NUM_PROMPT_TOKENS, WIDTHS
from support.daemon import DaemonProcess

_PAGES = max(WIDTHS) * (NUM_PROMPT_TOKENS + NUM_NEW_TOKENS) // 16 + 64


class Programs:
    """Each program gets its whole completion at the end (`stream: false`), or token by token."""

    def __init__(self, directory: Path, stream: bool) -> None:
        self._stream = stream
        self._daemon = DaemonProcess(f"model.path={directory}", f"backend.kv_pages={_PAGES}")
        self._daemon.start()
        self._daemon.install("text-completion")
        self._client = self._daemon.connect()
        self._seed = 0

    def tokens_per_s(self, width: int) -> float:
        # New prompts every time: nothing may be found in the KV cache.
        self._seed += 1
        made_up = prompts(width, NUM_PROMPT_TOKENS, self._seed)
        inputs = [self._input(tokens) for tokens in made_up]
        begun = time.perf_counter()
        running = [self._client.launch("text-completion", one) for one in inputs]
        made = sum(len(process.result()["tokens"]) for process in running)
        wall_s = time.perf_counter() - begun
        assert made == width * NUM_NEW_TOKENS
        return made / wall_s

    def _input(self, tokens: list[int]) -> dict[str, Any]:
        return {
            "prompt": as_text(tokens),
            "max_tokens": NUM_NEW_TOKENS,
            "temperature": 0,
            "ignore_eos": True,
            "stream": self._stream,
        }

    def close(self) -> None:
        self._client.close()
        self._daemon.stop()
        self._daemon.remove()
