"""The commands against a listener: what is printed, and the exit code."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from pie_daemon.cli import completion
from pie_daemon.cli.run import _is_unseen
from support.command import Command
from support.listening import Listening


@pytest.mark.parametrize(
    "arguments",
    [
        ["ps"],
        ["status"],
        ["inferlets"],
        ["stop", "x"],
        ["logs", "x"],
        ["attach", "x"],
        ["run", "a", "--daemon"],
    ],
)
def test_commands_that_need_a_daemon_say_so(pie: Command, arguments: list[str]) -> None:
    """69, and the way out, when no daemon answers."""
    answer = pie(*arguments)

    assert 69 == answer.code
    assert "start one with `pie serve`" in answer.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["ps", "--nonsense"],
        ["stop"],
        ["run", "x", "--", "word"],
        ["run", "x", "--input", "{"],
        ["run", "./no-such.wasm"],
    ],
)
def test_mistakes_in_the_command_line(pie: Command, arguments: list[str]) -> None:
    """64, and what was expected."""
    answer = pie(*arguments)

    assert 64 == answer.code
    assert answer.err


def test_mistakes_in_the_configuration(pie: Command, folders: Path) -> None:
    """78 for every command that reads it, with all mistakes on stderr."""
    for command in (["serve"], ["config", "show"]):
        answer = pie(*command, "backend.nonsense=1", "scheduler.max_batch_tokens=abc")

        assert 78 == answer.code
        assert "backend.nonsense" in answer.err
        assert "expected an integer" in answer.err
        assert "command line" in answer.err


def test_run_streams_and_prints_no_text_twice(pie: Command, server: Listening) -> None:
    """Deltas are the answer; remarks go to stderr; the numbers of the usage event are no text."""
    answer = pie("run", "story")

    assert 0 == answer.code
    assert "printed\x1b[31m\nOnce upon\n" == answer.out
    assert "warned\n[info] noted\n" == answer.err


def test_run_prints_the_result_of_a_silent_program(pie: Command, server: Listening) -> None:
    """A result that was not streamed is printed, JSON as such; messages are lines."""
    answer = pie("run", "echo", "--", "--max-tokens", "5")

    assert 0 == answer.code
    assert '{"max_tokens": 5}\n{\n  "max_tokens": 5\n}\n' == answer.out


def test_run_as_json_is_one_document(pie: Command, server: Listening) -> None:
    """Scripts get the outcome with the parsed result, and nothing else."""
    answer = pie("run", "story", "--json")
    document = json.loads(answer.out)

    assert ("ok", [1, 2]) == (document["status"], document["result"]["tokens"])
    assert {"instance", "program", "digest", "usage", "code", "message"} <= set(document)
    assert "" == answer.err


def test_failed_program_is_exit_1(pie: Command, server: Listening) -> None:
    """The reason is on stderr, or in the document."""
    plain, as_json = pie("run", "fail"), pie("run", "fail", "--json")

    assert (1, 1) == (plain.code, as_json.code)
    assert "program error (invalid-argument): no prompt" in plain.err
    assert "no prompt" == json.loads(as_json.out)["message"]


def test_unknown_program_is_exit_1(pie: Command, server: Listening) -> None:
    """A refusal of the daemon is passed on in its words."""
    answer = pie("run", "missing")

    assert (1, "pie: no program missing\n") == (answer.code, answer.err)


def test_bug_of_the_daemon_is_exit_70(pie: Command, server: Listening) -> None:
    """What is nobody's mistake has a code of its own."""
    assert 70 == pie("run", "bug").code


def test_path_is_uploaded_and_run_by_content(
    pie: Command, server: Listening, tmp_path: Path
) -> None:
    """A file is installed for this user first; a bad one is refused with the reason."""
    (tmp_path / "mine.wasm").write_bytes(b"good")
    (tmp_path / "broken.wasm").write_bytes(b"bad")

    assert 0 == pie("run", str(tmp_path / "mine.wasm"), "--json").code
    assert ["mine"] == [name for _, name in server.programs.installed]
    refused = pie("run", str(tmp_path / "broken.wasm"))
    assert 1 == refused.code
    assert "not a component" in refused.err


def test_settings_do_not_reach_a_running_daemon(pie: Command, server: Listening) -> None:
    """`--set` would silently do nothing there."""
    assert 64 == pie("run", "echo", "--set", "backend=dummy").code


def test_ps_and_stop(pie: Command, server: Listening) -> None:
    """`stop` takes the start of an id, and returns when the program has ended."""
    instance = server.supervisor.launch("wait", "{}", "root", None)
    assert "running" == json.loads(pie("ps", "--json").out)[0]["state"]

    answer = pie("stop", instance.id[:1], "--reason", "enough")

    assert (0, f"{instance.id}\n") == (answer.code, answer.out)
    assert "enough" == instance.stop_reason
    assert "cancelled" in pie("ps").out


def test_stop_of_unknown_and_ambiguous_ids(pie: Command, server: Listening) -> None:
    """Nothing is stopped unless it is clear what was meant."""
    for _ in range(2):
        server.supervisor.launch("wait", "{}", "root", None)

    assert "`pie ps` lists them" in pie("stop", "zzz").err
    assert "start of several ids: i1 i2" in pie("stop", "i1", "i").err
    assert not any(i.stopped.is_set() for i in server.supervisor.all.values())


