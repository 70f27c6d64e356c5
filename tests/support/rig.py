"""A runtime with real programs over the dummy backend, without sockets or folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pie_backend.base import Backend
from pie_backend.batch import BackendConfig
from pie_backend.dummy import DummyBackend, Vocabulary, expected_tokens
from pie_daemon.grammar.compiler import GrammarCompiler
from pie_daemon.host.adapters import AdapterFolder
from pie_daemon.host.context import Model, Models
from pie_daemon.host.topics import Topics
from pie_daemon.runtime.config import LimitsConfig, RuntimeConfig
from pie_daemon.runtime.events import Event
from pie_daemon.runtime.execution import Shared
from pie_daemon.runtime.instance import Instance
from pie_daemon.runtime.outcome import Budgets, Outcome
from pie_daemon.runtime.outside.config import McpConfig
from pie_daemon.runtime.outside.loop import Loop
from pie_daemon.runtime.outside.tools import Tools
from pie_daemon.runtime.outside.web import Web
from pie_daemon.runtime.programs import SYSTEM, ProgramStore
from pie_daemon.runtime.sandbox import Sandbox
from pie_daemon.runtime.saved import SavedContexts
from pie_daemon.runtime.storage import Storage
from pie_daemon.runtime.supervisor import Supervisor
from pie_daemon.scheduler.service import Scheduler
from support import guests
from support.programs import built
from support.waiting import until


class Letters:
    """A tokenizer without a model: a byte is a token."""

    vocabulary = Vocabulary()

    def encode(self, text: str, add_special: bool) -> list[int]:
        return list(text.encode())

    def decode(self, tokens: list[int], skip_special: bool) -> str:
        return b"".join(map(self.token_bytes, tokens)).decode()

    def token_bytes(self, token: int) -> bytes:
        return bytes([ord("a") + token % 26])

    def is_special(self, token: int) -> bool:
        return False

    def apply_chat_template(
        self, messages: list[dict[str, Any]], tools: object, add_generation_prompt: bool
    ) -> list[int]:
        return self.encode("\n".join(str(one["content"]) for one in messages), False)


class Spelling(Letters):
    """Greedy generations after a prompt spell a text, one byte of it with every token."""

    vocabulary = Vocabulary(size=1 << 20)  # wide enough that no token comes twice

    def __init__(self, text: str, prompt: str) -> None:
        data = text.encode()
        tokens = expected_tokens(list(prompt.encode()), len(data), vocabulary=self.vocabulary)
        assert len(set(tokens)) == len(tokens)
        self._bytes = {token: bytes([byte]) for token, byte in zip(tokens, data, strict=True)}

    def token_bytes(self, token: int) -> bytes:
        return self._bytes[token]


class Rig:
    """`supervisor` and `store` are the real ones; compiled code is shared by all tests. What a test
    puts into the folder `adapters`, programs may open. Another `backend` is the caller's to close.
    """

    def __init__(
        self,
        root: Path,
        *,
        num_pages: int = 512,
        limits: LimitsConfig | None = None,
        mcp: McpConfig | None = None,
        letters: Letters | None = None,
        backend: Backend | None = None,
    ) -> None:
        self.limits = limits or LimitsConfig()
        tokenizer: Any = letters or Letters()
        self.vocabulary = tokenizer.vocabulary
        backend = backend or DummyBackend(
            BackendConfig(name="dummy", kind="dummy", path="", kv_pages=num_pages), self.vocabulary
        )
        self.scheduler = Scheduler(backend, tokenizer.token_bytes)
        self.scheduler.start()
        self.topics = Topics(lambda: self.limits)
        self.storage = Storage(root / "storage.sqlite3", lambda: self.limits)
        self.mcp = mcp or McpConfig()
        self.outside = Loop()
        self.tools = Tools(self.outside, lambda: self.mcp, lambda: self.limits)
        web = Web(self.outside, lambda: self.limits)
        self.adapters = root / "adapters"
        grammars = GrammarCompiler(tokenizer, backend.info, lambda: self.limits)
        adapters = AdapterFolder(self.adapters)
        model = Model("dummy", tokenizer, self.scheduler, grammars, adapters)
        self.models = Models({"dummy": model}, "dummy")
        sandbox = Sandbox(guests.CACHE / "compiled", 300)
        self.store = ProgramStore(root / "programs", sandbox, 100 << 20)
        runtime = RuntimeConfig()
        self.saved = SavedContexts(root / "contexts", lambda: self.limits)
        shared = Shared(self.models, self.topics, self.storage, web, self.tools, self.saved)
        self.supervisor = Supervisor(self.store, sandbox, shared, runtime, lambda: self.limits)

    def install(self, name: str) -> None:
        self.store.install(built(name), SYSTEM)

    def launch(self, program: str, budgets: Budgets | None = None, /, **fields: Any) -> Instance:
        return self.supervisor.launch(program, json.dumps(fields), "somebody", budgets)

    def outcome(self, instance: Instance) -> Outcome:
        """Waits for the end and acknowledges everything on the way, as a client does."""
        until(lambda: self._drained(instance))
        outcome = instance.info().outcome
        assert outcome is not None
        return outcome

    def _drained(self, instance: Instance) -> bool:
        done = instance.done
        if not done:
            instance.events.ack(instance.events.last_seq)
        return done

    def run(self, program: str, budgets: Budgets | None = None, /, **fields: Any) -> Any:
        """The parsed result of a program that has to end well."""
        outcome = self.outcome(self.launch(program, budgets, **fields))
        assert outcome.result is not None, outcome
        return json.loads(outcome.result)

    def check_empty(self) -> None:
        """The page accounting is clean and nothing is left, once the batch in flight has landed and
        the children of what has ended are gone."""
        until(lambda: self.scheduler.stats().free_pages == self.scheduler.info.num_pages)
        until(lambda: self.scheduler.stats().owners == 0)
        self.scheduler.check()
        stats = self.scheduler.stats()
        assert (0, 0) == (stats.contexts, stats.owners), stats

    def close(self) -> None:
        """Ends everything; whatever ran, nothing may be left."""
        self.supervisor.close(0)
        self.tools.close()
        self.outside.close()
        self.storage.close()
        self.check_empty()
        self.scheduler.stop()


def saw(instance: Instance, text: str) -> Callable[[], bool]:
    """A condition: the program has sent this message."""
    return lambda: any(
        event.kind == "message" and event.data == text.encode() for event in events(instance)
    )


def events(instance: Instance) -> list[Event]:
    return instance.events.read(0, 1 << 30)
