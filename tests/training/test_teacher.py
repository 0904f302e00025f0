"""The teacher's pictures: of the scale that is asked for, in eight orientations, and of the right pictures."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from dsclora.errors import RecipeError
from dsclora.pictures.arrays import Pixels
from dsclora.pictures.pairs import find_pairs
from dsclora.pictures.resize import imresize
from dsclora.training.patches import open_store
from dsclora.training.teacher import enlarge_to_scale, self_ensemble, taught_stores, without_teacher
from helpers import Nearest, photo
from helpers_training import recipe


def test_a_larger_scale_is_reduced() -> None:
    lr = photo(11, 14)
    assert np.array_equal(enlarge_to_scale(Nearest(2), 2, lr), lr.repeat(2, 0).repeat(2, 1))
    tripled = lr.repeat(3, 0).repeat(3, 1)
    assert np.array_equal(enlarge_to_scale(Nearest(3), 2, lr), imresize(tripled, 2 / 3)[:22, :28])


def test_an_ensemble_is_the_mean_of_eight_orientations() -> None:
    lr = photo(11, 14)
    assert np.array_equal(enlarge_to_scale(Nearest(2), 2, lr, ensemble=True), lr.repeat(2, 0).repeat(2, 1))

    def ramp(pixels: Pixels) -> Pixels:
        """From 0 to 80 downwards, whatever the picture is."""
        rows = np.linspace(0, 80, pixels.shape[0]).round().astype(np.uint8)
        return np.broadcast_to(rows[:, None, None], pixels.shape)

    # up, down, to the left and to the right, twice each: 40 everywhere, but for rounding
    assert np.abs(self_ensemble(ramp, lr).astype(int) - 40).max() <= 1


def test_which_pictures_are_taught(pictures: Path, tmp_path: Path) -> None:
    make = partial(open_store, find_pairs(pictures, 2), 2)
    store, guard = make(tmp_path / "store"), make(tmp_path / "guard")
    assert taught_stores(store, None, False) == [store]
    assert taught_stores(store, guard, False) == [guard]
    assert taught_stores(store, guard, True) == [store, guard]


def test_a_recipe_without_its_teacher() -> None:
    alone = without_teacher(recipe(teacher_weight=1.0, affinity_weight=1.0, teacher_ensemble=False))
    assert (alone.stages[0].teacher_weight, alone.stages[0].affinity_weight) == (0, 0)
    assert alone.stages[0].hr_weight > 0
    with pytest.raises(RecipeError, match="--teacher"):
        without_teacher(recipe(teacher_weight=1.0, hr_weight=0.0))
