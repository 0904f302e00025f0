"""What runs a network: one protocol, one file per runtime, and the choice between them."""

import importlib.util
import math
import os
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from dsclora.errors import EngineError, MissingExtraError, OutOfMemoryError
from dsclora.weights import Model

Precision = Literal["fp32", "bf16"]
Batch = npt.NDArray[Any]
Pixels = npt.NDArray[Any]
TILE = 512
"""Side of the windows for runtimes that hold all of a window's activations."""
_AT_ONCE = 4  # pictures; each takes its memory
DTYPES = tuple(np.dtype(t) for t in (np.uint8, np.uint16, np.float32))


class Engine(Protocol):
    """A network ready to run, one call at a time; threads need an engine each.

    Attributes:
        name: of the runtime, and where it runs.
        scale: factor it enlarges by.
        halo: receptive radius in LR pixels.
        tile: side of the largest window worth giving it at once.
    """

    name: str
    scale: int
    halo: int
    tile: int

    def __call__(self, batch: Batch) -> Batch:
        """Enlarge, with zero padding at the borders as the network was trained.

        Args:
            batch: (N, 3, h, w), RGB, any strides: uint8 in 0..255, uint16 in 0..65535, or float32 in 0..1.

        Returns:
            (N, 3, h * scale, w * scale), of the same dtype and range, clipped to it; integers are rounded. Its own
            memory, in the order that the runtime makes it in.

        Raises:
            ValueError: another dtype or shape.
            OutOfMemoryError: a smaller batch or tile may fit.
            EngineError: the runtime failed.
        """
        ...


@runtime_checkable
class CroppingEngine(Protocol):
    """An `Engine` that can leave out what only a window's margins need; any size runs at the same speed."""

    def enlarge_crop(self, source: Pixels, target: Pixels, top: int, left: int) -> None:
        """Enlarge the part of a window that begins at a pixel; the rest is what the network sees around it.

        Args:
            source: the window, (h, w, 3), RGB, any strides; uint8, uint16 or float32 as `Engine` takes them.
            target: (part's h * scale, part's w * scale, 3), the same dtype, any strides; filled with the pixels that
                the part has in the whole window's result.
            top, left: the part's first pixel.

        Raises:
            ValueError: another dtype or shape, or a part that reaches out of the window.
            MemoryError: a smaller window may fit.
        """
        ...


def native_kernels() -> list[str]:
    """Instruction sets that the native kernel has for this processor, the best first; none if it cannot be loaded."""
    try:
        import dsclora_native
    except ImportError:  # not there, or built for another Python or C++ library
        return []
    return list(dsclora_native.kernels())


