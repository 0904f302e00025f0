"""The tile plan: cores cover once, windows reach far enough, all of one size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsclora.inference.tiles import cuts, plan


@given(st.integers(1, 5000), st.integers(1, 40), st.data())
def test_cores_cover_once_and_windows_see_enough(length: int, halo: int, data: st.DataObject) -> None:
    tile = data.draw(st.integers(2 * halo + 1, 700))
    found = cuts(length, tile, halo)
    done = 0
    for cut in found:
        assert cut.size == found[0].size <= max(tile, 1)
        assert 0 <= cut.start <= cut.start + cut.size <= length
        assert cut.core_start == done < cut.core_end
        assert cut.start == 0 or cut.core_start - cut.start >= halo
        assert cut.start + cut.size == length or cut.start + cut.size - cut.core_end >= halo
        done = cut.core_end
    assert done == length
    least = 1 if length <= tile else -(-(length - 2 * halo) // (tile - 2 * halo))
    assert len(found) == least


def test_a_plan_by_hand() -> None:
    made = plan(100, 528, (512, 512), 21)
    assert made.window == (100, 288)  # 528 in two: (528 - 42) / 2 + 42 = 285, up to a multiple of 32
    assert [(c.start, c.core_start, c.core_end) for c in made.columns] == [(0, 0, 267), (240, 267, 528)]
    assert len(made) == len(list(made)) == 2


def test_refusals() -> None:
    with pytest.raises(ValueError, match="no core"):
        cuts(100, 42, 21)
    with pytest.raises(ValueError, match="positive"):
        cuts(0, 64, 21)
