"""Pictures side by side: the detail lies where there is most to see, and the grid holds all of it."""

from pathlib import Path

import numpy as np
import pytest
import pyvips

from dsclora.errors import OutputError
from dsclora.pictures.comparison import details, find_detail, write_grid
from dsclora.pictures.resize import imresize
from helpers import photo


def test_the_detail_is_where_there_is_most_of_it() -> None:
    lr = np.full((40, 60, 3), 90, np.uint8)
    lr[21:29, 33:41] = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    y, x = find_detail(lr, 10)
    assert 19 <= y <= 21
    assert 31 <= x <= 33
    sr = imresize(lr, 2)
    bicubic, other = details(lr, [255 - sr], side=10)
    assert np.array_equal(bicubic, sr[2 * y : 2 * y + 20, 2 * x : 2 * x + 20])
    assert np.array_equal(other, 255 - bicubic)
    assert details(lr[:, :30], [sr[:, :60]], side=64)[0].shape == (60, 60, 3), "no larger than the picture"


def test_a_grid_holds_every_picture(tmp_path: Path) -> None:
    rows = [[photo(20, 30, seed=n), photo(16, 24, seed=n + 1)] for n in range(3)]
    write_grid(tmp_path / "grid.png", rows, ["one", "a < b"])
    grid = pyvips.Image.new_from_file(str(tmp_path / "grid.png")).numpy()
    for picture in (picture for row in rows for picture in row):
        windows = np.lib.stride_tricks.sliding_window_view(grid[..., 0], picture.shape[:2])
        assert (windows == picture[..., 0]).all((2, 3)).sum() == 1
    with pytest.raises(OutputError, match="exists already"):
        write_grid(tmp_path / "grid.png", rows, ["one", "two"])
    with pytest.raises(OutputError, match=r"none\.png: "):
        write_grid(tmp_path / "none.png", [], [])
    assert not (tmp_path / "none.png").exists()