def test_logs_show_everything_from_the_start(pie: Command, server: Listening) -> None:
    """A finished program's output is there until it expires."""
    instance = server.supervisor.launch("story", "{}", "root", None)
    instance.join()

    answer = pie("logs", instance.id)

    assert "printed\x1b[31m\nOnce upon\n" == answer.out


def test_attach_sends_lines_as_messages(
    pie: Command, server: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each line of standard input is one message, and its end is the end of the input."""
    instance = server.supervisor.launch("conversation", "{}", "root", None)
    reader, writer = os.pipe()
    os.write(writer, b"hello\nlast line without end")
    os.close(writer)
    with os.fdopen(reader) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        answer = pie("attach", instance.id)

    assert 0 == answer.code
    assert ["hello", "last line without end"] == json.loads(answer.out)


def test_attach_takes_a_file(
    pie: Command, server: Listening, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Redirected input works although the selector refuses regular files."""
    instance = server.supervisor.launch("conversation", "{}", "root", None)
    (tmp_path / "lines").write_text("a\nb\n")
    with (tmp_path / "lines").open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        answer = pie("attach", instance.id)

    assert ["a", "b"] == json.loads(answer.out)


def test_inferlets_are_listed(pie: Command, server: Listening, tmp_path: Path) -> None:
    """Name, state and size, for people and for programs."""
    (tmp_path / "mine.wasm").write_bytes(b"good")
    pie("run", str(tmp_path / "mine.wasm"))

    assert "mine\t" in pie("inferlets").out
    assert "ready" == json.loads(pie("inferlets", "--json").out)[0]["state"]


def test_config_show_names_the_source(pie: Command, folders: Path) -> None:
    """Every key with value, default, source and class; JSON has the same."""
    (folders / "config").mkdir()
    (folders / "config" / "config.yaml").write_text("limits:\n  instances: 5\n")

    plain = pie("config", "show", "logging.level=debug")
    document = json.loads(pie("config", "show", "--json").out)

    assert "logging.level\tdebug\tinfo\tcli\tlive" in plain.out
    keys = {row["key"]: row for row in document["keys"]}
    assert f"{folders}/config/config.yaml:2" == keys["limits.instances"]["source"]
    assert (5, 2048, "live") == tuple(
        keys["limits.instances"][name] for name in ("value", "default", "class")
    )


def test_version_needs_no_daemon(pie: Command) -> None:
    """Versions of Pie and of what it stands on, also as JSON."""
    assert "49.0.0" == json.loads(pie("version", "--json").out)["wasmtime"]
    assert pie("version").out.startswith("pie 0")


def test_broken_pipe_is_no_failure(pie: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """`pie ... | head` ends quietly."""

    def closed(*_: object, **__: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("pie_daemon.cli.versions.print_json", closed)
    monkeypatch.setattr("pie_daemon.cli.exits.discard_output", lambda: None)
    answer = pie("version", "--json")

    assert (0, "") == (answer.code, answer.err)


def test_missing_model_is_exit_69(pie: Command, tmp_path: Path) -> None:
    """A run that has to boot a daemon, and cannot, says what is missing."""
    (tmp_path / "a.wasm").write_bytes(b"good")
    answer = pie("run", str(tmp_path / "a.wasm"), "--set", f"model.path={tmp_path}/none")

    assert 69 == answer.code
    assert f"{tmp_path}/none" in answer.err


def test_interrupt_is_exit_130(pie: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is no failure of the program and no bug."""

    def interrupt(**_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("pie_daemon.cli.versions.show_versions", interrupt)

    assert (130, "pie: interrupted\n") == (pie("version").code, pie("version").err)


def test_bug_of_the_command_is_exit_70(pie: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line for people; the traceback on request."""
    monkeypatch.setattr("pie_daemon.cli.versions.show_versions", lambda **_: 1 / 0)
    answer = pie("version")

    assert 70 == answer.code
    assert "ZeroDivisionError" in answer.err
    monkeypatch.setenv("PIE_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        pie("version")


def test_completion_offers_what_there_is(server: Listening) -> None:
    """Ids, names and keys that start with what was typed."""
    instance = server.supervisor.launch("wait", "{}", "root", None)
    server.programs.installed["system", "agent"] = b"good"

    assert [instance.id] == completion.instances("i")
    assert ["agent"] == completion.programs("a")
    assert [] == completion.programs("z")
    assert "scheduler.page_size=" in completion.keys("scheduler.p")


def test_completion_is_silent_without_a_daemon() -> None:
    """The shell's line is no place for errors."""
    assert [] == completion.instances("")


def test_program_that_the_daemon_has_not_seen_yet(tmp_path: Path) -> None:
    """`cp` and `run` in one line: the file is there, the daemon will take it in a moment."""
    (tmp_path / "agent.wasm").write_bytes(b"x")
    (tmp_path / "outside.wasm").symlink_to("/dev/null")

    assert _is_unseen("agent", str(tmp_path))
    assert not _is_unseen("outside", str(tmp_path))
    assert not _is_unseen("other", str(tmp_path))
    assert not _is_unseen("agent", None)
    assert not _is_unseen("../agent", str(tmp_path))


def test_standard_input_as_input(
    pie: Command, server: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--input -` reads the JSON from a pipe."""
    monkeypatch.setattr("sys.stdin", io.StringIO('{"from": "pipe"}'))

    assert {"from": "pipe"} == json.loads(pie("run", "echo", "-i", "-", "--json").out)["result"]
