"""The command `bakery`: exit codes, output, errors on stderr."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pie_bakery.cli import main
from support.components import HEADER, RUN, exports

Write = Callable[[dict[str, str]], Path]
Bakery = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bakery(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Bakery:
    """Runs the command in an empty folder; exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bakery", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        assert isinstance(caught.value.code, int)
        return caught.value.code, *capsys.readouterr()

    return run


def test_create_says_what_comes_next(bakery: Bakery) -> None:
    """The files, and the command that builds them."""
    code, out, _ = bakery("create", "my-bot")
    assert 0 == code
    assert out.endswith("next: bakery build my-bot\n")


@pytest.mark.parametrize(
    "arguments",
    [("nonsense",), ("create",), ("create", "Bad Name"), ("build", "nowhere"), ("check", "nofile")],
)
def test_usage_mistakes_exit_64(bakery: Bakery, arguments: tuple[str, ...]) -> None:
    """Told on stderr, nothing on stdout."""
    code, out, err = bakery(*arguments)
    assert (64, "") == (code, out)
    assert err


def test_a_mistake_of_the_author_exits_1_at_file_and_line(bakery: Bakery, write: Write) -> None:
    """As an editor or terminal can follow it, and without a traceback."""
    write({"main.py": "def run(input:\n"})
    code, _, err = bakery("build", "bot")
    assert (1, "bakery: bot/main.py:1: SyntaxError: '(' was never closed\n") == (code, err)


def test_a_bad_manifest_names_file_line_and_key(bakery: Bakery, write: Write) -> None:
    """Before anything is built."""
    write({"pie.toml": '[inferlet]\nname = "bot"\n\n[grants]\nmemory = 5\n'})
    code, _, err = bakery("build", "bot")
    wanted = "bakery: bot/pie.toml:5: unknown key `memory` in [grants]; did you mean `memory_mb`?\n"
    assert (1, wanted) == (code, err)


@pytest.mark.parametrize("manifest", ["", "[grants]\ncpu_s = 1\n"])
def test_a_build_needs_a_name(bakery: Bakery, write: Write, manifest: str) -> None:
    """The line to write is given."""
    write({"pie.toml": manifest})
    assert 'name = "bot"' in bakery("build", "bot")[2]


def test_a_missing_tool_exits_69_with_the_command_that_installs_it(
    bakery: Bakery, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else has to be looked up."""
    write({"main.py": "def run(input): ..."})
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "componentize_py" else found(name)
    )
    code, _, err = bakery("build", "bot")
    assert 69 == code
    assert "pip install componentize-py" in err


def test_check_reports_as_text_and_as_json(bakery: Bakery, tmp_path: Path) -> None:
    """The same findings for people and for programs; 1 when there is a problem."""
    (tmp_path / "a.wasm").write_bytes(HEADER + exports(RUN))
    (tmp_path / "b.wasm").write_bytes(HEADER)
    assert (0, True) == (bakery("check", "a.wasm")[0], "ok" in bakery("check", "a.wasm")[1])
    code, out, _ = bakery("check", "b.wasm", "--json")
    report = json.loads(out)
    assert (1, False, "b.wasm") == (code, report["ok"], report["path"])
    assert ["it does not export `run`, the function that Pie calls"] == report["problems"]
