"""How good a model is: PSNR and SSIM over a folder, by a named protocol."""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dsclora import files, image
from dsclora.engines import Engine
from dsclora.enlarge import enlarge
from dsclora.errors import DscloraError, ImageError
from dsclora.metrics import Protocol
from dsclora.resize import crop_to_multiple, imresize

Uint8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Pair:
    """A picture to measure on.

    Attributes:
        name: stem shared by HR and LR.
        hr: file.
        lr: file, or None: then LR is made from HR by `imresize`.
    """

    name: str
    hr: Path
    lr: Path | None


@dataclass(frozen=True)
class Score:
    """Figures of one picture.

    Attributes:
        name: of the picture.
        psnr: dB.
        ssim: 0..1; NaN for pictures below 11 pixels.
    """

    name: str
    psnr: float
    ssim: float


def find_pairs(folder: Path, scale: int) -> list[Pair]:
    """The pictures of an evaluation folder.

    Args:
        folder: has `HR/` and, if it comes with LR pictures, `LRx{scale}/` with the same stems; or is itself a folder
            of HR pictures.
        scale: of the model.

    Raises:
        ImageError: no pictures, or an LR picture without its HR or the other way round (all named at once).
    """
    hr_folder = folder / "HR" if (folder / "HR").is_dir() else folder
    hr = _by_stem(hr_folder)
    lr_folder = folder / f"LRx{scale}"
    if hr_folder == folder or not lr_folder.is_dir():
        return [Pair(str(stem), path, None) for stem, path in hr.items()]
    lr = _by_stem(lr_folder)
    if hr.keys() != lr.keys():
        odd = ", ".join(sorted(str(s) for s in hr.keys() ^ lr.keys())[:10])
        raise ImageError(f"{folder}: HR/ and LRx{scale}/ do not hold the same names; only in one of them: {odd}")
    return [Pair(str(stem), hr[stem], lr[stem]) for stem in hr]


def _by_stem(folder: Path) -> dict[Path, Path]:
    found: dict[Path, Path] = {}
    for path in image.find(folder):
        stem = path.relative_to(folder).with_suffix("")
        if stem in found:
            raise ImageError(f"{path}: has the same name as {found[stem]}; keep one of them")
        found[stem] = path
    return found


def read_pair(pair: Pair, scale: int) -> tuple[Uint8, Uint8]:
    """LR and HR of a pair, (h, w, 3) and (h * scale, w * scale, 3); HR is cut to LR x scale, top left.

    Raises:
        ImageError: unreadable, or LR and HR do not fit each other.
    """
    hr = image.read_rgb8(pair.hr)
    if pair.lr is None:
        hr = crop_to_multiple(hr, scale)
        if 0 in hr.shape:
            raise ImageError(f"{pair.hr}: smaller than {scale} pixels")
        return imresize(hr, 1 / scale), hr
    lr = image.read_rgb8(pair.lr)
    height, width = lr.shape[0] * scale, lr.shape[1] * scale
    if not (0 <= hr.shape[0] - height < scale and 0 <= hr.shape[1] - width < scale):
        raise ImageError(
            f"{pair.lr}: {lr.shape[1]} x {lr.shape[0]} times {scale} is not {pair.hr}'s "
            f"{hr.shape[1]} x {hr.shape[0]}; is it the LR of another scale?"
        )
    return lr, hr[:height, :width]


def as_published(engine: Engine, lr: Uint8) -> Uint8:
    """The network's picture as the literature runs it: whole, its own zero borders, rounded to uint8."""
    return enlarge(engine, lr, border="zero", tile=max(lr.shape[:2])).astype(np.uint8, copy=False)


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
    run: Callable[[Uint8], Uint8], pairs: list[Pair], scale: int, protocol: Protocol
) -> Iterator[Measured | Failure]:
    """Measure, picture by picture.

    Args:
        run: LR (h, w, 3) to SR (h * scale, w * scale, 3), uint8; `as_published` with an engine, or anything to compare
            with.
        pairs: from `find_pairs`.
        scale: of `run`.
        protocol: how.
    """
    for pair in pairs:
        try:
            lr, hr = read_pair(pair, scale)
            if min(hr.shape[:2]) <= 2 * protocol.border:
                raise ImageError(f"{pair.hr}: nothing is left of it inside the protocol's border, {protocol.border}")
            sr = run(lr)
            yield Measured(Score(pair.name, *protocol.score(sr, hr)), lr, sr, hr)
        except DscloraError as error:
            yield Failure(pair, str(error))


def mean(scores: list[Score]) -> tuple[float, float]:
    """Mean PSNR and SSIM, as papers report them (the mean of the dB values).

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
    with files.replacing(path, overwrite) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["name", "psnr", "ssim"])
        rows.writerows([s.name, f"{s.psnr:.6f}", f"{s.ssim:.6f}"] for s in scores)
