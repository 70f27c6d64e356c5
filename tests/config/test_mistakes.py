"""What a person reads who has made a mistake: the key, the place, what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from pie_daemon.config import ConfigError, load


def mistakes(*arguments: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(arguments)
    return str(caught.value)


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("backend.nonsense=1", ["backend.nonsense", "no such key", "device, dtype, kernels"]),
        ("scheduler.max_batch_tokens=abc", ["'abc' is not allowed", "an integer, at least 1"]),
        ("scheduler.max_batch_tokens=0", ["0 is not allowed", "at least 1"]),
        ("scheduler.max_batch_tokns=1", ["did you mean scheduler.max_batch_tokens?"]),
        ("max_batch_tokens=1", ["did you mean scheduler.max_batch_tokens?"]),
        ("bakend=cuda", ["did you mean backend?"]),
        ("backend=cda", ["did you mean cuda?", "auto, cpu, cuda, dummy, metal"]),
        ("backend={device: cpu}", ["set single keys as backend.KEY=VALUE"]),
        ("backend.threads.x=1", ["backend.threads: {'x': 1} is not allowed"]),
        ("watcher.mode=pol", ["one of auto, inotify, poll"]),
        ("limits.cpu_s=-1", ["a number, more than 0, or null"]),
        ("listener.endpoints=tcp", ["a list, each text"]),
        ("logging.level=null", ["None is not allowed"]),
        ("models.a=3", ["models.a", "keys below it"]),
        ("models.a.pth=3", ["models.a.pth", "did you mean"]),
        ("scheduler.max_batch_tokens=4", ["at least scheduler.page_size (16)"]),
        ("+backend.extra=1", ["no + is needed"]),
        ("~backend.device", ["cannot be deleted"]),
        ("scheduler.page_size=1,2", ["one value only"]),
        ("hydra.run.dir=x", ["fixed by the daemon"]),
        ("backend@other=cpu", ["packages are not supported"]),
        ("serve", ["expected KEY=VALUE"]),
        ("model.path=日本", ["quote such a value twice", "'model.path=\"日本\"'"]),
        ("model.path='${oc.env:PIE_NO_SUCH}'", ["'PIE_NO_SUCH' not found"]),
        ("model.path='${nothing}'", ["model.path", "nothing"]),
        ("model.path='???'", ["has no value"]),
        ("gateway.port=70000", ["at most 65535"]),
        ("model._target_=os.system", ["no such key"]),
        ("mcp.servers.a.url=x", ["mcp.servers.a.url", "begins with http:// or https://"]),
        ("mcp.servers.a={args: [x]}", ["mcp.servers.a", "needs a command or a url"]),
        ("mcp.servers.a={command: x, url: 'http://y'}", ["mcp.servers.a", "and not both"]),
        ("mcp.servers.a b={command: x}", ["mcp.servers.a b", "letters, digits, - and _"]),
        ("mcp.servers.a.comand=x", ["no such key", "did you mean mcp.servers.NAME.command?"]),
        ("mcp.servers.a.env={KEY: 3}", ["mcp.servers.a.env", "keys with text each"]),
        ("mcp.servers=3", ["mcp.servers", "keys below it"]),
        ("limits.http_hosts=['https://a.b']", ["a host in lower-case letters such as"]),
        ("limits.http_networks=['10.0.0.1/8']", ["limits.http_networks", "host bits set"]),
        ("limits.http_response_bytes=4194304", ["at most 3145728"]),
        ("limits.tools=['a b']", ["an MCP server, SERVER/TOOL, or *"]),
    ],
)
def test_command_line_mistake_is_named(argument: str, parts: list[str]) -> None:
    """The message starts with the place and the key, and says what is allowed."""
    message = mistakes(argument)

    assert message.startswith("command line: ")
    assert argument.lstrip("+~").split("=")[0].split(".x")[0] in message
    for part in parts:
        assert part in message


def test_every_mistake_is_listed_at_once() -> None:
    """Nobody has to run the command again for each of his mistakes."""
    lines = mistakes("backend.nonsense=1", "scheduler.max_batch_tokens=abc").splitlines()

    assert 2 == len(lines)


def test_named_model_beside_a_path_of_the_same_name_is_refused() -> None:
    """Two paths for one model are a mistake, whichever would win."""
    assert "set only one" in mistakes("models.a.path=/a", "model.name=a", "model.path=/b")
    assert "none of `models`: a" in mistakes("models.a.path=/a", "model.name=c")


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("backend:\n  nonsense: 1\n", 2, "backend.nonsense: there is no such key"),
        ("backend:\n  device: gpu\n", 2, "expected one of auto, cpu, cuda, metal"),
        ("logging:\n  level: no\n", 2, "False is not allowed"),
        ("scheduler:\n  page_size: 1\n  page_size: 2\n", 3, "duplicate"),
        ("scheduler:\n\tpage_size: 1\n", 2, "not valid YAML"),
        ("scheduler: [1\n", 2, "not valid YAML"),
        ("scheduler: 3\n", 1, "is a section"),
        ("- scheduler\n", 1, "expected `key: value`"),
        ("defaults:\n  - backend: cda\n", 1, "did you mean cuda?"),
        ("defaults:\n  - backend\n", 1, "expected entries like"),
        ("modl:\n  path: x\n", 2, "modl.path: there is no such key; did you mean model.path?"),
    ],
)
def test_mistake_in_a_file_is_named_with_its_line(
    folders: Path, text: str, line: int, part: str
) -> None:
    """The place of a mistake in a file is `file:line`."""
    path = folders / "config.yaml"
    path.write_text(text)

    message = mistakes()

    assert message.startswith(f"{path}:{line}: ")
    assert part in message


def test_empty_file_and_empty_sections_change_nothing(folders: Path) -> None:
    """What holds only comments is a layer that sets nothing."""
    path = folders / "config.yaml"
    path.write_text("")
    plain = load().config
    path.write_text("# nothing yet\nbackend:\nmodels:\n")

    assert plain == load().config


def test_broken_group_file_is_named(folders: Path) -> None:
    """A syntax error in an own option of a group is shown with its file and line."""
    (folders / "backend").mkdir()
    path = folders / "backend" / "mine.yaml"
    path.write_text("device: [1\n")

    assert mistakes("backend=mine").startswith(f"{path}:2: ")


def test_group_file_that_would_be_hidden_is_refused(folders: Path) -> None:
    """A packaged option cannot be replaced silently."""
    (folders / "backend").mkdir()
    (folders / "backend" / "cpu.yaml").write_text("device: cpu\n")

    assert "give it another name" in mistakes()


def test_misnamed_file_is_not_ignored(folders: Path) -> None:
    """`config.yml` would be skipped by the composer; it is refused instead."""
    (folders / "config.yml").write_text("backend:\n")

    assert "call it config.yaml" in mistakes()


def test_unreadable_file_is_named(folders: Path) -> None:
    """A file that cannot be opened stops the start with its name."""
    (folders / "config.yaml").mkdir()

    assert mistakes().startswith(f"{folders / 'config.yaml'}: cannot be read")


def test_an_endpoint_open_to_others_needs_keys() -> None:
    """Only once it is on; keys or insistence make it fine."""
    opened = ["gateway=on", "gateway.host=0.0.0.0"]
    assert "gateway.api_keys" in mistakes(*opened)
    load(["gateway.host=0.0.0.0"])
    load([*opened, "gateway.insecure=true"])
    load([*opened, "gateway.api_keys=['ann:0123456789abcdef']"])


def test_secrets_are_never_shown() -> None:
    """Neither a key that is refused nor one that is taken."""
    assert "tooshort" not in mistakes("gateway.api_keys=['ann:tooshort']")
    rows = load(["gateway.api_keys=['ann:0123456789abcdef']"]).rows
    shown = {row.key: row.value for row in rows}
    assert ["***"] == shown["gateway.api_keys"]
