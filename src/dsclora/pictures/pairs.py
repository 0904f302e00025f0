"""Read pairs of LR and HR pictures from folders, to measure and to train on."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dsclora.errors import ImageError
from dsclora.pictures.arrays import Uint8
from dsclora.pictures.read import find_pictures, read_rgb8
from dsclora.pictures.resize import crop_to_multiple, imresize


@dataclass(frozen=True)
class Pair:
    """A picture to measure or train on.

    Attributes:
        name: the stem of both files.
        hr: the HR file.
        lr: the LR file, or None: then `imresize` makes LR from HR.
    """

    name: str
    hr: Path
    lr: Path | None


def find_pairs(folder: Path, scale: int) -> list[Pair]:
    """Return the pairs of an evaluation folder.

    Args:
        folder: has `HR/` and, if it comes with LR pictures, `LRx{scale}/` with the same stems; or is itself a folder
            of HR pictures.
        scale: the model's factor.

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
        unpaired = ", ".join(sorted(str(s) for s in hr.keys() ^ lr.keys())[:10])
        raise ImageError(f"{folder}: HR/ and LRx{scale}/ do not hold the same names; only in one of them: {unpaired}")
    return [Pair(str(stem), hr[stem], lr[stem]) for stem in hr]


def _by_stem(folder: Path) -> dict[Path, Path]:
    by_stem: dict[Path, Path] = {}
    for path in find_pictures(folder):
        stem = path.relative_to(folder).with_suffix("")
        if stem in by_stem:
            raise ImageError(f"{path}: has the same name as {by_stem[stem]}; keep one of them")
        by_stem[stem] = path
    return by_stem


def read_pair(
    pair: Pair,
    scale: int,
    reduce: Callable[[Uint8], Uint8] | None = None,
    window: int | None = None,
    size: float = 1.0,
) -> tuple[Uint8, Uint8]:
    """Read LR and HR of a pair, (h, w, 3) and (h * scale, w * scale, 3); HR is cut to LR x scale, top left.

    Args:
        pair: the files.
        scale: HR side over LR side.
        reduce: makes LR where there is no file of it; by default `imresize`.
        window: side in HR pixels; of larger pictures only the middle is used.
        size: the factor that HR is first resized by. Unless it is 1, LR is made from HR even where there is a file.

    Raises:
        ImageError: unreadable, or LR and HR do not fit each other.
    """
    hr = read_rgb8(pair.hr)
    if size != 1:
        hr = imresize(hr, size)
    if pair.lr is None or size != 1:
        hr = crop_to_multiple(middle(hr, window), scale)
        if 0 in hr.shape:
            raise ImageError(f"{pair.hr}: smaller than {scale} pixels")
        return imresize(hr, 1 / scale) if reduce is None else reduce(hr), hr
    lr = read_rgb8(pair.lr)
    height, width = lr.shape[0] * scale, lr.shape[1] * scale
    if not (0 <= hr.shape[0] - height < scale and 0 <= hr.shape[1] - width < scale):
        raise ImageError(
            f"{pair.lr}: {lr.shape[1]} x {lr.shape[0]} times {scale} is not {pair.hr}'s "
            f"{hr.shape[1]} x {hr.shape[0]}; is it the LR of another scale?"
        )
    if window is not None:  # cut HR at the place where LR is cut: their middles may differ
        side = window // scale
        top, left = (max(0, length - side) // 2 for length in lr.shape[:2])
        lr, hr = lr[top : top + side, left : left + side], hr[top * scale :, left * scale :]
    return lr, hr[: lr.shape[0] * scale, : lr.shape[1] * scale]


def read_for_validation(
    pairs: Sequence[Pair],
    scale: int,
    border: int,
    reduce: Callable[[Uint8, int], Uint8] | None = None,
    window: int | None = None,
) -> Iterator[tuple[Uint8, Uint8]]:
    """Read LR and HR of pairs, as `read_pair`, one after the other.

    Args:
        pairs, scale, window: as `read_pair`.
        border: pixels that the protocol will cut from each side.
        reduce: as `open_store`.

    Raises:
        ImageError: a picture cannot be read, or nothing is left of it inside the border.
    """
    for number, pair in enumerate(pairs):
        lr, hr = read_pair(pair, scale, bind_number(reduce, number), window)
        if min(hr.shape[:2]) <= 2 * border:
            raise ImageError(f"{pair.hr}: too small to validate on")
        yield lr, hr


def bind_number(reduce: Callable[[Uint8, int], Uint8] | None, number: int) -> Callable[[Uint8], Uint8] | None:
    """Bind a picture's number to a reduction that takes one."""
    return None if reduce is None else lambda hr: reduce(hr, number)


def middle(picture: Uint8, side: int | None) -> Uint8:
    """Return the middle of a picture, at most `side` pixels high and wide; all of it for None."""
    if side is None:
        return picture
    top, left = (max(0, length - side) // 2 for length in picture.shape[:2])
    return picture[top : top + side, left : left + side]
