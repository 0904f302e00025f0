"""Show pictures side by side, whole and in detail."""

import html
import os
from pathlib import Path

import numpy as np
import pyvips

from dsclora import files
from dsclora.errors import OutputError
from dsclora.pictures.arrays import Uint8
from dsclora.pictures.resize import imresize

_GAP = 8
_LABEL = 28


def find_detail(lr: Uint8, side: int) -> tuple[int, int]:
    """Return the top left corner (y, x) of the window with most detail: the largest sum of gradients.

    Args:
        lr: (h, w, 3).
        side: the window's side, at most the picture's shorter side.
    """
    grey = lr.astype(np.float64).mean(axis=2)
    energy = np.abs(np.diff(grey, axis=0, append=grey[-1:])) + np.abs(np.diff(grey, axis=1, append=grey[:, -1:]))
    total = np.pad(energy.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    window = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    y, x = np.unravel_index(int(window.argmax()), window.shape)
    return int(y), int(x)


def details(lr: Uint8, pictures: list[Uint8], side: int = 64) -> list[Uint8]:
    """Cut the same detail from several enlargements of one picture, and first from its bicubic enlargement.

    Args:
        lr: (h, w, 3).
        pictures: (h * scale, w * scale, 3) each.
        side: the detail's side, in LR pixels.

    Returns:
        (side * scale, side * scale, 3) each.
    """
    side = min(side, *lr.shape[:2])
    scale = pictures[0].shape[0] // lr.shape[0]
    y, x = (n * scale for n in find_detail(lr, side))
    window = slice(y, y + side * scale), slice(x, x + side * scale)
    return [p[window].copy() for p in (imresize(lr, scale), *pictures)]  # not a view, which would keep the whole


def write_grid(path: Path, rows: list[list[Uint8]], labels: list[str], overwrite: bool = False) -> None:
    """Write pictures in rows and columns under column labels, as PNG.

    Args:
        path: target.
        rows: one list of (h, w, 3) each; widths may differ from row to row.
        labels: the names of the columns.
        overwrite: replace an existing file.

    Raises:
        OutputError: no rows, or the target cannot be written.
    """
    if not rows:
        raise OutputError(f"{path}: nothing to show")
    column = max(p.shape[1] for row in rows for p in row)
    pixels = [_label_row(labels, column)] + [_row(row, column) for row in rows]
    with files.replacing(path, overwrite) as temporary:
        image = pyvips.Image.new_from_array(np.concatenate(pixels), interpretation="srgb")
        image.write_to_target(pyvips.Target.new_to_file(os.fsencode(temporary)), ".png[compression=6,filter=sub]")


def _row(pictures: list[Uint8], column: int) -> Uint8:
    height = max(p.shape[0] for p in pictures)
    row = np.full((height + _GAP, len(pictures) * (column + _GAP), 3), 255, np.uint8)
    for number, picture in enumerate(pictures):
        left = number * (column + _GAP) + _GAP // 2
        row[_GAP // 2 : _GAP // 2 + picture.shape[0], left : left + picture.shape[1]] = picture
    return row


def _label_row(labels: list[str], column: int) -> Uint8:
    row = np.full((_LABEL, len(labels) * (column + _GAP), 3), 255, np.uint8)
    for number, label in enumerate(labels):
        label = label.encode("utf-8", "backslashreplace").decode()  # a name may be of any bytes
        try:
            ink = pyvips.Image.text(html.escape(label, quote=False), font="sans 13", dpi=72).numpy()
        except pyvips.Error:  # no fonts on this machine: a grid without labels is still a grid
            continue
        left = number * (column + _GAP) + _GAP // 2
        ink = ink[: _LABEL - 4, :column]
        row[4 : 4 + ink.shape[0], left : left + ink.shape[1]] = 255 - ink[..., None]
    return row
