"""Targets, precisions, limits and reports of exports."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from dsclora.pictures.arrays import Float32

Target = Literal["onnx", "openvino", "ncnn", "spandrel", "torchscript", "pt2"]

Precision = Literal["fp32", "fp16", "int8"]

Layout = Literal["plain", "upscayl"]


Run = Callable[[Float32], Float32]
"""(1, 3, h, w) float32 in 0..1 to (1, 3, h * scale, w * scale)."""

TARGETS: tuple[Target, ...] = get_args(Target)

LIMITS: dict[Precision, tuple[float, float]] = {"fp32": (90.0, 0.5), "fp16": (60.0, 8.0), "int8": (40.0, 64.0)}
"""What a file must keep to: PSNR in dB on every photograph; levels of 255 that any pixel of these and of the other
pictures may be off, but of those that no photograph resembles."""

PRECISIONS: dict[Precision, tuple[Target, ...]] = {
    "fp32": TARGETS,
    "fp16": ("onnx", "openvino", "ncnn"),
    "int8": ("onnx", "openvino"),
}

FIXED_SIZE: tuple[Target, ...] = ("onnx", "openvino", "torchscript", "pt2")


@dataclass(frozen=True)
class Compared:
    """A picture through the exported file.

    Attributes:
        picture: which; photographs come first.
        psnr: in dB, against our fp32 engine; infinite where equal.
        worst: the pixel that is furthest off, in levels of 255.
    """

    picture: str
    psnr: float
    worst: float


@dataclass(frozen=True)
class Report:
    """What was made and how it did.

    Attributes:
        target, precision: as asked for.
        files: what to ship.
        runtime: what it was loaded in.
        notes: what to know when it is run.
        compared: picture by picture.
        milliseconds, reference_milliseconds: medians for the largest picture, in turn: this file, and our engine.
        size: (height, width) of that picture.
    """

    target: Target
    precision: Precision
    files: tuple[Path, ...]
    runtime: str
    notes: tuple[str, ...]
    compared: tuple[Compared, ...]
    milliseconds: float
    reference_milliseconds: float
    size: tuple[int, int]

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON, which has no infinity."""
        facts = asdict(self)
        facts["compared"] = [asdict(c) | {"psnr": c.psnr if np.isfinite(c.psnr) else None} for c in self.compared]
        return facts


@dataclass(frozen=True)
class Converted:
    """Files in a folder, how to run them, and what to know."""

    runtime: str
    run: Run
    notes: tuple[str, ...] = ()


def describe_shape(size: tuple[int, int] | None) -> str:
    """Say in words which input sizes a file takes; `size` is (height, width) or None for any."""
    return f"one picture of {size[1]} x {size[0]}" if size else "any batch, height and width"


def append_suffix(stem: Path, suffix: str) -> Path:
    """Names may hold dots: `with_suffix` would cut them."""
    return stem.with_name(stem.name + suffix)
