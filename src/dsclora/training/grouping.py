"""Grouping of pictures that show the same, and the division of groups into training, validation and test.

Crops of one picture belong together. They are recognised by their pixels (areas of 64 x 64 that are equal in both,
which finds crops of lossless files and exact copies) and by numbered names (`0801_s001`, `0801_s002`; `scan7-1`,
`scan7-2`).
Crops of a JPEG that were stored as JPEG again and renamed are not recognised.
"""

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import DisjointSet

from dsclora.errors import ImageError
from dsclora.pictures.arrays import Uint8

_SIDE = 64  # smaller areas are equal in different pages of text
_DENSITY = 1024  # one area in so many is remembered
_SHARED = 0.15  # of the smaller sketch; running heads and margins of pages make less
_COMMON = 64  # areas that more different pictures share are ignored
_BAND = 512  # rows hashed at a time: 100 bytes of memory for each of their pixels
_NUMBERED = {  # names of crops of one picture: `0801_s001` gives `0801`, `IMG_0001` nothing
    "numbers": re.compile(r"(.*\d.*?)[-_ .(]+(?:[a-z]{0,5}\d+[-_x]?){1,3}\)?", re.IGNORECASE),
    "crops": re.compile(r"(.+)_s\d+"),
}
LEAST = 6
"""The least number of different pictures that can be divided."""

LEAST_HELD_OUT = 3
"""The least number of different pictures that can prove a gain."""


def sketch(picture: Uint8) -> npt.NDArray[np.uint64]:
    """Hash some of the 64 x 64 areas of a picture.

    Which areas are remembered depends on their pixels alone, so a crop remembers what the picture it is from does.

    Args:
        picture: (h, w, 3).

    Returns:
        hashes, ascending, about one for every thousand pixels; or one of the whole picture, where there would be none.
    """
    if min(picture.shape[:2]) >= _SIDE:
        bands = range(0, picture.shape[0] - _SIDE + 1, _BAND)
        hashes = np.unique(np.concatenate([_hashes(picture[top : top + _BAND + _SIDE - 1]) for top in bands]))
        if len(hashes):
            return hashes
    digest = hashlib.sha256(repr(picture.shape).encode() + picture.tobytes()).digest()
    return np.frombuffer(digest[:8], np.uint64)


def _hashes(picture: Uint8) -> npt.NDArray[np.uint64]:
    rgb = picture.astype(np.uint64)
    pixels = rgb[..., 0] * np.uint64(0x9E3779B97F4A7C15) + rgb[..., 1] * np.uint64(0xC2B2AE3D27D4EB4F) + rgb[..., 2]
    areas, flat = pixels, 1
    for multiplier in (0xD6E8FEB86659FD93, 0xA0761D6478BD642F):
        length = 1
        while length < _SIDE:  # polynomial hashes of windows, by doubling: 1, 2, 4 .. 64 pixels; then of the other axis
            areas = areas[:-length] + areas[length:] * np.uint64(pow(multiplier, length, 2**64))
            length *= 2
        areas = areas.T
        flat = flat * sum(pow(multiplier, n, 2**64) for n in range(_SIDE)) % 2**64
    mixed = (areas ^ (areas >> np.uint64(31))).ravel() * np.uint64(0x94D049BB133111EB)
    shows_something = (areas != pixels[: areas.shape[0], : areas.shape[1]] * np.uint64(flat)).ravel()  # not one colour
    kept: npt.NDArray[np.uint64] = mixed[(mixed % np.uint64(_DENSITY) == 0) & shows_something]
    return kept


