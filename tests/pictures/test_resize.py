"""`imresize` against MATLAB's own files and against values that can be worked out by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsclora.pictures.read import read_rgb8
from dsclora.pictures.resize import crop_to_multiple, imresize
from helpers import photo


@pytest.mark.slow
def test_every_benchmark_lr_bit_for_bit(shared: Path) -> None:
    files = sorted((shared / "data" / "bench").glob("*/LRx*/*"))
    assert len(files) == 5 * 3 + 14 * 3 + 100
    for path in files:
        scale = int(path.parent.name.removeprefix("LRx"))
        lr, hr = read_rgb8(path), read_rgb8(path.parents[1] / "HR" / path.name)
        hr = hr[: lr.shape[0] * scale, : lr.shape[1] * scale]
        assert np.array_equal(imresize(hr, 1 / scale), lr), path


def test_a_step_doubled_by_hand() -> None:
    # Keys' kernel at distances .25, .75, 1.25, 1.75: 0.8671875, 0.2265625, -0.0703125, -0.0234375
    step = np.array([[0, 0, 0, 100, 100, 100]], np.uint8)
    row = imresize(np.repeat(step, 4, 0), 2)[0]
    # just left of the step: 0.2265625 - 0.0234375 = 0.203 of it; right: the rest; then 1 + 0.0703125, 1 + 0.0234375
    assert row.tolist() == [0, 0, 0, 0, 0, 20, 80, 107, 102, 100, 100, 100]


@given(
    st.integers(1, 40), st.integers(1, 40), st.sampled_from([1 / 2, 1 / 3, 1 / 4, 2, 3, 4, 0.7]), st.integers(0, 255)
)
def test_flat_stays_flat_and_sides_are_rounded_up(height: int, width: int, scale: float, value: int) -> None:
    result = imresize(np.full((height, width, 3), value, np.uint8), scale)
    assert result.shape == (int(np.ceil(height * scale)), int(np.ceil(width * scale)), 3)
    assert (result == value).all()


def test_grey_equals_a_band() -> None:
    colour = photo(20, 24)
    assert np.array_equal(imresize(colour[..., 1], 0.25), imresize(colour, 0.25)[..., 1])


def test_crop_to_multiple() -> None:
    assert crop_to_multiple(np.zeros((11, 12, 3), np.uint8), 4).shape == (8, 12, 3)


@pytest.mark.parametrize(("pixels", "scale"), [(np.zeros((4, 4)), 2.0), (np.zeros(4, np.uint8), 2.0)])
def test_wrong_input(pixels: npt.NDArray[Any], scale: float) -> None:
    with pytest.raises(ValueError, match="uint8"):
        imresize(pixels, scale)
    with pytest.raises(ValueError, match="positive"):
        imresize(np.zeros((4, 4), np.uint8), 0)
