"""The schema is complete, and what is rendered from it is up to date."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pie_daemon.config import document, schema
from pie_daemon.config.schema import Leaf

ROOT = Path(__file__).parents[2]
STABLE = """watcher.dir model.path model.name backend.device backend.dtype backend.placement
scheduler.max_batch_tokens scheduler.page_size backend.kv_pages listener.endpoints
logging.level""".split()


@pytest.mark.parametrize("leaf", schema.leaves().values(), ids=lambda leaf: ".".join(leaf.key))
def test_every_key_is_described(leaf: Leaf) -> None:
    """A key cannot be added without a decision on what a change of it needs."""
    assert leaf.reload in ("live", "rebuild", "restart")
    assert leaf.description
    assert leaf.allowed


def test_stable_names_exist() -> None:
    """Names that people have in their files stay."""
    assert set(STABLE) <= {".".join(key) for key in schema.leaves()}


def test_rendered_files_are_up_to_date() -> None:
    """`python -m pie_daemon.config.document` has nothing to do."""
    files = {"config.yaml": document.primary_yaml()}
    files |= {document.group_file(g): document.group_yaml(g) for g in document.groups()}

    for name, text in files.items():
        assert text == (ROOT / "conf" / name).read_text(), name
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert document.replace_table(page) == page


def test_every_packaged_option_composes() -> None:
    """Each file below conf/ gives a sound configuration when it is chosen."""
    from pie_daemon.config import load

    options = [f"{path.parent.name}={path.stem}" for path in (ROOT / "conf").glob("*/*.yaml")]

    assert len(options) > len(document.groups())
    for option in options:
        load([option])


def test_importing_the_package_does_not_import_hydra() -> None:
    """Commands that read no configuration do not pay for the composer."""
    code = "import sys, pie_daemon.config; print('hydra' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "False False" == done.stdout.strip()
