"""Defaults that depend on other values or on the machine's folders."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from pie_backend.batch import BackendConfig
from pie_client import paths
from pie_daemon.config.sections import BackendSection, ModelSection, NamedModel, PieConfig

EMBEDDED = "crumb"


def complete(config: PieConfig) -> PieConfig:
    """Fills in what null stands for; doing it twice changes nothing.

    Afterwards `models` holds every model, the default one first, and `model` names the default.
    """
    models = _models(config)
    name = next(iter(models))
    folder = config.watcher.dir or str(paths.state_dir() / "inferlets")
    absolute = str(Path(folder).expanduser().absolute())
    return msgspec.structs.replace(
        config,
        model=ModelSection(path=models[name].path, name=name, adapters=models[name].adapters),
        models=models,
        watcher=msgspec.structs.replace(config.watcher, dir=absolute),
    )


def _models(config: PieConfig) -> dict[str, NamedModel]:
    model, models = config.model, config.models
    if model.path is not None and model.name not in models:
        return {_name(model): NamedModel(path=model.path, adapters=model.adapters), **models}
    if not models:
        embedded = NamedModel(path=EMBEDDED, adapters=model.adapters)
        return {model.name or EMBEDDED: embedded}
    first = model.name or next(iter(models))
    return {first: models[first], **models}


def _name(model: ModelSection) -> str:
    path = model.path or EMBEDDED
    return model.name or Path(path).expanduser().absolute().name


def _threads(backend: BackendSection) -> int | None:
    """Of each replica."""
    if backend.replicas == 1:
        return backend.threads
    return max(1, (backend.threads or len(os.sched_getaffinity(0))) // backend.replicas)


def backend_configs(config: PieConfig) -> list[BackendConfig]:
    """What `pie_backend.create` takes, one for each model, the default one first."""
    backend, scheduler = config.backend, config.scheduler
    return [
        BackendConfig(
            name=name,
            kind=backend.kind,
            path=model.path,
            device=backend.device,
            dtype=backend.dtype,
            kernels=backend.kernels,
            weights=backend.weights,
            placement=backend.placement,
            page_size=scheduler.page_size,
            kv_pages=backend.kv_pages,
            host_pages=backend.host_pages,
            max_batch_tokens=scheduler.max_batch_tokens,
            adapter_bytes=backend.adapter_mb << 20,
            num_threads=_threads(backend),
            tensor_parallel=backend.tensor_parallel,
        )
        for name, model in config.models.items()
    ]
