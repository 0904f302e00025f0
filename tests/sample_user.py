"""A user's program: mypy checks it in strict mode with all others, and `test_api` runs it."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

import dsclora


def enlarge(photo: str, folder: Path) -> npt.NDArray[np.uint8]:
    """Enlarge a picture in every way that has a type of its own."""
    model: dsclora.Model = dsclora.load("span-x2", engine="openvino", threads=1)
    image: Image.Image = model(Image.open(photo))
    assert image.size == (80, 60)
    several: list[object] = model([photo, photo])
    assert len(several) == 2
    for result in dsclora.upscale(photo, folder, model=model, options=dsclora.Options(if_exists="rename")):
        assert result.status == "done", result.error
    grey: npt.NDArray[np.uint8] = model(np.zeros((30, 40), np.uint8))
    return grey
