"""Pictures to train on and pictures to judge by, with nothing on both sides.

Crops of one picture belong together. They are told by their pixels (areas of 64 x 64 that are equal in both, which
finds crops of lossless files and exact copies) and by numbered names (`0801_s001`, `0801_s002`; `scan7-1`, `scan7-2`).
What was cropped from a JPEG, stored as JPEG again and renamed is not found.
"""

import itertools
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dsclora import image
from dsclora.errors import ImageError
from dsclora.pairs import Pair, middle

Uint8 = npt.NDArray[np.uint8]

_SIDE = 64  # smaller areas are equal in different pages of text
_DENSITY = 1024  # one area in so many is remembered
_SHARED = 0.15  # of the smaller sketch; running heads and margins of pages make less
_COMMON = 16  # areas found in more pictures than that say nothing


def sketch(picture: Uint8) -> npt.NDArray[np.uint64]:
    """Hashes of some of the 64 x 64 areas of a picture.

    Which areas are remembered depends on their pixels alone, so a crop remembers what the picture it is from does.

    Args:
        picture: (h, w, 3).

    Returns:
        hashes, ascending, about one for every thousand pixels; none for pictures below 64 pixels.
    """
    if min(picture.shape[:2]) < _SIDE:
        return np.zeros(0, np.uint64)
    rgb = picture.astype(np.uint64)
    areas = rgb[..., 0] * np.uint64(0x9E3779B97F4A7C15) + rgb[..., 1] * np.uint64(0xC2B2AE3D27D4EB4F) + rgb[..., 2]
    for multiplier in (0xD6E8FEB86659FD93, 0xA0761D6478BD642F):
        length = 1
        while length < _SIDE:  # polynomial hashes of windows, by doubling: 1, 2, 4 .. 64 pixels; then of the other axis
            areas = areas[:-length] + areas[length:] * np.uint64(pow(multiplier, length, 2**64))
            length *= 2
        areas = areas.T
    mixed = (areas ^ (areas >> np.uint64(31))).ravel() * np.uint64(0x94D049BB133111EB)
    return np.unique(mixed[mixed % np.uint64(_DENSITY) == 0])


def group(names: Sequence[str], sketches: Sequence[npt.NDArray[np.uint64]], by_name: bool = True) -> list[list[int]]:
    """Which pictures belong together.

    Args:
        names: without suffix.
        sketches: of each, from `sketch`.
        by_name: numbered names count too.

    Returns:
        the groups, each a list of positions; in order of their first members.
    """
    parent = list(range(len(names)))

    def root(n: int) -> int:
        while parent[n] != n:
            parent[n] = n = parent[parent[n]]
        return n

    if by_name:
        first: dict[str, int] = {}
        for number, name in enumerate(names):
            stem = _series(name)
            if stem is not None:
                parent[root(number)] = root(first.setdefault(stem, number))
    hashes = np.concatenate([*sketches, np.zeros(0, np.uint64)])
    owners = np.repeat(np.arange(len(sketches)), [len(s) for s in sketches])
    order = np.argsort(hashes, kind="stable")
    starts = np.flatnonzero(np.diff(hashes[order], prepend=np.uint64(0))) if len(hashes) else order
    common: Counter[tuple[int, int]] = Counter()
    for same in np.split(owners[order], starts):
        if 2 <= len(same) <= _COMMON:
            common.update(itertools.combinations(same.tolist(), 2))
    for (a, b), count in common.items():
        if count >= _SHARED * min(len(sketches[a]), len(sketches[b])):
            parent[root(b)] = root(a)
    groups: dict[int, list[int]] = {}
    for number in range(len(names)):
        groups.setdefault(root(number), []).append(number)
    return sorted(groups.values())


def _series(name: str) -> str | None:
    """What numbered crops of one picture have in common, or None: `0801_s001` gives `0801`, `IMG_0001` nothing."""
    found = re.fullmatch(r"(.*\d.*?)[-_ .(]+(?:[a-z]{0,5}\d+[-_x]?){1,3}\)?", name, re.IGNORECASE)
    return found[1] if found else None


def hold_out(groups: list[list[int]], share: float, most: int, seed: int) -> tuple[list[int], list[int], list[int]]:
    """Divide groups at random: positions to train on, to choose the best weights by, and to judge by.

    Args:
        groups: from `group`.
        share: of the pictures to hold out, at least one group and at least one to train on.
        most: pictures to hold out.
        seed: of the choice.

    Returns:
        the three lists, each in order. With fewer than four groups held out the last two are the same.

    Raises:
        ImageError: fewer than two groups.
    """
    if len(groups) < 2:
        raise ImageError("all pictures look like parts of one; add others, or name pictures to judge by with --valid")
    count = sum(len(g) for g in groups)
    wanted = min(most, max(1, round(share * count)))
    held: list[list[int]] = []
    for number in np.random.default_rng(seed).permutation(len(groups)).tolist():
        size = sum(len(g) for g in held)
        if len(held) < len(groups) - 1 and (not held or size + len(groups[number]) <= max(wanted, 1)):
            held.append(groups[number])
        if size >= wanted:
            break
    train = sorted(n for g in groups if g not in held for n in g)
    if len(held) < 4:
        judge = sorted(n for g in held for n in g)
        return train, judge, judge
    return train, sorted(n for g in held[::2] for n in g), sorted(n for g in held[1::2] for n in g)


def sketches_of(
    pairs: Sequence[Pair], window: int | None = None
) -> tuple[list[Pair], list[npt.NDArray[np.uint64]], list[str]]:
    """The pairs whose HR can be read, their sketches, and what is wrong with the others.

    Args:
        pairs: from `find_pairs`.
        window: only the middle of larger pictures is looked at, so many HR pixels high and wide.
    """
    readable, sketches, problems = [], [], []
    for pair in pairs:
        try:
            sketches.append(sketch(middle(image.read_rgb8(pair.hr), window)))
            readable.append(pair)
        except ImageError as error:
            problems.append(str(error))
    return readable, sketches, problems
