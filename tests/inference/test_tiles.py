"""The tile plan: cores cover once, windows reach far enough, all of one size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsclora.inference.tiles import Cut, Plan, cuts, plan


@given(st.integers(1, 5000), st.integers(1, 40), st.sampled_from([1, 1, 2, 4, 7, 64]), st.data())
def test_cores_cover_once_and_windows_see_enough(length: int, halo: int, multiple: int, data: st.DataObject) -> None:
    length += -length % multiple
    reach = halo + -halo % multiple
    tile = data.draw(st.integers(2 * reach + multiple, 700))
    windows = cuts(length, tile, halo, multiple)
    done = 0
    for cut in windows:
        assert cut.size == windows[0].size <= tile
        assert cut.start % multiple == cut.size % multiple == 0
        assert 0 <= cut.start <= cut.start + cut.size <= length
        assert cut.core_start == done < cut.core_end
        assert cut.start == 0 or cut.core_start - cut.start >= halo
        assert cut.start + cut.size == length or cut.start + cut.size - cut.core_end >= halo
        done = cut.core_end
    assert done == length
    least = 1 if length <= tile else -(-(length - 2 * reach) // (tile - tile % multiple - 2 * reach))
    assert len(windows) == least


def test_a_plan_by_hand() -> None:
    tiles = plan(100, 528, (512, 512), 21)
    assert tiles.rows == [Cut(0, 100, 0, 100)]
    # 528 in two: (528 - 42) / 2 + 42 = 285, up to a multiple of 32
    assert tiles.columns == [Cut(0, 288, 0, 267), Cut(240, 288, 267, 528)]


def test_a_plan_in_multiples_by_hand() -> None:
    # a halo of 2 takes 4; (204 - 8) / 2 + 8 = 106, up to a multiple of 32 is more than the tile of 110, up to 4: 108
    assert cuts(204, 110, 2, multiple=4) == [Cut(0, 108, 0, 104), Cut(96, 108, 104, 204)]
    assert plan(1000, 999, (64, 64), None) == Plan([Cut(0, 1000, 0, 1000)], [Cut(0, 999, 0, 999)])


def test_refusals() -> None:
    with pytest.raises(ValueError, match="no core"):
        cuts(100, 42, 21)
    with pytest.raises(ValueError, match="positive"):
        cuts(0, 64, 21)
    with pytest.raises(ValueError, match="multiple of 4"):
        cuts(102, 64, 21, multiple=4)
