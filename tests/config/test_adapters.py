"""Where adapters are looked for: one key for each model, and shorthand for the default one."""

from __future__ import annotations

import pytest

from pie_daemon.config import backend_configs, complete, load
from pie_daemon.config.errors import ConfigError


@pytest.mark.parametrize(
    ("arguments", "adapters"),
    [
        ([], {"crumb": None}),
        (["model.adapters=/a"], {"crumb": "/a"}),
        (["model.path=/m/q", "model.adapters=/a", "models.b.path=/b"], {"q": "/a", "b": None}),
        (["models={a: {path: /m, adapters: /a}, b: {path: /n}}"], {"a": "/a", "b": None}),
    ],
)
def test_each_model_has_a_folder_of_its_own(
    arguments: list[str], adapters: dict[str, str | None]
) -> None:
    """None means that programs may open none."""
    config = load([*arguments, "backend.adapter_mb=3"]).config
    assert adapters == {name: model.adapters for name, model in config.models.items()}
    assert config == complete(config)
    assert {3 << 20} == {one.adapter_bytes for one in backend_configs(config)}


def test_shorthand_for_a_model_of_the_table_is_refused() -> None:
    """It would be ignored; the message names the key to set."""
    with pytest.raises(ConfigError, match=r"set models\.a\.adapters instead"):
        load(["models.a.path=/m", "model.adapters=/a"])
