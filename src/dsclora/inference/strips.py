"""Enlarge a picture tile by tile, in strips, exactly as the network enlarges the whole."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import lcm
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from dsclora.engines import DTYPES, CroppingEngine, Engine
from dsclora.errors import OutOfMemoryError
from dsclora.inference import tiles
from dsclora.pictures.arrays import Pixels

Border = Literal["reflect", "zero"]

SMALLEST_TILE = 64

_SMALLEST_CORE = 22  # the side of a tile's core, for any network; SPAN's core in the smallest tile has it

BORDER_PIXELS = 8
"""How far a picture is continued by reflection. From 4 on a white picture stays white; from 8 on no value moves by more
than one level against the full 21 (official C = 26 weights, a photograph of 256 x 256)."""

_STRIP_BYTES = 192 * 2**20

_SHAPE_STEP = 16  # engines that compile for a shape get multiples of it, so that pictures of similar size share one

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # BT.601; weights of a grey result from the network's three bands


@dataclass(frozen=True)
class Source:
    """A picture to be read row by row.

    Attributes:
        rows: `rows(y, count)` gives (count, width, bands); asked from top to bottom, no row twice.
        height, width: in pixels.
        bands: one or three colours, plus one if `alpha`.
        alpha: whether the last band is transparency.
        dtype: uint8, uint16, or float32 in 0..1.
    """

    rows: Callable[[int, int], Pixels]
    height: int
    width: int
    bands: int
    alpha: bool
    dtype: np.dtype[Any]


def strips(
    engine: Engine,
    source: Source,
    border: Border,
    tile: int | None = None,
    report: Callable[[int, int], None] = lambda _, __: None,
) -> Iterator[Pixels]:
    """Enlarge a picture in memory bounded by the tile and the picture's width.

    Args:
        engine: the engine that enlarges.
        source: the picture.
        border: how the picture goes on beyond its edges: "reflect", or "zero" for the network's own behaviour.
        tile: largest window side in input pixels, by default the engine's; the result does not depend on it. Less than
            `smallest_tile` is taken for that.
        report: called with the number of input pixels done, and of all.

    Yields:
        (n, width * scale, bands) from top to bottom, dtype as the source's.

    Raises:
        OutOfMemoryError: a smaller tile may fit.
        EngineError: the runtime failed.
    """
    if border not in get_args(Border):
        raise ValueError(f"border: choose {' or '.join(get_args(Border))}, not {border!r}")
    tile = max(tile or engine.tile, smallest_tile(engine))
    try:
        yield from _strips(engine, source, border, tile, report)
    except (MemoryError, OutOfMemoryError) as error:
        if engine.halo is None:
            raise OutOfMemoryError(
                f"out of memory with {source.width} x {source.height} pixels, which cannot be cut into tiles, as this "
                "network sees the whole picture; reduce it first"
            ) from error
        if isinstance(error, OutOfMemoryError):
            raise
        raise OutOfMemoryError(f"out of memory with tiles of {tile}") from error


def smallest_tile(engine: Engine) -> int:
    """Return the side of the smallest window that is of use to an engine: `SMALLEST_TILE`, or what its halo needs."""
    multiple = engine.multiple
    halo = engine.halo or 0
    least = max(SMALLEST_TILE, 2 * (halo + -halo % multiple) + _SMALLEST_CORE)
    return least + -least % multiple


def _strips(
    engine: Engine, source: Source, border: Border, tile: int, report: Callable[[int, int], None]
) -> Iterator[Pixels]:
    scale, halo, multiple = engine.scale, engine.halo, engine.multiple
    # the source row and column of each row and column of the extended picture, and the range of the picture in them
    step = multiple if isinstance(engine, CroppingEngine) else lcm(_SHAPE_STEP, multiple)
    row_index, rows_inside = continued(source.height, border, multiple, step)
    column_index, columns_inside = continued(source.width, border, multiple, step)
    strip_row = source.width * source.bands * source.dtype.itemsize
    # grey and transparency become three bands of float32 and back one; a window is no wider than a tile
    window_row = min(source.width, tile) * 16 if source.alpha or source.bands == 1 else 0
    rows_at_once = _STRIP_BYTES // (max(strip_row, window_row) * scale * scale)
    tile_height = max(smallest_tile(engine), min(tile, rows_at_once + 2 * (halo or 0)))
    plan = tiles.plan(len(row_index), len(column_index), (tile_height, tile), halo, multiple)

    buffer = np.empty((0, source.width, source.bands), source.dtype)
    first = 0  # the picture's row at the start of the buffer
    for row in plan.rows:
        rows = row_index[row.start : row.start + row.size]
        still_needed = int(row_index[row.start :].min())
        unread = int(rows.max()) + 1 - (first + len(buffer))
        buffer = buffer[still_needed - first :]
        if unread > 0:
            buffer = np.concatenate([buffer, source.rows(still_needed + len(buffer), unread)])
        first = still_needed
        window = _continue_columns(buffer[rows - first], column_index, columns_inside)

        top, bottom = _inside(row, rows_inside)
        strip = np.empty(((bottom - top) * scale, source.width * scale, source.bands), source.dtype)
        for column in plan.columns:
            left, right = _inside(column, columns_inside)
            if top == bottom or left == right:
                continue
            core = _Core(top - row.start, bottom - row.start, left - column.start, right - column.start)
            target = strip[:, (left - columns_inside[0]) * scale : (right - columns_inside[0]) * scale]
            _run(engine, window[:, column.start : column.start + column.size], source.alpha, core, target)
            done = (top - rows_inside[0]) * source.width + (bottom - top) * (right - columns_inside[0])
            report(done, source.height * source.width)
        if len(strip):
            yield strip
        del strip  # free it before the next one is made


def continued(
    length: int, border: Border, multiple: int = 1, step: int = 1
) -> tuple[npt.NDArray[np.intp], tuple[int, int]]:
    """Continue an axis of a picture beyond its ends, for the network.

    Args:
        length: the axis' length in pixels.
        border: how the picture goes on beyond its edges.
        multiple: the result's length must divide by it; whatever the border, reflection at the end makes up for it.
        step: with the border "reflect", the result's length divides by it too.

    Returns:
        the position in the picture of each pixel of the new axis, and the range of the new axis that is the picture.
    """
    before, after = 0, -length % multiple
    if border == "reflect":
        before = BORDER_PIXELS
        after = BORDER_PIXELS + -(length + 2 * BORDER_PIXELS) % step
    index = np.pad(np.arange(length), (before, after), "reflect")
    return index, (before, before + length)


def _inside(cut: tiles.Cut, picture: tuple[int, int]) -> tuple[int, int]:
    """Return the part of a core that lies in the picture."""
    low, high = (min(max(p, picture[0]), picture[1]) for p in (cut.core_start, cut.core_end))
    return low, high


def _continue_columns(rows: Pixels, index: npt.NDArray[np.intp], inside: tuple[int, int]) -> Pixels:
    """Return `rows[:, index]`, whose part `inside` is the rows themselves."""
    if inside == (0, len(index)):
        return rows
    return np.concatenate([rows[:, index[: inside[0]]], rows, rows[:, index[inside[1] :]]], axis=1)


@dataclass(frozen=True)
class _Core:
    """The part of a window that is kept, as a range of its rows and columns."""

    top: int
    bottom: int
    left: int
    right: int

    def of(self, window: Pixels, scale: int = 1) -> Pixels:
        """Return the core of a window that was enlarged by `scale`."""
        return window[self.top * scale : self.bottom * scale, self.left * scale : self.right * scale]


def _run(engine: Engine, window: Pixels, alpha: bool, core: _Core, target: Pixels) -> None:
    """Enlarge the core of a window (h, w, bands) into `target`: colours together, alpha by itself."""
    if alpha:
        _run(engine, window[..., :-1], False, core, target[..., :-1])
        _run_alpha(engine, window[..., -1:], core, target[..., -1:])
    elif window.shape[2] == 1:
        _run_grey(engine, window, core, target)
    elif isinstance(engine, CroppingEngine):
        engine.enlarge_crop(window, target, core.top, core.left)
    else:
        target[...] = core.of(_run_whole(engine, window), engine.scale)


def _run_whole(engine: Engine, window: Pixels) -> Pixels:
    enlarged: Pixels = engine(window.transpose(2, 0, 1)[None])[0].transpose(1, 2, 0)
    return enlarged


def _run_grey(engine: Engine, window: Pixels, core: _Core, target: Pixels) -> None:
    """Enlarge one band as three of float32, and weight them back to one: a grey picture stays grey."""
    peak = np.float32(1 if window.dtype == np.float32 else np.iinfo(window.dtype).max)
    planes = np.broadcast_to(window.astype(np.float32) / peak, (*window.shape[:2], 3))
    if isinstance(engine, CroppingEngine):
        large = np.empty((*target.shape[:2], 3), np.float32)
        engine.enlarge_crop(planes, large, core.top, core.left)
        grey = large @ _LUMA
    else:
        grey = core.of(_run_whole(engine, planes) @ _LUMA, engine.scale)
    # the weights may sum to a hair more than one
    target[..., 0] = np.clip(grey, 0, 1) if window.dtype == np.float32 else np.rint(grey * peak)


def _run_alpha(engine: Engine, window: Pixels, core: _Core, target: Pixels) -> None:
    """Enlarge transparency; where it is flat it stays exactly what it is, so that opaque stays opaque."""
    if (window == window[0, 0]).all():
        target[...] = window[0, 0]
        return
    _run(engine, window, False, core, target)
    around = np.pad(window, ((1, 1), (1, 1), (0, 0)), "edge")
    neighbours = np.lib.stride_tricks.sliding_window_view(around, (3, 3), axis=(0, 1))
    flat = core.of(neighbours.min(axis=(3, 4)) == neighbours.max(axis=(3, 4)))
    flat, exact = (a.repeat(engine.scale, 0).repeat(engine.scale, 1) for a in (flat, core.of(window)))
    np.copyto(target, exact, where=flat)


def enlarge(
    engine: Engine, pixels: Pixels, *, alpha: bool = False, border: Border = "reflect", tile: int | None = None
) -> Pixels:
    """Enlarge a picture in memory.

    Args:
        engine: the engine that enlarges.
        pixels: (h, w, bands), uint8, uint16, or float32 in 0..1; one or three colours, then alpha if `alpha`.
        alpha: whether the last band is transparency.
        border, tile: see `strips`.

    Returns:
        (h * scale, w * scale, bands) of the same dtype.

    Raises:
        ValueError: another shape or dtype.
        EngineError: the runtime failed.
    """
    if pixels.ndim != 3 or pixels.shape[2] - alpha not in (1, 3) or 0 in pixels.shape:
        raise ValueError(f"expected (h, w, 1 or 3 colours{' + alpha' if alpha else ''}), got {pixels.shape}")
    if pixels.dtype not in DTYPES:
        raise ValueError(f"expected uint8, uint16 or float32, got {pixels.dtype}")

    def rows(y: int, count: int) -> Pixels:
        return pixels[y : y + count]

    source = Source(rows, pixels.shape[0], pixels.shape[1], pixels.shape[2], alpha, pixels.dtype)
    parts = list(strips(engine, source, border, tile))
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
