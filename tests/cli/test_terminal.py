"""Text of guests on a terminal, and output for programs."""

from __future__ import annotations

import io
import json
import sys

import pytest

from pie_daemon.cli.terminal import clean, print_json, print_table, progress, write


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]52;c;Y29weQ==\x1b\\x", "x"),
        ("\x1bPq...\x1b\\x", "x"),
        ("\x1b]0;never ended", ""),
        ("\x1bcreset", "reset"),
        ("a\rb\x08c\x7fd\x9b31me", "abcd31me"),
        ("line\r\n", "line\n"),
        ("cut \x1b", "cut "),
        ("\u202egnp.exe", "gnp.exe"),
        ("日本 é 🎉", "日本 é 🎉"),
    ],
)
def test_control_sequences_are_removed(text: str, shown: str) -> None:
    """Nothing that a terminal would obey is left; letters of any script are."""
    assert shown == clean(text)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_only_terminals_are_protected() -> None:
    """A pipe or a file gets what the program wrote, a terminal what it may see."""
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        write("\x1b[1mx\ud800", stream)

    assert "x" == terminal.getvalue()
    assert "\x1b[1mx?" == pipe.getvalue()


def test_json_on_a_pipe_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Programs read a document a line."""
    print_json({"a": [1, "é"]})

    assert '{"a": [1, "é"]}\n' == capsys.readouterr().out


def test_table_on_a_pipe_is_tab_separated(capsys: pytest.CaptureFixture[str]) -> None:
    """Cells hold no tabs and no line breaks, so that `cut` and `awk` can rely on them."""
    print_table(["A", "B"], [["1", "two\nlines\tand a tab"]])

    assert "A\tB\n1\ttwo lines and a tab\n" == capsys.readouterr().out


def test_table_on_a_terminal_is_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    """People get columns, and brackets are no markup."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    print_table(["NAME", "B"], [["x", "[bold]"]])
    print_json({"a": 1})

    head, row, document = terminal.getvalue().split("\n", 2)
    assert "NAME  B" == clean(head).rstrip()
    assert "x     [bold]" == row
    assert {"a": 1} == json.loads(document)


def test_progress_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Logs of scripts hold no spinner."""
    with progress() as shown:
        shown.say("working")
        shown.clear()

    assert "" == capsys.readouterr().err
