"""Verify exported files against our fp32 engine, on photographs and on pictures made to provoke."""

import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dsclora import zoo
from dsclora.engines import Engine
from dsclora.engines.choice import open_engine
from dsclora.errors import EngineError
from dsclora.exports.base import LIMITS, Compared, Converted, Precision, Report, Run, Target, round_up
from dsclora.networks import Network
from dsclora.pictures.arrays import Float32
from dsclora.pictures.metrics import psnr
from dsclora.pictures.read import find_pictures, read_rgb8

# Noise and checkerboards exceed the ranges of int8. On inputs unlike the training data, tiny rounding differences can
# change the output completely: two fp32 runtimes that agree to 134 dB on photographs (75 in fp16) differed on these by
# up to 255 levels, with the published x4 networks. Their error is measured and reported; the file is kept all the same.
_OUTSIDE = ("noise", "checkers")

_INT8 = "int8 is for photographs: checkers of single pixels and strong noise leave the ranges and come out wrong"

_OTHERWISE = "checkers of single pixels or strong noise come out differently: the network amplifies rounding there"

_SATURATED = "; where that is an x86 processor without VNNI: export on another one, or to onnx"

_TIMED = 5  # runs, in turn with the reference's


def verify(
    network: Network,
    converted: Converted,
    target: Target,
    precision: Precision,
    size: tuple[int, int] | None,
    paths: list[Path],
) -> Report:
    """Compare exported files with our fp32 engine, on photographs and on pictures made to provoke.

    Raises:
        EngineError: beyond `LIMITS`, or the runtime failed.
    """
    reference = open_engine(network)
    photographs = _photographs(size, network.multiple)
    pictures = photographs | _provocations(size, network.multiple)
    least, most = LIMITS[precision]
    compared = []
    for name, picture in pictures.items():
        row = _compare(name, picture, converted, reference, target, paths[0].name)
        compared.append(row)
        if (row.worst > most and name not in _OUTSIDE) or (name in photographs and row.psnr < least):
            raise EngineError(
                f"{paths[0].name}: in {converted.runtime} the picture {name!r} differs by {row.worst:.2f} levels "
                f"({row.psnr:.1f} dB); {most:g} levels and, on photographs, {least:g} dB are the limit; not kept"
                + (_SATURATED if (target, precision) == ("openvino", "int8") else "")
            )
    limits = [_INT8] if precision == "int8" else [_OTHERWISE] if any(row.worst > most for row in compared) else []
    timed = max(photographs.values(), key=lambda picture: picture.size)
    seconds = np.array([[_seconds(converted.run, timed), _seconds(reference, timed)] for _ in range(_TIMED + 1)])
    milliseconds, reference_milliseconds = np.median(seconds[1:], axis=0) * 1e3
    return Report(
        target,
        precision,
        tuple(paths),
        converted.runtime,
        (*converted.notes, *limits),
        tuple(compared),
        float(milliseconds),
        float(reference_milliseconds),
        (timed.shape[2], timed.shape[3]),
    )


def _compare(
    name: str, picture: Float32, converted: Converted, reference: Engine, target: Target, file: str
) -> Compared:
    """Run a picture through exported files and through our engine.

    Raises:
        EngineError: the runtime failed, or its picture has another shape or holds NaN; `file` names it.
    """
    try:
        sr = np.asarray(converted.run(picture), np.float64)
    except Exception as error:  # runtimes have no common type of error
        raise EngineError(f"{file}: {converted.runtime} does not run it: {error}") from error
    expected = reference(picture).astype(np.float64)
    if sr.shape != expected.shape:
        raise EngineError(f"{file}: in {converted.runtime} its output is {sr.shape}, not {expected.shape}")
    if not np.isfinite(sr).all():
        raise EngineError(f"{file}: in {converted.runtime} the picture {name!r} becomes NaN; not kept")
    if target == "spandrel":  # its programs clip; the other targets clip in the file
        sr = sr.clip(0, 1)
    return Compared(name, psnr(255 * sr, 255 * expected), float(np.abs(sr - expected).max() * 255))


def _seconds(run: Run | Engine, picture: Float32) -> float:
    begin = time.perf_counter()
    run(picture)
    return time.perf_counter() - begin


def _photographs(size: tuple[int, int] | None, multiple: int) -> dict[str, Float32]:
    """Return bundled photographs, in uneven sizes if any are taken."""
    batches = {}
    shapes = [size] if size else [round_up(shape, multiple) for shape in ((256, 256), (117, 91), (64, 173))]
    for path, (height, width) in zip(find_pictures(zoo.general_pictures()), shapes, strict=False):
        pixels = read_rgb8(path)
        fill = ((0, max(0, height - pixels.shape[0])), (0, max(0, width - pixels.shape[1])), (0, 0))
        batches[path.stem] = _batch(np.pad(pixels, fill, "symmetric")[:height, :width] / 255)
    return batches


def _provocations(size: tuple[int, int] | None, multiple: int) -> dict[str, Float32]:
    """Return pictures that reveal an overflow, a wrong border or a wrong order of bands."""
    height, width = size or round_up((45, 38), multiple)
    random = np.random.default_rng(0)
    checkers = np.indices((height, width)).sum(0)[..., None] % 2 * np.ones(3)
    pictures = {
        "white": np.ones((height, width, 3)),
        "black": np.zeros((height, width, 3)),
        "one colour": np.full((height, width, 3), (0.9, 0.1, 0.4)),
        "noise": random.random((height, width, 3)),
        "checkers": checkers,
    }
    if size is None and multiple == 1:
        pictures["one pixel"] = np.full((1, 1, 3), (0.2, 0.5, 0.8))
    elif size is None:  # not `multiple` itself: PyTorch's programs take a quotient of 1 for a constant
        pictures["small"] = np.full((2 * multiple, 2 * multiple, 3), (0.2, 0.5, 0.8))
    return {name: _batch(pixels) for name, pixels in pictures.items()}


def _batch(pixels: npt.NDArray[np.float64]) -> Float32:
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)
