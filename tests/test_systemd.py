"""The notify protocol, and a unit file that systemd accepts."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tomllib
from pathlib import Path

import pytest

from pie_daemon import systemd

ROOT = Path(__file__).parents[1]
UNIT = ROOT / "systemd" / "pie-daemon.service"


@pytest.mark.parametrize("abstract", [False, True])
def test_assignments_travel_in_one_datagram(tmp_path: Path, abstract: bool) -> None:
    """systemd takes what arrives together as one change of state."""
    address = f"@pie-test-{tmp_path.name}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address.replace("@", "\0", 1) if abstract else address)
        receiver.settimeout(10)

        sent = systemd.notify("READY=1", "STATUS=serving", environ={"NOTIFY_SOCKET": address})

        assert sent
        assert b"READY=1\nSTATUS=serving" == receiver.recv(1024)


def test_nothing_happens_outside_systemd(tmp_path: Path) -> None:
    """No variable, or nobody who listens: the daemon runs all the same."""
    assert not systemd.notify("READY=1", environ={})
    assert not systemd.notify("READY=1", environ={"NOTIFY_SOCKET": str(tmp_path / "gone")})


def _settings() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, value = line.split("=", 1)
            found.setdefault(name, []).append(value)
    return found


def test_unit_starts_an_installed_command() -> None:
    """ExecStart names a script that the package really installs."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    settings = _settings()

    assert settings["Type"] == ["notify"]
    assert all(Path(c.split()[0]).name in scripts for c in settings["ExecStart"])
    assert "78" in settings["RestartPreventExitStatus"][0].split()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_unit_is_accepted_by_systemd(tmp_path: Path) -> None:
    """Not one complaint: systemd ignores what it does not know, and says so only here."""
    copy = tmp_path / UNIT.name
    lines = UNIT.read_text().splitlines()
    true = shutil.which("true")
    copy.write_text(
        "\n".join(f"ExecStart={true}" if s.startswith("ExecStart=") else s for s in lines)
    )

    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True
    )

    assert (0, "") == (done.returncode, done.stderr)
