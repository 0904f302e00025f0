"""How a picture is cut for the network: integer arithmetic, no pixels.

A tile is a window that the network sees and a core that is kept of what it makes. The window reaches `halo` beyond the
core wherever the picture goes on, which is all that the network can see from there, so the cores put together are
exactly what the network would make of the whole picture.
"""

from collections.abc import Iterator
from dataclasses import dataclass

_STEP = 32


@dataclass(frozen=True)
class Cut:
    """Along one axis: the window `[start, start + size)` and the core `[core_start, core_end)` inside it."""

    start: int
    size: int
    core_start: int
    core_end: int


def cuts(length: int, tile: int, halo: int) -> list[Cut]:
    """Cut one axis into windows of equal size whose cores cover it once.

    Args:
        length: of the axis, > 0.
        tile: largest window.
        halo: how far the network sees.

    Returns:
        in order; a single window of `length` when the axis fits into one. Otherwise as few windows as `tile` allows,
        all of the same size (engines compile for one shape), no larger than that number of them needs, up to a
        multiple of 32; the last one is moved back rather than cut short.

    Raises:
        ValueError: the tile leaves no core.
    """
    if length < 1:
        raise ValueError(f"length must be positive, got {length}")
    if length <= tile:
        return [Cut(0, length, 0, length)]
    if tile <= 2 * halo:
        raise ValueError(f"a tile of {tile} leaves no core between two halos of {halo}")
    number = -(-(length - 2 * halo) // (tile - 2 * halo))
    least = -(-(length - 2 * halo) // number) + 2 * halo
    size = min(tile, least + -least % _STEP)
    found: list[Cut] = []
    done = 0
    while done < length:
        start = min(max(0, done - halo), length - size)
        end = length if start + size == length else start + size - halo
        found.append(Cut(start, size, done, end))
        done = end
    return found


@dataclass(frozen=True)
class Plan:
    """Tiles of a picture: every pair of a row cut and a column cut.

    Attributes:
        rows, columns: the cuts along the height and the width.
    """

    rows: list[Cut]
    columns: list[Cut]

    def __iter__(self) -> Iterator[tuple[Cut, Cut]]:
        """Row by row, left to right."""
        return ((row, column) for row in self.rows for column in self.columns)

    def __len__(self) -> int:
        """How many tiles."""
        return len(self.rows) * len(self.columns)

    @property
    def window(self) -> tuple[int, int]:
        """Height and width of every window."""
        return self.rows[0].size, self.columns[0].size


def plan(height: int, width: int, tile: tuple[int, int], halo: int) -> Plan:
    """Cut a picture into tiles.

    Args:
        height, width: of the picture, in LR pixels.
        tile: largest window, (height, width).
        halo: receptive radius of the network.
    """
    return Plan(cuts(height, tile[0], halo), cuts(width, tile[1], halo))