def group(
    names: Sequence[str],
    sketches: Sequence[npt.NDArray[np.uint64]],
    by_name: Literal["numbers", "crops", "no"] = "numbers",
) -> list[list[int]]:
    """Put pictures that show the same together.

    Args:
        names: the names without suffix.
        sketches: the sketch of each, from `sketch`.
        by_name: the names that mark crops of one picture: all numbered ones, those of crops (`0801_s001`), or none.

    Returns:
        the groups, each a list of positions; in order of their first members.
    """
    together = DisjointSet(range(len(names)))
    if by_name != "no":
        first: dict[str, int] = {}
        for number, name in enumerate(names):
            if match := _NUMBERED[by_name].fullmatch(name):
                together.merge(number, first.setdefault(match[1], number))
    unique: dict[bytes, int] = {}
    for number, one in enumerate(sketches):
        if len(one):
            together.merge(number, unique.setdefault(one.tobytes(), number))
    for (a, b), count in _common_areas(sketches, sorted(unique.values())).items():
        if count >= _SHARED * min(len(sketches[a]), len(sketches[b])):
            together.merge(a, b)
    return sorted(sorted(members) for members in together.subsets())


def _common_areas(sketches: Sequence[npt.NDArray[np.uint64]], different: Sequence[int]) -> "Counter[tuple[int, int]]":
    """Count the areas that pairs of pictures have in common.

    Args:
        sketches: the sketches of all pictures.
        different: the numbers of those to count, no two of which have the same sketch.
    """
    hashes = np.concatenate([*(sketches[n] for n in different), np.zeros(0, np.uint64)])
    owners = np.repeat(different, [len(sketches[n]) for n in different])
    order = np.argsort(hashes, kind="stable")
    hashes, owners = hashes[order], owners[order]
    starts = np.flatnonzero(np.diff(hashes, prepend=~hashes[:1]))
    lengths = np.diff(starts, append=len(hashes))
    common: Counter[tuple[int, int]] = Counter()
    for run in np.flatnonzero((lengths >= 2) & (lengths <= _COMMON)):
        common.update(itertools.combinations(owners[starts[run] :][: lengths[run]].tolist(), 2))
    return common


def are_alike(groups: Sequence[Sequence[int]], least: int) -> bool:
    """Tell whether grouping by name is useless: fewer than `least` groups, or one group holds more than half."""
    return len(groups) < least or 2 * max(len(g) for g in groups) > sum(len(g) for g in groups)


def numbered(groups: Iterable[Sequence[int]], count: int) -> list[int]:
    """Return the number of the group of each of `count` positions."""
    numbers = [0] * count
    for number, members in enumerate(groups):
        for member in members:
            numbers[member] = number
    return numbers


def hold_out(groups: list[list[int]], share: float, most: int, seed: int) -> tuple[list[int], list[int], list[int]]:
    """Divide groups at random: positions to train on, to validate on (they choose the best weights) and to test on.

    At least four groups are held out, or three where there are fewer than eight: fewer prove nothing. Where eight or
    more are held out, other ones validate than test; else the last two lists are the same.

    Args:
        groups: from `group`.
        share: the share of the pictures to hold out.
        most: the most pictures to hold out; where the groups held out have more, only some of each are used.
        seed: the seed of the choice.

    Returns:
        the three lists, each in order.

    Raises:
        ImageError: fewer than six groups.
    """
    if len(groups) < LEAST:
        raise ImageError(
            f"{len(groups)} different pictures (crops of one count as one) are too few to train on some and judge by "
            f"others; at least {LEAST} are needed; add pictures, or name some to judge by with --valid"
        )
    room = min(most, round(share * sum(len(g) for g in groups)))
    order = np.random.default_rng(seed).permutation(len(groups)).tolist()
    held_out: list[int] = []
    for number in order:
        if sum(len(groups[n]) for n in (*held_out, number)) <= room and len(held_out) < len(groups) - 1:
            held_out.append(number)
    smallest = sorted((n for n in order if n not in held_out), key=lambda n: len(groups[n]))
    held_out += smallest[: max(0, (4 if len(groups) >= 8 else LEAST_HELD_OUT) - len(held_out))]
    train = sorted(n for number, g in enumerate(groups) if number not in held_out for n in g)
    used = [groups[n][: max(1, most // len(held_out))] for n in held_out]
    if len(used) < 8:
        test = sorted(n for g in used for n in g)
        return train, test, test
    return train, sorted(n for g in used[::2] for n in g), sorted(n for g in used[1::2] for n in g)
