"""Cut a picture into tiles for the network: integer arithmetic, no pixels.

A tile is a window that the network sees, and a core, the part of the result that is kept. The window reaches `halo`
beyond the core wherever the picture goes on. The network sees no further from there, so the cores put together equal
the result for the whole picture exactly.
"""

from dataclasses import dataclass
from math import lcm

_STEP = 32


@dataclass(frozen=True)
class Cut:
    """A window `[start, start + size)` along one axis, and the core `[core_start, core_end)` inside it."""

    start: int
    size: int
    core_start: int
    core_end: int


def cuts(length: int, tile: int, halo: int | None, multiple: int = 1) -> list[Cut]:
    """Cut one axis into windows of equal size whose cores cover it once.

    Args:
        length: the axis' length, > 0, a multiple of `multiple`.
        tile: the largest window.
        halo: the network's receptive radius; None for a network that sees everything.
        multiple: the number that every window's start and length divide by.

    Returns:
        the cuts in order: a single window of `length` when the axis fits into one, or the network sees everything.
        Otherwise as few windows as `tile` allows, all of the same size (engines compile for one shape), no larger than
        that number of them needs, up to a multiple of 32; the last one is moved back rather than cut short.

    Raises:
        ValueError: the tile leaves no core, or the length is no multiple.
    """
    if length < 1 or length % multiple:
        raise ValueError(f"length must be positive and a multiple of {multiple}, got {length}")
    if halo is None or length <= tile:
        return [Cut(0, length, 0, length)]
    halo += -halo % multiple  # then all that follows is a multiple
    tile -= tile % multiple
    if tile <= 2 * halo:
        raise ValueError(f"a tile of {tile} leaves no core between two halos of {halo}")
    number = -(-(length - 2 * halo) // (tile - 2 * halo))
    least = -(-(length - 2 * halo) // number) + 2 * halo
    size = min(tile, least + -least % lcm(_STEP, multiple))
    result: list[Cut] = []
    done = 0
    while done < length:
        start = min(max(0, done - halo), length - size)
        end = length if start + size == length else start + size - halo
        result.append(Cut(start, size, done, end))
        done = end
    return result


@dataclass(frozen=True)
class Plan:
    """The tiles of a picture: every pair of a row cut and a column cut.

    Attributes:
        rows, columns: the cuts along the height and the width.
    """

    rows: list[Cut]
    columns: list[Cut]


def plan(height: int, width: int, tile: tuple[int, int], halo: int | None, multiple: int = 1) -> Plan:
    """Cut a picture into tiles.

    Args:
        height, width: the picture's size in LR pixels.
        tile: the largest window, (height, width).
        halo, multiple: as for `cuts`.
    """
    return Plan(cuts(height, tile[0], halo, multiple), cuts(width, tile[1], halo, multiple))
