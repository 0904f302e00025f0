"""Pairs of LR and HR pictures."""

from pathlib import Path

import numpy as np
import pytest

from dsclora.pictures.pairs import find_pairs, read_pair
from helpers import photo, save


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("extra", [0, 1])
def test_the_middle_of_a_pair_stays_a_pair(tmp_path: Path, scale: int, extra: int) -> None:
    lr = photo(33 + extra, 46 + extra)
    save(tmp_path / "HR" / "p.png", lr.repeat(scale, 0).repeat(scale, 1))
    save(tmp_path / f"LRx{scale}" / "p.png", lr)
    small, large = read_pair(find_pairs(tmp_path, scale)[0], scale, window=20 * scale + 1)
    assert small.shape == (20, 20, 3)
    assert np.array_equal(small.repeat(scale, 0).repeat(scale, 1), large)
