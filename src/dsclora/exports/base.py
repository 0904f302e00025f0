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
"""A function from (1, 3, h, w) float32 in 0..1 to (1, 3, h * scale, w * scale)."""

TARGETS: tuple[Target, ...] = get_args(Target)

LIMITS: dict[Precision, tuple[float, float]] = {"fp32": (90.0, 0.5), "fp16": (60.0, 8.0), "int8": (40.0, 64.0)}
"""The limits of a file's error: least PSNR in dB on every photograph; most levels of 255 that any pixel may be off, in
photographs and in the other pictures, except those that no photograph resembles."""

PRECISIONS: dict[Precision, tuple[Target, ...]] = {
    "fp32": TARGETS,
    "fp16": ("onnx", "openvino", "ncnn"),
    "int8": ("onnx", "openvino"),
}

FIXED_SIZE: tuple[Target, ...] = ("onnx", "openvino", "torchscript", "pt2")
"""The targets that can be made for one size."""

INT8_ARCHITECTURES = ("span",)
"""The kinds of network that have an int8 form."""


@dataclass(frozen=True)
class Compared:
    """The error of one picture in the exported file.

    Attributes:
        picture: its name; photographs come first.
        psnr: in dB, against our fp32 engine; infinite where equal.
        worst: the largest error of a pixel, in levels of 255.
    """

    picture: str
    psnr: float
    worst: float


@dataclass(frozen=True)
class Report:
    """The files of an export, and how they compare with our engine.

    Attributes:
        target, precision: the kind of file, and its precision.
        files: the files to ship.
        runtime: the runtime that loaded them.
        notes: facts for those who run them.
        compared: the error of each picture.
        milliseconds, reference_milliseconds: median times of this file and of our engine for the largest picture,
            measured in turn.
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
        """Return the report ready for JSON, which has no infinity."""
        facts = asdict(self)
        facts["compared"] = [asdict(c) | {"psnr": c.psnr if np.isfinite(c.psnr) else None} for c in self.compared]
        return facts


@dataclass(frozen=True)
class Converted:
    """The result of a converter: files in a folder, how to run them, and notes on them."""

    runtime: str
    run: Run
    notes: tuple[str, ...] = ()


def describe_shape(size: tuple[int, int] | None) -> str:
    """Describe the input sizes that a file takes; `size` is (height, width) or None for any."""
    return f"one picture of {size[1]} x {size[0]}" if size else "any batch, height and width"


def round_up(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Return the smallest (height, width) from `size` on whose sides divide by `multiple`."""
    height, width = (side + -side % multiple for side in size)
    return height, width


def append_suffix(stem: Path, suffix: str) -> Path:
    """Append a suffix to a name that may hold dots, which `with_suffix` would cut."""
    return stem.with_name(stem.name + suffix)
