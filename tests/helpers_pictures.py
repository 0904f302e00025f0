"""Pictures through `open_picture` and `write_picture`, unchanged, and as libvips alone reads them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyvips

from dsclora.pictures.read import open_picture
from dsclora.pictures.write import Encoding, write_picture


def pixels_of(path: Path) -> npt.NDArray[Any]:
    loaded = pyvips.Image.new_from_file(str(path))
    return np.asarray(loaded.numpy()).reshape(loaded.height, loaded.width, -1)


def strips_of(pixels: npt.NDArray[Any], count: int = 7) -> Iterator[npt.NDArray[Any]]:
    return iter(np.array_split(pixels, count))


def copy(source: Path, target: Path, **options: Any) -> None:
    """Through `open_picture` and `write`, unchanged."""
    picture = open_picture(source)
    pixels = picture.rows()(0, picture.height)
    size = picture.width, picture.height
    write_picture(target, Encoding(target.suffix, *size, **options), strips_of(pixels), size, picture)
