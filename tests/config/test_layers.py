"""Which layer wins, and where `config show` says that a value was written."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from pie_daemon.config import PieConfig, backend_configs, complete, load
from pie_daemon.config.layers import Loaded, Row
from pie_daemon.runtime.outside.config import McpServer


def row(loaded: Loaded, key: str) -> Row:
    return next(row for row in loaded.rows if row.key == key)


def test_packaged_files_say_the_same_as_the_structs() -> None:
    """Composing the packaged files gives what the structs default to."""
    loaded = load()

    assert complete(PieConfig()) == loaded.config
    assert {"default"} == {row.source for row in loaded.rows}


def test_upper_layers_win_key_by_key(folders: Path, tmp_path: Path) -> None:
    """Command line over user over system over packaged, each for the keys that it sets."""
    system = tmp_path / "etc"
    system.mkdir()
    (system / "config.yaml").write_text("scheduler:\n  max_batch_tokens: 100\n  page_size: 8\n")
    (folders / "config.yaml").write_text("# mine\nscheduler:\n  max_batch_tokens: 200\n")

    loaded = load(["logging.level=debug"])

    assert 200 == loaded.config.scheduler.max_batch_tokens
    assert f"{folders}/config.yaml:3" == row(loaded, "scheduler.max_batch_tokens").source
    assert f"{system}/config.yaml:3" == row(loaded, "scheduler.page_size").source
    assert ("debug", "info", "cli") == (
        row(loaded, "logging.level").value,
        row(loaded, "logging.level").default,
        row(loaded, "logging.level").source,
    )


def test_group_option_comes_below_every_single_key(folders: Path) -> None:
    """A group chosen on the command line does not undo a key set in a file."""
    (folders / "config.yaml").write_text("backend:\n  kv_pages: 7\n")

    loaded = load(["backend=dummy"])

    assert ("dummy", 7) == (loaded.config.backend.kind, loaded.config.backend.kv_pages)
    assert row(loaded, "backend.kind").source.endswith("conf/backend/dummy.yaml:2")


def test_groups_of_the_user_build_on_packaged_ones(folders: Path) -> None:
    """An option in the user's folder may name another one in its defaults list."""
    (folders / "backend").mkdir()
    mine = folders / "backend" / "mine.yaml"
    mine.write_text("defaults:\n  - dummy\n  - _self_\nthreads: 3\n")
    (folders / "config.yaml").write_text("defaults:\n  - override backend: mine\n")

    loaded = load()

    assert ("dummy", 3) == (loaded.config.backend.kind, loaded.config.backend.threads)
    assert f"{mine}:4" == row(loaded, "backend.threads").source


def test_interpolations_are_resolved_once_while_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable of the environment reaches the value, not the text of the interpolation."""
    monkeypatch.setenv("MODEL_HOME", "/models/qwen")

    assert "/models/qwen" == load(["model.path='${oc.env:MODEL_HOME}'"]).config.model.path


@pytest.mark.parametrize(
    ("arguments", "models", "default"),
    [
        ([], {"crumb": "crumb"}, "crumb"),
        (["model.path=/m/qwen"], {"qwen": "/m/qwen"}, "qwen"),
        (["model.path=/m/qwen", "model.name=big"], {"big": "/m/qwen"}, "big"),
        (["models.Qwen3-0.6B.path=/m/q"], {"Qwen3-0.6B": "/m/q"}, "Qwen3-0.6B"),
        (["models={a: {path: /a}, b: {path: /b}}"], {"a": "/a", "b": "/b"}, "a"),
        (["models={a: {path: /a}, b: {path: /b}}", "model.name=b"], {"b": "/b", "a": "/a"}, "b"),
        (["models.a.path=/a", "model.path=crumb"], {"crumb": "crumb", "a": "/a"}, "crumb"),
    ],
)
def test_models_hold_the_default_one_first(
    arguments: list[str], models: dict[str, str], default: str
) -> None:
    """The shorthand and the named models end in one table, its first entry the default."""
    config = load(arguments).config

    assert list(models.items()) == [(name, m.path) for name, m in config.models.items()]
    assert default == config.model.name
    assert config == complete(config)


def test_folder_is_absolute_and_defaults_to_the_state_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative inferlet folder is meant from where the command runs."""
    monkeypatch.chdir(tmp_path)

    assert str(tmp_path / "state" / "inferlets") == load().config.watcher.dir
    assert str(tmp_path / "drop") == load(["watcher.dir=drop"]).config.watcher.dir


def test_backend_gets_every_key_that_concerns_it() -> None:
    """One backend configuration for each model, with the keys of three sections."""
    arguments = ["backend=dummy", "scheduler.page_size=4", "backend.threads=2", "model.name=m"]
    arguments.append("backend.host_pages=7")

    (config,) = backend_configs(load(arguments).config)

    assert ("m", "dummy", 4, 2, 4096, 7) == (
        config.name,
        config.kind,
        config.page_size,
        config.num_threads,
        config.kv_pages,
        config.host_pages,
    )


def test_loading_from_many_threads_gives_the_same_everywhere() -> None:
    """Hydra's process-wide state is guarded."""
    seen: list[Any] = []

    def work(size: int) -> None:
        seen.extend((size, load([f"scheduler.page_size={size}"]).config.scheduler) for _ in "ab")

    threads = [threading.Thread(target=work, args=(size,)) for size in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 8 == len(seen)
    assert all(size == scheduler.page_size for size, scheduler in seen)


def test_mcp_servers_are_entries_with_names_of_their_own(folders: Path) -> None:
    """From an option of the group `mcp` and the command line; what is secret is not shown."""
    option = folders / "mcp" / "mine.yaml"
    option.parent.mkdir(parents=True)
    option.write_text(
        "servers:\n  my-files:\n"
        "    command: npx\n    args: [server, /tmp]\n    env: {TOKEN: hush}\n"
    )
    loaded = load(
        ["mcp=mine", "mcp.servers.web.url=http://localhost/mcp", "mcp.call_s=5"], [folders]
    )
    rows = {row.key: row for row in loaded.rows}

    assert {
        "my-files": McpServer(command="npx", args=("server", "/tmp"), env={"TOKEN": "hush"}),
        "web": McpServer(url="http://localhost/mcp"),
    } == loaded.config.mcp.servers
    assert {"TOKEN": "***"} == rows["mcp.servers.my-files.env"].value
    assert f"{option}:3" == rows["mcp.servers.my-files.command"].source
    assert ("cli", "live") == (
        rows["mcp.servers.web.url"].source,
        rows["mcp.servers.web.url"].reload,
    )
