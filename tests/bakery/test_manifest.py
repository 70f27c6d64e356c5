"""`pie.toml`: strict, with errors at a line."""

from __future__ import annotations

import pytest

from pie_bakery.manifest import Grants, Identity, Manifest, ManifestError, parse


def refusal(text: str) -> tuple[str, int | None]:
    with pytest.raises(ManifestError) as caught:
        parse(text.encode())
    return caught.value.message, caught.value.line


def test_everything_there_is() -> None:
    """Two tables, all keys."""
    text = """
    [inferlet]
    name = "my-bot2"
    version = "1.2.3-rc.1"
    description = "d"
    contract = "chat"
    [grants]
    memory_mb = 64
    cpu_s = 2
    http = ["api.example.com", "*.example.org:*", "[::1]:8080"]
    tools = ["files", "calc/add"]
    """
    hosts, tools = ("api.example.com", "*.example.org:*", "[::1]:8080"), ("files", "calc/add")
    identity = Identity("my-bot2", "1.2.3-rc.1", "d", "chat")
    wanted = Manifest(identity, Grants(64, 2.0, hosts, tools))
    assert wanted == parse(text.encode())


def test_nothing_at_all_is_a_manifest_too() -> None:
    """A bare component takes its name from the file and the operator's limits."""
    assert Manifest() == parse(b"")
    assert parse(b"[grants]\nmemory_mb = 8").inferlet.name is None


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("[inferlet]\nnam = 'x'", "unknown key `nam` in [inferlet]; did you mean `name`?", 2),
        (
            "[inferlet]\nname='x'\n[grants]\nzzz = 1",
            "unknown key `zzz` in [grants]; allowed are memory_mb, cpu_s, http, tools, "
            "priority_max",
            4,
        ),
        ("[grant]\ncpu_s = 1", "unknown key `grant`; did you mean `grants`?", 1),
        ("grants = 3", "`grants` must be a table: [grants]", 1),
        ("[inferlet\n", "not TOML: Expected ']' at the end of a table declaration", 1),
        ("[grants]\ncpu_s = 0", "`cpu_s` in [grants]: expected `float` > 0.0", 2),
        (
            "[grants]\nmemory_mb = '1'",
            "`memory_mb` in [grants]: expected `int | null`, got `str`",
            2,
        ),
        (
            "[inferlet]\nname = 'My Bot'",
            "`name` in [inferlet]: expected lower-case letters, digits and single dashes, "
            "starting with a letter",
            2,
        ),
        *(
            (
                f"[grants]\nhttp = ['{rule}']",
                "`http[0]` in [grants]: expected a host in lower-case letters such as "
                "api.example.com, *.example.org or *, with :PORT or :* for other ports than 80 "
                "and 443",
                2,
            )
            for rule in ("https://a.b", "A.b", "a.*.b", "a.b/c", "a b", "::1", "a:0", "")
        ),
        (
            "[grants]\ntools = ['a b']",
            "`tools[0]` in [grants]: expected an MCP server, SERVER/TOOL, or *",
            2,
        ),
        (
            "[inferlet]\nname = 'x'\nversion = '1'",
            "`version` in [inferlet]: expected a version such as 1.0.0",
            3,
        ),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, message: str, line: int) -> None:
    """The key, what is allowed, and where it stands."""
    assert (message, line) == refusal(text)


def test_bytes_that_are_no_text_are_refused() -> None:
    """A manifest is UTF-8."""
    with pytest.raises(ManifestError, match="not UTF-8"):
        parse(b"\xff")
