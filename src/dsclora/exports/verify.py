"""Verify an exported file against our fp32 engine on photographs and provoking pictures."""

import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dsclora import zoo
from dsclora.engines import Engine
from dsclora.engines.choice import open_engine
from dsclora.errors import EngineError
from dsclora.exports.base import LIMITS, Compared, Converted, Precision, Report, Run, Target
from dsclora.networks.span import SpanNetwork
from dsclora.pictures.arrays import Float32
from dsclora.pictures.metrics import psnr
from dsclora.pictures.read import find_pictures, read_rgb8

# They leave the ranges of int8; and of what it was never shown a network may make a picture that hangs on the last
# bits: what two runtimes make of them by the published x4 networks is up to 255 levels apart, in fp32 too, where their
# photographs agree to 134 dB (in fp16 to 75). It is measured and told; the file is kept all the same.
_OUTSIDE = ("noise", "checkers")

_INT8 = "int8 is for photographs: checkers of single pixels and strong noise leave the ranges and come out wrong"

_OTHERWISE = "checkers of single pixels or strong noise come out otherwise: the network hangs on the last bits there"

_SATURATED = "; where that is an x86 processor without VNNI: export on another one, or to onnx"

_TIMED = 5  # runs, in turn with the reference's


def verify(
    model: SpanNetwork,
    made: Converted,
    target: Target,
    precision: Precision,
    size: tuple[int, int] | None,
    paths: list[Path],
) -> Report:
    """Compare with our fp32 engine on photographs and on pictures made to provoke.

    Raises:
        EngineError: beyond `LIMITS`, or the runtime failed.
    """
    reference = open_engine(model)
    compared = []
    lowest, furthest = LIMITS[precision]
    photographs, provocations = _photographs(size), _provocations(size)
    for name, picture in {**photographs, **provocations}.items():
        try:
            made_of_it = np.asarray(made.run(picture), np.float64)
        except Exception as error:  # whatever a runtime raises
            raise EngineError(f"{paths[0].name}: {made.runtime} does not run it: {error}") from error
        wanted = reference(picture).astype(np.float64)
        if made_of_it.shape != wanted.shape:
            raise EngineError(f"{paths[0].name}: {made.runtime} makes {made_of_it.shape} of it, not {wanted.shape}")
        if not np.isfinite(made_of_it).all():
            raise EngineError(
                f"{paths[0].name}: {made.runtime} makes what is no number of the picture {name!r}; not kept"
            )
        if target == "spandrel":  # which clips by itself; of the others it is part of what is compared
            made_of_it = made_of_it.clip(0, 1)
        row = Compared(name, psnr(255 * made_of_it, 255 * wanted), float(np.abs(made_of_it - wanted).max() * 255))
        compared.append(row)
        if (row.worst > furthest and name not in _OUTSIDE) or (name in photographs and row.psnr < lowest):
            raise EngineError(
                f"{paths[0].name}: in {made.runtime} the picture {name!r} differs by {row.worst:.2f} levels "
                f"({row.psnr:.1f} dB); {furthest:g} levels and, on photographs, {lowest:g} dB are the limit; not kept"
                + (_SATURATED if (target, precision) == ("openvino", "int8") else "")
            )
    limits = [_INT8] if precision == "int8" else [_OTHERWISE] if any(row.worst > furthest for row in compared) else []
    timed = max(photographs.values(), key=lambda picture: picture.size)
    seconds = np.array([[_seconds(made.run, timed), _seconds(reference, timed)] for _ in range(_TIMED + 1)])
    own, ours = np.median(seconds[1:], axis=0) * 1e3
    return Report(
        target,
        precision,
        tuple(paths),
        made.runtime,
        (*made.notes, *limits),
        tuple(compared),
        float(own),
        float(ours),
        (timed.shape[2], timed.shape[3]),
    )


def _seconds(run: Run | Engine, picture: Float32) -> float:
    begin = time.perf_counter()
    run(picture)
    return time.perf_counter() - begin


def _photographs(size: tuple[int, int] | None) -> dict[str, Float32]:
    """Bundled photographs, in uneven sizes if any are taken."""
    made = {}
    shapes = [size] if size else [(256, 256), (117, 91), (64, 173)]
    for path, (height, width) in zip(find_pictures(zoo.general_pictures()), shapes, strict=False):
        pixels = read_rgb8(path)
        fill = ((0, max(0, height - pixels.shape[0])), (0, max(0, width - pixels.shape[1])), (0, 0))
        made[path.stem] = _batch(np.pad(pixels, fill, "symmetric")[:height, :width] / 255)
    return made


def _provocations(size: tuple[int, int] | None) -> dict[str, Float32]:
    """White, black, noise, checkers of one pixel: what finds an overflow, a wrong border or a wrong order of bands."""
    height, width = size or (45, 38)
    random = np.random.default_rng(0)
    checkers = np.indices((height, width)).sum(0)[..., None] % 2 * np.ones(3)
    made = {
        "white": np.ones((height, width, 3)),
        "black": np.zeros((height, width, 3)),
        "one colour": np.full((height, width, 3), (0.9, 0.1, 0.4)),
        "noise": random.random((height, width, 3)),
        "checkers": checkers,
    }
    if size is None:
        made["one pixel"] = np.full((1, 1, 3), (0.2, 0.5, 0.8))
    return {name: _batch(pixels) for name, pixels in made.items()}


def _batch(pixels: npt.NDArray[np.float64]) -> Float32:
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)
