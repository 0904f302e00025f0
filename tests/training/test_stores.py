"""Pictures of a run: patches fit into them, and what is held out has other noise than what is trained on."""

import logging
from pathlib import Path

import numpy as np
import pytest

from dsclora.errors import ImageError
from dsclora.pictures.pairs import find_pairs
from dsclora.pictures.resize import imresize
from dsclora.training.patches import open_store
from dsclora.training.stores import Stores, fit_patches, reduction
from helpers import photo, save
from helpers_training import recipe


def test_patches_fit_half_the_pictures_of_every_store(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dsclora")
    for n in range(3):
        save(tmp_path / "large" / f"{n}.png", photo(90, 100, seed=n))
        save(tmp_path / "small" / f"{n}.png", photo(50 - n, 60, seed=n))
    large, small = (open_store(find_pairs(tmp_path / k, 2), 2, tmp_path / f"s-{k}") for k in ("large", "small"))
    assert fit_patches(recipe(patch=64), Stores(large)).stages[0].patch == 64
    assert caplog.messages == []
    assert fit_patches(recipe(patch=64), Stores(large, small)).stages[0].patch == 48
    assert len(caplog.messages) == 1
    assert fit_patches(recipe(patch=30), Stores(large), multiple=4).stages[0].patch == 24, "LR patches divide by 4"
    with pytest.raises(ImageError, match="smaller than 64 pixels"):
        fit_patches(recipe(patch=64), Stores(small), multiple=32)
    assert Stores(large, small).counts(recipe(patch=50)) == [3, 1]


def test_noise_depends_on_the_picture_and_the_part() -> None:
    hr = photo(64, 64)
    assert reduction(recipe(), 2, 0) is None
    noisy = recipe(degrade=[{"kind": "noise", "strength": [8, 8]}])
    train, test = reduction(noisy, 2, 0), reduction(noisy, 2, 1)
    assert train is not None
    assert test is not None
    assert np.array_equal(train(hr, 3), train(hr, 3))
    reduced = [imresize(hr, 0.5), train(hr, 3), train(hr, 4), test(hr, 3)]
    assert not any(np.array_equal(a, b) for n, a in enumerate(reduced) for b in reduced[:n])
