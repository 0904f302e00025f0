"""Examine this machine: runtimes, processor, and the engine that dsclora uses, with the reason."""

import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pyvips

from dsclora import zoo
from dsclora.engines import cores
from dsclora.engines.choice import RUNTIMES, native_kernels

_CPU_FEATURES = ("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "asimd", "bf16")


def examine() -> dict[str, Any]:
    """Return versions, processor, runtimes and bundled models, ready for JSON.

    It runs no network. PyTorch, where it is installed, is asked for its devices and the precision it trains in.
    """
    used = next((r for r in RUNTIMES if r.usable), None)
    runtimes = []
    for runtime in RUNTIMES:
        row: dict[str, Any] = {"engine": runtime.name, "installed": runtime.installed}
        if runtime.installed:
            row["version"] = _version(runtime.package) or "unknown version"
            row["devices"] = [d for d in runtime.devices if d == "cpu" or _torch_sees(d)]
            if runtime.name == "native":
                row["kernels"] = native_kernels()
        else:
            row["install"] = runtime.install
        row["used"] = runtime is used
        runtimes.append(row)
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": cores(),
        "libvips": ".".join(str(pyvips.version(i)) for i in range(3)),
        "runtimes": runtimes,
        "why": _why(used.name) if used else "no runtime is installed",
        "training": {p: _version(p) for p in ("torch", "pydantic")},
        "cpu_trains_in": _cpu_trains_in(),
        "models": zoo.names(),
    }


def _why(used: str) -> str:
    preference = " > ".join(r.name for r in RUNTIMES)
    return f"{used}: the first of {preference}, in order of speed on a CPU, that is installed and fits the processor"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _torch_sees(device: str) -> bool:
    import torch

    return bool(torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available())


def _cpu_trains_in() -> str | None:
    """Return the precision of training on this CPU, where the recipe leaves it open."""
    if _version("torch") is None:
        return None
    import torch

    from dsclora.networks import span_torch

    return span_torch.resolve_precision("auto", torch.device("cpu"))


def _cpu() -> dict[str, Any]:
    """Return the processor's name and the instruction sets that matter, where the system lists them (Linux)."""
    name, flags = platform.processor() or platform.machine(), set[str]()
    if sys.platform == "linux":
        lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
        fields = {key.strip(): value.strip() for key, _, value in lines}
        name = fields.get("model name", name)
        if "cpu family" in fields:  # names of virtual machines ("AMD EPYC") do not tell generations apart
            name += f", family {fields['cpu family']}, model {fields['model']}"
        flags.update((fields.get("flags") or fields.get("Features", "")).split())
    return {"name": name, "features": [f for f in _CPU_FEATURES if f in flags]}
