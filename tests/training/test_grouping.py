"""What belongs together stays together: crops by their pixels, numbered crops by their names."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsclora.errors import ImageError
from dsclora.training import grouping
from dsclora.training.grouping import LEAST_HELD_OUT, group, hold_out, sketch
from helpers import photo


def noise(height: int, width: int, seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_crops_are_told_by_their_pixels() -> None:
    whole, other = noise(400, 500, 0), noise(400, 500, 1)
    crops = [whole, other, whole[37:237, 151:391], whole[:, 300:], other[100:200, 100:220]]
    assert group(list("abcde"), [sketch(c) for c in crops]) == [[0, 2, 3], [1, 4]]


def test_pages_of_one_look_are_not_one_picture() -> None:
    pages = [np.full((300, 300, 3), 255, np.uint8) for _ in range(4)]
    for number, page in enumerate(pages):
        page[20:30, 40:260] = 0  # the same heading
        page[60:280, 20:280] = photo(220, 260, seed=number)
    assert len(group(list("abcd"), [sketch(p) for p in pages])) == 4


@pytest.mark.parametrize("level", [0, 183])  # grounds whose areas are among those remembered
def test_small_pictures_on_one_ground_are_not_one_picture(level: int) -> None:
    pictures = [np.full((128, 128, 3), level, np.uint8) for _ in range(9)]
    for number, picture in enumerate(pictures):
        picture[80:120, 80:120] = photo(40, 40, seed=number)
    assert len(group(list("abcdefghi"), [sketch(p) for p in pictures])) == 9


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["0801_s001", "0801_s002", "0802_s001"], 2),
        (["scan7-1", "scan7-2", "scan8-1"], 2),
        (["IMG_0001", "IMG_0002", "IMG_0003"], 3),
        (["0001", "0002", "cat", "dog"], 4),
        (["p1 (1)", "p1 (2)"], 1),
    ],
)
def test_numbered_names(names: list[str], groups: int) -> None:
    none = [np.zeros(0, np.uint64)] * len(names)
    assert len(group(names, none)) == groups
    assert len(group(names, none, by_name="no")) == len(names)


def test_names_that_say_they_are_crops_are_always_believed() -> None:
    names = ["0801_s001", "0801_s002", "ep7_001", "ep7_002"]
    assert len(group(names, [np.zeros(0, np.uint64)] * 4, by_name="crops")) == 3


@given(
    st.lists(st.integers(1, 9), min_size=6, max_size=60), st.floats(0.05, 0.6), st.integers(1, 40), st.integers(0, 9)
)
def test_nothing_is_on_both_sides(sizes: list[int], share: float, most: int, seed: int) -> None:
    positions = iter(range(sum(sizes)))
    groups = [[next(positions) for _ in range(size)] for size in sizes]
    train, choose, judge = hold_out(groups, share, most, seed)
    assert train
    assert choose
    assert judge
    side = {n: name for name, part in (("train", train), ("held", choose + judge)) for n in part}
    assert all(len({side.get(n) for n in g} - {None}) <= 1 for g in groups)
    assert choose == judge or not set(choose) & set(judge)
    assert hold_out(groups, share, most, seed) == (train, choose, judge)
    rest = {n for n in range(sum(sizes)) if n not in train}
    assert {*choose, *judge} <= rest
    assert len({*choose, *judge}) <= max(most, 4)
    of_group = {n: number for number, g in enumerate(groups) for n in g}
    assert len({of_group[n] for n in (*choose, *judge)}) >= (4 if len(groups) >= 8 else LEAST_HELD_OUT)
    if choose != judge:
        assert len({of_group[n] for n in judge}) >= 4


def test_few_pictures_cannot_be_divided() -> None:
    with pytest.raises(ImageError, match=r"5 different pictures .* --valid"):
        hold_out([[0, 1, 2], [3], [4], [5], [6]], 0.2, 40, 0)


def test_many_copies_of_one_picture_are_one_picture() -> None:
    """However common its areas are."""
    copied, others = noise(200, 200, 0), [noise(200, 200, 1 + n) for n in range(5)]
    sketches = [sketch(p) for p in [copied] * 100 + others]
    assert [len(g) for g in group([f"x{chr(97 + n)}" for n in range(105)], sketches)] == [100, 1, 1, 1, 1, 1]


def test_small_pictures_are_told_by_all_of_their_pixels() -> None:
    icons = [noise(20, 63, n) for n in (0, 1, 0)]
    assert group(list("abc"), [sketch(i) for i in icons]) == [[0, 2], [1]]


def test_a_sketch_is_the_same_whatever_bands_it_is_made_in(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = noise(700, 100, 0)
    whole = sketch(picture)
    monkeypatch.setattr(grouping, "_BAND", 100)
    assert np.array_equal(sketch(picture), whole)