@cache
def bf16_on_cpu() -> bool:
    """Whether OpenVINO computes in bf16 on this processor (AVX512_BF16 or the like); elsewhere it takes fp32."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@dataclass(frozen=True)
class Runtime:
    """A runtime that dsclora can use.

    Attributes:
        name: what `--engine` calls it.
        package: what has to be importable.
        extra: the extra of dsclora that brings it; "" for the main package, None for a package of its own.
        devices: where it can run.
        precisions: of its arithmetic.
        largest_scale: of a network, where there is a limit.
    """

    name: str
    package: str
    extra: str | None
    devices: tuple[str, ...]
    precisions: tuple[Precision, ...]
    largest_scale: float = math.inf

    @property
    def installed(self) -> bool:
        """Whether its package can be found (without importing it)."""
        return importlib.util.find_spec(self.package) is not None

    @property
    def usable(self) -> bool:
        """Whether it is installed, can be loaded and fits this processor."""
        if self.package != "dsclora_native" or not self.installed:
            return self.installed
        return bool(native_kernels())

    @property
    def install(self) -> str:
        """The command that brings it."""
        if self.extra is None:
            return f"pip install ./{self.name} in a checkout (needs a C++ compiler)"
        return f"pip install 'dsclora[{self.extra}]'" if self.extra else "pip install dsclora"


RUNTIMES = (
    Runtime("native", "dsclora_native", None, ("cpu",), ("fp32",), largest_scale=4),
    Runtime("openvino", "openvino", "", ("cpu",), ("fp32", "bf16")),
    Runtime("onnxruntime", "onnxruntime", "ort", ("cpu",), ("fp32",)),
    Runtime("torch", "torch", "train", ("cpu", "cuda", "mps"), ("fp32", "bf16")),
)
"""In order of preference."""


def choose(name: str = "auto", device: str = "cpu", precision: Precision = "fp32", scale: int | None = None) -> Runtime:
    """The runtime of that name, or the preferred one that is installed and runs on the device with that precision.

    Args:
        name, precision, device: as `open_engine`.
        scale: of the network.

    Raises:
        EngineError: unknown name or device, or ones that do not fit each other, the precision, the scale or this
            processor.
        MissingExtraError: not installed.
    """
    if device not in {d for r in RUNTIMES for d in r.devices}:
        raise EngineError(f"unknown device {device!r}: choose cpu, cuda or mps")
    if name != "auto" and name not in {r.name for r in RUNTIMES}:
        raise EngineError(f"unknown engine {name!r}: choose auto, {', '.join(r.name for r in RUNTIMES)}")
    fitting = [r for r in RUNTIMES if device in r.devices and name in ("auto", r.name)]
    if not fitting:
        raise EngineError(f"engine {name} does not run on {device}; use --engine torch")
    if not any(precision in r.precisions for r in fitting):
        raise EngineError(f"engine {name} has no {precision} on a CPU; leave out --precision")
    fitting = [r for r in fitting if precision in r.precisions]
    if not any((scale or 0) <= r.largest_scale for r in fitting):
        most = fitting[0].largest_scale
        raise EngineError(
            f"engine {name} enlarges {most:g} times at most, this network {scale} times; leave out --engine"
        )
    fitting = [r for r in fitting if (scale or 0) <= r.largest_scale]
    for runtime in fitting:
        if runtime.usable:
            if runtime.name == "openvino" and precision == "bf16" and not bf16_on_cpu():
                raise EngineError("OpenVINO does not compute in bf16 on this processor; leave out --precision")
            return runtime
    wanted = fitting[0] if name != "auto" else next(r for r in fitting if r.extra is not None)
    if wanted.installed:
        raise EngineError(f"engine {wanted.name} cannot run on this processor; use --engine openvino")
    raise MissingExtraError(wanted.package, wanted.extra or "", f"engine {wanted.name}", wanted.install)


def open_engine(
    model: Model,
    name: str = "auto",
    precision: Precision = "fp32",
    device: str = "cpu",
    threads: int | None = None,
) -> Engine:
    """Make a network ready to run.

    Args:
        model: its weights.
        name: "auto" or a runtime's.
        precision: of the arithmetic. "bf16" costs about 0.01 dB and is faster than fp32 in the same runtime; not every
            processor has it.
        device: "cpu", "cuda" or "mps".
        threads: of a CPU runtime; its own choice by default. PyTorch has one number for the whole process.

    Raises:
        EngineError, MissingExtraError: as `choose`; or the runtime cannot do this precision.
    """
    runtime = choose(name, device, precision, model.scale)
    if runtime.name == "native":
        from dsclora.engines.native import Native

        return Native(model, threads)
    if runtime.name == "openvino":
        from dsclora.engines.openvino import OpenVino

        return OpenVino(model, precision, threads)
    if runtime.name == "onnxruntime":
        from dsclora.engines.onnxruntime import OnnxRuntime

        return OnnxRuntime(model, threads)
    from dsclora.engines.torch import Torch

    return Torch(model, precision, device, threads)


def open_engines(
    model: Model,
    most: int,
    name: str = "auto",
    precision: Precision = "fp32",
    device: str = "cpu",
    threads: int | None = None,
) -> list[Engine]:
    """As many engines as are worth running on different pictures at the same time: native ones that share the threads.

    Other runtimes' threads would be in each other's way: of them one.

    Args:
        model, name, precision, device: as `open_engine`.
        most: how many pictures there are.
        threads: of all engines together; all cores by default.
    """
    if choose(name, device, precision, model.scale).name != "native":
        return [open_engine(model, name, precision, device, threads)]
    total = threads or cores()
    count = max(1, min(most, total, _AT_ONCE))
    shares = [total // count + (n < total % count) for n in range(count)]
    return [open_engine(model, name, precision, device, share) for share in shares]


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_batch(batch: Batch) -> None:
    """Refuse what no engine takes.

    Raises:
        ValueError: not (N, 3, h, w) uint8, uint16 or float32, or empty.
    """
    if batch.ndim != 4 or batch.shape[1] != 3 or 0 in batch.shape:
        raise ValueError(f"expected a batch (N, 3, h, w), got {batch.shape}")
    if batch.dtype not in DTYPES:
        raise ValueError(f"expected uint8, uint16 or float32, got {batch.dtype}")


def failed(runtime: str, batch: Batch, error: BaseException) -> EngineError:
    """What to raise for an exception of a runtime: `OutOfMemoryError` or `EngineError`, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kind = OutOfMemoryError if _is_out_of_memory(error) else EngineError
    return kind(f"{runtime} failed on {batch.shape}: {lines[-1] if lines else type(error).__name__}")


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of a runtime says that memory ran out (they have no common type for it)."""
    text = f"{type(error).__name__} {error}".lower()
    words = (
        "out of memory",
        "outofmemory",
        "not enough memory",
        "bad_alloc",
        "bad allocation",
        "alloc_failed",
        "failed to allocate",
        "can't allocate",
    )
    return isinstance(error, MemoryError) or any(word in text for word in words)
