"""Nothing of the interface, and nothing of the guest package, is without a program that uses it."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import inferlet
from pie_daemon.host.abi import Interface
from pie_daemon.host.interfaces import INTERFACES
from pie_daemon.runtime import sandbox
from pie_daemon.runtime.config import LimitsConfig
from pie_daemon.runtime.outside.config import McpConfig, McpServer
from support import mcp_server
from support.adapter_files import write_adapter_files
from support.rig import Rig
from support.web_server import WebServer, web_server

ROOT = Path(__file__).parents[2]
PROGRAMS = ("tests/support/inferlets", "sdk/inferlets", "docs/examples")
WIT = (ROOT / "sdk/wit/inferlet.wit").read_text()


class Recorder:
    """Which functions programs called."""

    def __init__(self) -> None:
        self.called: set[tuple[str, str]] = set()

    def wrap(self, interface: Interface) -> Interface:
        functions = {
            name: self._noting((interface.name, name), function)
            for name, function in interface.functions.items()
        }
        return replace(interface, functions=functions)

    def _noting(self, name: tuple[str, str], function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.called.add(name)
            return function(*arguments)

        return call


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    wrapped = tuple(recorder.wrap(interface) for interface in sandbox._INTERFACES)
    monkeypatch.setattr(sandbox, "_INTERFACES", wrapped)
    return recorder


@pytest.fixture
def web() -> Iterator[WebServer]:
    with web_server() as web:
        yield web


@pytest.fixture
def rig(tmp_path: Path, web: WebServer, recorder: Recorder) -> Iterator[Rig]:
    """With everything that programs can reach."""
    server = McpServer(command=sys.executable, args=(str(mcp_server.PATH),))
    rig = Rig(tmp_path, mcp=McpConfig(servers={"test": server}))
    rig.limits = LimitsConfig(http_hosts=(f"127.0.0.1:{web.port}",), tools=("test",))
    write_adapter_files(rig.adapters / "a", r=1)
    programs = ("guest-sdk", "echo", "guest-outside", "guest-passes", "adapted", "text-completion")
    for name in programs:
        rig.install(name)
    yield rig
    rig.close()


@pytest.mark.slow
def test_programs_call_every_function_of_the_interface(
    rig: Rig, web: WebServer, recorder: Recorder
) -> None:
    """Real components, which check what comes back in tests of their own."""
    talkative = rig.launch("guest-sdk")
    talkative.deliver("ping")
    talkative.deliver_blob("data", b"\x00\xff")
    talkative.close_input()
    assert "ok" == rig.outcome(talkative).status
    rig.run("guest-outside", web=web.url(""))
    rig.run("guest-passes")
    rig.run("guest-passes", adapter="a")
    rig.run("text-completion", prompt="x", stream=True, max_tokens=2)
    rig.run("adapted", max_tokens=1, prompts=[[[5, 6], "a"]])

    offered = {(one.name, name) for one in INTERFACES for name in one.functions}
    assert set() == offered - recorder.called


def test_every_function_of_the_interface_is_there() -> None:
    """The host offers what the WIT declares."""
    declared = set(re.findall(r"^\s+([a-z][a-z-]*): (?:static )?func\(", WIT, re.MULTILINE))
    offered = {
        name.rpartition(".")[2].rpartition("]")[2] for one in INTERFACES for name in one.functions
    }
    assert declared == offered - {"forward-pass"}, "the constructor has no name of its own"


def names_in_programs() -> set[str]:
    """Everything that programs which tests build and run refer to."""
    found: set[str] = set()
    for folder in PROGRAMS:
        for path in (ROOT / folder).glob("*/*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Attribute(attr=name) | ast.Name(id=name) | ast.alias(name=name):
                        found.add(name)
                    case ast.keyword(arg=str(name)):
                        found.add(name)
    return found


def public_names() -> Iterator[str]:
    """Functions of the package `inferlet`, of its modules, and methods of its classes."""
    for name in inferlet.__all__:
        value = getattr(inferlet, name)
        if inspect.isfunction(value):
            yield name
        for member, thing in vars(value).items() if inspect.ismodule(value) else ():
            if inspect.isfunction(thing) and thing.__module__ == value.__name__:
                yield f"{name}.{member}"
        for member, thing in vars(value).items() if inspect.isclass(value) else ():
            if inspect.isfunction(thing) or isinstance(thing, classmethod | staticmethod):
                yield f"{name}.{member}"


def test_programs_use_every_function_of_the_package() -> None:
    """So that each one has run inside the sandbox."""
    used = names_in_programs()
    public = [name for name in public_names() if "._" not in name and ".error_" not in name]
    assert len(public) > 100
    assert [] == [name for name in public if name.rpartition(".")[2] not in used]
