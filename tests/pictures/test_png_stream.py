"""Strips as a PNG stream: every number arrives, and what goes wrong while strips are made is kept."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import pyvips

from dsclora.pictures.png_stream import PngStream
from dsclora.pictures.read import open_picture
from helpers import photo, save


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_every_number_arrives(tmp_path: Path, bands: int, dtype: Any) -> None:
    pixels = photo(37, 23, bands, dtype=dtype)
    picture = open_picture(save(tmp_path / "in.png", pixels))
    stream = PngStream(iter([pixels[:1], pixels[1:30], pixels[30:]]), 23, 37, picture)
    assert np.array_equal(np.asarray(stream.image().numpy()).reshape(pixels.shape), pixels)
    assert stream.error is None


def test_an_error_does_not_cross_libvips_and_is_kept(tmp_path: Path) -> None:
    pixels = photo(37, 23)
    picture = open_picture(save(tmp_path / "in.png", pixels))
    failure = RuntimeError("the second strip is bad")

    def strips() -> Iterator[npt.NDArray[Any]]:
        yield pixels[:30]
        raise failure

    stream = PngStream(strips(), 23, 37, picture)
    with pytest.raises(pyvips.Error):
        stream.image().numpy()
    assert stream.error is failure
    short = PngStream(iter([pixels[:30]]), 23, 37, picture)
    with pytest.raises(pyvips.Error):
        short.image().numpy()
    assert "30 rows" in str(short.error)
