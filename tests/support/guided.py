"""Constrained generations on a real engine, without programs around them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pie_backend.batch import BackendConfig, BackendInfo
from pie_backend.create import create_backend
from pie_backend.tokenizer import Tokenizer
from pie_daemon.grammar.compiler import GrammarCompiler
from pie_daemon.grammar.guidance import GuidanceMatcher
from pie_daemon.grammar.source import Source
from pie_daemon.runtime.config import LimitsConfig
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.request import Chunk, Finish
from pie_daemon.scheduler.service import Scheduler


@dataclass(frozen=True)
class Written:
    """One generation from beginning to end."""

    tokens: list[int]
    text: str
    finish: Finish | None
    chunks: list[Chunk] = field(default_factory=list)


def compiled(compiler: GrammarCompiler, source: Source, timeout_s: float = 60) -> GuidanceMatcher:
    """Waits for it. Raises: PieError."""
    done = threading.Event()
    ticket = compiler.compile(source, done.set)
    try:
        assert done.wait(timeout_s)
        return ticket.matcher()
    finally:
        ticket.close()


class Guided:
    """`path` is a model directory, or `crumb`."""

    def __init__(self, path: Path | str = "crumb", **config: Any) -> None:
        chosen = {"placement": "inline", "num_threads": 1, "kv_pages": 1024, **config}
        self.backend = create_backend(BackendConfig(name="model", path=str(path), **chosen))
        self.path = path
        self.tokenizer = Tokenizer(path)
        self.scheduler = Scheduler(self.backend, self.tokenizer.token_bytes)
        self.scheduler.start()
        self.limits = LimitsConfig()
        self.compiler = GrammarCompiler(self.tokenizer, self.info, lambda: self.limits)

    @property
    def info(self) -> BackendInfo:
        return self.backend.info

    def matcher(self, source: Source) -> GuidanceMatcher:
        return compiled(self.compiler, source)

    def write(self, asked: Sequence[tuple[list[int], GenerateParams]]) -> list[Written]:
        """All of them at once, in the same batches."""
        wake = threading.Event()
        running = []
        for prompt, params in asked:
            context = self.scheduler.create_context("test")
            self.scheduler.append(context, prompt)
            running.append(self.scheduler.generate(context, params, wake.set))
        written = [self._finished(request, wake) for request in running]
        self.scheduler.drop_owner("test")
        self.scheduler.check()
        return written

    def _finished(self, request: int, wake: threading.Event) -> Written:
        chunks: list[Chunk] = []
        while self.scheduler.finish(request) is None:
            while not self.scheduler.ready(request):
                assert wake.wait(60)
                wake.clear()
            if (chunk := self.scheduler.take(request)) is not None:
                chunks.append(chunk)
        tokens = [token for chunk in chunks for token in chunk.tokens]
        text = "".join(chunk.text for chunk in chunks)
        return Written(tokens, text, self.scheduler.finish(request), chunks)

    def prompt(self, text: str) -> list[int]:
        return self.tokenizer.apply_chat_template([{"role": "user", "content": text}])

    def close(self) -> None:
        self.scheduler.check()
        self.scheduler.stop()
        self.compiler.close()
        self.backend.close()
