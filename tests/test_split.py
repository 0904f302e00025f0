"""What belongs together stays together: crops by their pixels, numbered crops by their names."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import photo
from dsclora.errors import ImageError
from dsclora.split import group, hold_out, sketch


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
    assert len(group(names, none, by_name=False)) == len(names)


@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=60), st.floats(0.05, 0.6), st.integers(1, 40), st.integers(0, 9)
)
def test_nothing_is_on_both_sides(sizes: list[int], share: float, most: int, seed: int) -> None:
    positions = iter(range(sum(sizes)))
    groups = [[next(positions) for _ in range(size)] for size in sizes]
    train, choose, judge = hold_out(groups, share, most, seed)
    assert train
    assert choose
    assert judge
    assert sorted({*train, *choose, *judge}) == list(range(sum(sizes)))
    side = {n: name for name, part in (("train", train), ("held", choose + judge)) for n in part}
    assert all(len({side[n] for n in g}) == 1 for g in groups)
    assert choose == judge or not set(choose) & set(judge)
    assert hold_out(groups, share, most, seed) == (train, choose, judge)
    if max(sizes) == 1:
        assert len({*choose, *judge}) <= max(1, min(most, round(share * len(sizes))))


def test_one_picture_cannot_be_divided() -> None:
    with pytest.raises(ImageError, match="--valid"):
        hold_out([[0, 1, 2]], 0.2, 40, 0)
