"""Evaluate a model: PSNR and SSIM over a folder, by a named protocol."""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dsclora import files
from dsclora.engines import Engine
from dsclora.errors import DscloraError, ImageError
from dsclora.inference.strips import enlarge
from dsclora.pictures.arrays import Uint8
from dsclora.pictures.metrics import Protocol
from dsclora.pictures.pairs import Pair, read_pair


@dataclass(frozen=True)
class Score:
    """The scores of one picture.

    Attributes:
        name: the picture's name.
        psnr: in dB.
        ssim: 0..1; NaN for pictures below 11 pixels.
    """

    name: str
    psnr: float
    ssim: float


def as_published(engine: Engine, lr: Uint8) -> Uint8:
    """Enlarge a picture as the literature does: whole, with the network's zero borders, rounded to uint8."""
    return enlarge(engine, lr, border="zero", tile=max(lr.shape[:2]))


@dataclass(frozen=True)
class Measured:
    """A picture and its score: `lr` (h, w, 3), `sr` and `hr` (h * scale, w * scale, 3), uint8."""

    score: Score
    lr: Uint8
    sr: Uint8
    hr: Uint8


@dataclass(frozen=True)
class Failure:
    """A pair that could not be measured, and why."""

    pair: Pair
    error: str


def evaluate(
    run: Callable[[Uint8], Uint8], pairs: list[Pair], scale: int, protocol: Protocol, size: float = 1
) -> Iterator[Measured | Failure]:
    """Measure pairs, picture by picture.

    Args:
        run: LR (h, w, 3) to SR (h * scale, w * scale, 3), uint8; `as_published` with an engine, or anything to compare
            with.
        pairs: from `find_pairs`.
        scale: the factor of `run`.
        protocol: the rules to compute the figures by.
        size: the factor that originals are resized by, as for `read_pair`.
    """
    for pair in pairs:
        try:
            lr, hr = read_pair(pair, scale, size=size)
            if min(hr.shape[:2]) <= 2 * protocol.border:
                raise ImageError(f"{pair.hr}: nothing is left of it inside the protocol's border, {protocol.border}")
            sr = run(lr)
            yield Measured(Score(pair.name, *protocol.score(sr, hr)), lr, sr, hr)
        except DscloraError as error:
            yield Failure(pair, str(error))
        except MemoryError as error:
            yield Failure(pair, f"{pair.hr}: out of memory ({error or 'no more is given'})")


def scores(
    run: Callable[[Uint8], Uint8], pairs: list[Pair], scale: int, protocol: Protocol, size: float = 1
) -> list[Score]:
    """Score every picture as `evaluate` does, or none: a mean over some would mislead.

    Raises:
        ImageError: one cannot be measured.
    """
    results = []
    for one in evaluate(run, pairs, scale, protocol, size):
        if isinstance(one, Failure):
            raise ImageError(f"{one.pair.hr}: cannot be measured ({one.error})")
        results.append(one.score)
    return results


def mean(scores: list[Score]) -> tuple[float, float]:
    """Return mean PSNR and SSIM, as papers report them (the mean of the dB values).

    Raises:
        ValueError: no scores.
    """
    if not scores:
        raise ValueError("no scores to average")
    return float(np.mean([s.psnr for s in scores])), float(np.mean([s.ssim for s in scores]))


def write_csv(path: Path, scores: list[Score], overwrite: bool = False) -> None:
    """Write scores as `name,psnr,ssim` rows.

    Raises:
        OutputError: the target exists and `overwrite` is false, or cannot be written.
    """
    with (
        files.replacing(path, overwrite) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,  # as in the names
    ):
        rows = csv.writer(file)
        rows.writerow(["name", "psnr", "ssim"])
        rows.writerows([s.name, f"{s.psnr:.6f}", f"{s.ssim:.6f}"] for s in scores)
