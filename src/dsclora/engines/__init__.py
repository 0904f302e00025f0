"""Engines run networks: one protocol, one file per runtime, and the choice between them (`choice`).

`networks.Network` says what is computed; `Engine` says where.
"""

import os
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from dsclora.errors import EngineError, OutOfMemoryError, UsageError

Precision = Literal["fp32", "bf16"]

Batch = npt.NDArray[Any]

TILE = 512
"""The side of the windows for runtimes that hold all activations of a window."""

DTYPES = tuple(np.dtype(t) for t in (np.uint8, np.uint16, np.float32))


@dataclass(frozen=True)
class Setting:
    """The choice of a runtime for a network, and of its precision, device and threads.

    Attributes:
        engine: "auto" or the name of a runtime (`choice.RUNTIMES`).
        precision: the numbers computed with. "bf16" costs about 0.01 dB and is faster than fp32 in the same runtime;
            not every processor has it.
        device: "cpu", "cuda" or "mps".
        threads: the number of threads of a CPU runtime; its own choice by default.
    """

    engine: str = "auto"
    precision: Precision = "fp32"
    device: str = "cpu"
    threads: int | None = None

    def __post_init__(self) -> None:
        """Refuse a number of threads that no engine takes.

        Raises:
            UsageError: not a whole number from 1 on.
        """
        if self.threads is not None and not (isinstance(self.threads, int) and 1 <= self.threads <= 1024):
            raise UsageError(f"threads: a whole number from 1 to 1024, not {self.threads!r}")


DEFAULT_SETTING = Setting()


class Engine(Protocol):
    """A network ready to run, one call at a time; threads need an engine each.

    Attributes:
        name: the runtime, and where it runs.
        scale: the factor it enlarges by.
        multiple: the number that both sides of a window must divide by. Callers pad; engines do not.
        tile: the side of the largest window worth running at once.
    """

    name: str
    scale: int
    multiple: int
    tile: int

    @property
    def halo(self) -> int | None:
        """The receptive radius in input pixels.

        None if every output pixel depends on the whole picture, which must then be run in one window.
        """
        ...

    def __call__(self, batch: Batch) -> Batch:
        """Enlarge a batch, with zero padding at the borders as the network was trained.

        Args:
            batch: (N, 3, h, w), RGB, any strides: uint8 in 0..255, uint16 in 0..65535, or float32 in 0..1.

        Returns:
            (N, 3, h * scale, w * scale), of the same dtype and range, clipped to it; integers are rounded. The array
            is not overwritten by later calls; its strides are those that the runtime prefers.

        Raises:
            ValueError: another dtype or shape.
            OutOfMemoryError: a smaller batch or tile may fit.
            EngineError: the runtime failed.
        """
        ...


@runtime_checkable
class CroppingEngine(Protocol):
    """An `Engine` that can leave out the margins of a window; any size runs at the same speed."""

    def enlarge_crop(self, source: Batch, target: Batch, top: int, left: int) -> None:
        """Enlarge the part of a window that begins at a pixel; the network sees the rest around it.

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


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_batch(batch: Batch) -> None:
    """Check that a batch is one that engines take.

    Raises:
        ValueError: not (N, 3, h, w) uint8, uint16 or float32, or empty.
    """
    if batch.ndim != 4 or batch.shape[1] != 3 or 0 in batch.shape:
        raise ValueError(f"expected a batch (N, 3, h, w), got {batch.shape}")
    if batch.dtype not in DTYPES:
        raise ValueError(f"expected uint8, uint16 or float32, got {batch.dtype}")


def failed(runtime: str, batch: Batch, error: BaseException) -> EngineError:
    """Return the error to raise for an exception of a runtime: `OutOfMemoryError` or `EngineError`, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("Please fix")]  # ONNX Runtime's advice, after the reason
    kind = OutOfMemoryError if _is_out_of_memory(error) else EngineError
    return kind(f"{runtime} failed on {batch.shape}: {lines[-1] if lines else type(error).__name__}")


def _is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception says that memory ran out; runtimes have no common type for it."""
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
