"""The whole configuration as code sees it, and the sections no single package owns."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from pie_daemon.gateway.config import GatewayConfig
from pie_daemon.listener.config import AuthConfig, ListenerConfig
from pie_daemon.log import LoggingConfig
from pie_daemon.runtime.config import LimitsConfig, RuntimeConfig
from pie_daemon.runtime.outside.config import McpConfig
from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.settings import Amount, Count, Seconds, setting
from pie_daemon.watcher.config import WatcherConfig


class BackendSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What computes: the same for every model of this daemon."""

    kind: Annotated[
        Literal["engine", "dummy"],
        setting(
            "engine runs the model; dummy draws tokens from a hash, for tests without numbers",
            reload="restart",
            why="tokens of the model are what a server is for",
        ),
    ] = "engine"
    device: Annotated[
        Literal["auto", "cpu", "cuda", "metal"],
        setting(
            "Where the model runs; auto takes an NVIDIA GPU where all that it needs is there, else "
            "the processor, and `pie status` says why",
            reload="rebuild",
            why="works on every machine",
        ),
    ] = "auto"
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"],
        setting(
            "Number format of weights and KV cache; auto takes the checkpoint's",
            reload="rebuild",
            why="what the model was trained in",
        ),
    ] = "auto"
    kernels: Annotated[
        Literal["auto", "native", "torch"],
        setting(
            "native: compiled for this very processor or, by FlashInfer, GPU, in bfloat16; torch: "
            "every dtype everywhere; auto: native where it can be had",
            reload="rebuild",
            why="the fastest that the machine can do",
        ),
    ] = "auto"
    weights: Annotated[
        Literal["auto", "int8"],
        setting(
            "auto: linear layers in dtype; int8: rounded to 8 bits with a scale for each output, "
            "which takes native kernels on a processor with AVX2 or AVX-512 BF16",
            reload="rebuild",
            why="rounding changes what a model says",
        ),
    ] = "auto"
    placement: Annotated[
        Literal["process", "inline"],
        setting(
            "process: a worker process of its own; inline: inside the daemon",
            reload="restart",
            why="a crash or a busy interpreter on one side does not stop the other",
        ),
    ] = "process"
    kv_pages: Annotated[
        Count | None,
        setting(
            "Pages in the pool of the KV cache; null: as many as fit into free memory",
            unit="pages",
            reload="rebuild",
            why="memory that is not a page serves nobody",
        ),
    ] = None
    host_pages: Annotated[
        Amount,
        setting(
            "Pages in host memory for KV that the pool has no room for; without them it is "
            "computed again when it is needed",
            unit="pages",
            reload="rebuild",
            why="on a CPU the pool is in host memory already: more kv_pages serve better",
        ),
    ] = 0
    adapter_mb: Annotated[
        Count,
        setting(
            "Memory for the LoRA adapters of a model; unused ones make room for others",
            unit="MiB",
            reload="rebuild",
            why="dozens of adapters of rank 16 for a model of 1 B parameters",
        ),
    ] = 512
    threads: Annotated[
        Count | None,
        setting(
            "Threads that compute on a CPU, those of all ranks of tensor_parallel together; null: "
            "one for each core the process may use",
            unit="threads",
            reload="rebuild",
            why="more threads than cores slow each other down",
        ),
    ] = None
    tensor_parallel: Annotated[
        Count,
        setting(
            "Ranks that divide each layer of a model among them, each in a process of its own; on "
            "a CPU they share its cores; must divide the model's heads, KV heads and MLPs",
            unit="ranks",
            reload="rebuild",
            why="a model that one device can hold is fastest there",
        ),
    ] = 1
    replicas: Annotated[
        Count,
        setting(
            "Workers that each hold a whole model, with pages of their own; contexts go where "
            "their beginning is known; on a CPU they share its cores; takes placement=process",
            unit="workers",
            reload="rebuild",
            why="one worker batches everything, which on one device is fastest",
        ),
    ] = 1


class ModelSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Shorthand for the default model."""

    path: Annotated[
        str | None,
        setting(
            "Hugging Face directory of the default model, or `crumb` for the embedded one; "
            "null: `crumb`, unless `models` names others",
            reload="rebuild",
            why="a first token without a download",
        ),
    ] = None
    name: Annotated[
        str | None,
        setting(
            "Name of the default model; null: the last part of its path, "
            "or the first one of `models`",
            reload="rebuild",
            why="programs ask for models by name",
        ),
    ] = None
    adapters: Annotated[
        str | None,
        setting(
            "Folder with a subfolder for each LoRA adapter of the default model that programs may "
            "open by its name; null: they may open none",
            reload="rebuild",
            why="nothing is granted that the operator did not grant",
        ),
    ] = None


class NamedModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One entry of `models`."""

    path: Annotated[
        str,
        setting(
            "Hugging Face directory of this model, or `crumb` for the embedded one",
            reload="rebuild",
            why="there is none: an entry without a path means nothing",
        ),
    ]
    adapters: Annotated[
        str | None,
        setting(
            "Folder with a subfolder for each LoRA adapter of this model, as model.adapters",
            reload="rebuild",
            why="nothing is granted that the operator did not grant",
        ),
    ] = None


class MetricsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Numbers about the running daemon."""

    log_interval_s: Annotated[
        Seconds | None,
        setting(
            "Time between two log lines with the load of the daemon; null: none",
            unit="s",
            reload="live",
            why="`pie ps` and the status request answer the same when somebody asks",
        ),
    ] = None


class PieConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything the daemon is built from. Made once, by `load`; replaced, never changed."""

    backend: BackendSection = BackendSection()
    model: ModelSection = ModelSection()
    models: dict[str, NamedModel] = {}
    scheduler: SchedulerConfig = SchedulerConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    listener: ListenerConfig = ListenerConfig()
    gateway: GatewayConfig = GatewayConfig()
    watcher: WatcherConfig = WatcherConfig()
    limits: LimitsConfig = LimitsConfig()
    mcp: McpConfig = McpConfig()
    auth: AuthConfig = AuthConfig()
    logging: LoggingConfig = LoggingConfig()
    metrics: MetricsConfig = MetricsConfig()
