"""The decoded pictures of an adaptation: those to adapt to, and those of the guard."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from dsclora.errors import ImageError
from dsclora.pictures.arrays import Uint8
from dsclora.pictures.degrade import degrade
from dsclora.training.patches import PairStore, open_store
from dsclora.training.recipes import AdaptRecipe
from dsclora.training.selection import Selection

logger = logging.getLogger("dsclora")

Reduce = Callable[[Uint8, int], Uint8]


@dataclass(frozen=True)
class Stores:
    """Pictures to train on, decoded.

    Attributes:
        pictures: the pictures to adapt to.
        guard: pictures of other kinds, or None.
    """

    pictures: PairStore
    guard: PairStore | None = None

    @property
    def all(self) -> list[PairStore]:
        """The stores that there are."""
        return [self.pictures] if self.guard is None else [self.pictures, self.guard]

    @property
    def fingerprints(self) -> list[str]:
        """Hashes of all pixels, by store."""
        return [store.fingerprint() for store in self.all]

    def counts(self, recipe: AdaptRecipe) -> list[int]:
        """Return how many different pictures of each store are trained on."""
        smallest = min(stage.patch for stage in recipe.stages)
        return [store.large(smallest // store.scale) for store in self.all]


def reduction(recipe: AdaptRecipe, scale: int, part: int) -> Reduce | None:
    """Return the function that degrades a picture, by its number; None where the recipe degrades nothing.

    Args:
        recipe: the recipe, for its degradations and seed.
        scale: HR side over LR side.
        part: 0 for pictures to train on, 1 for those held out: none of one has the noise of one of the other.
    """
    return partial(_reduce, recipe, scale, part) if recipe.degrade else None


def _reduce(recipe: AdaptRecipe, scale: int, part: int, hr: Uint8, number: int) -> Uint8:
    return degrade(hr, scale, recipe.degrade, np.random.default_rng((recipe.seed, part, number)))


def open_stores(recipe: AdaptRecipe, selection: Selection, scale: int, folder: Path) -> Stores:
    """Decode the pictures to train on and those of the guard into a run's folder.

    Raises:
        ImageError: no picture can be read.
        OutputError: the disk has no room for them.
    """
    reduce = reduction(recipe, scale, 0)
    pictures = open_store(
        selection.train,
        scale,
        folder / "pictures",
        reduce=reduce,
        reduced_by=json.dumps([recipe.seed, recipe.model_dump(include={"degrade"})]) if reduce else "",
        copies=recipe.copies if reduce else 1,
        window=selection.windows[0],
        sizes=recipe.sizes,
    )
    if not selection.guard:
        return Stores(pictures)
    guard = open_store(selection.guard, scale, folder / "guard", window=selection.windows[1], sizes=recipe.sizes)
    return Stores(pictures, guard)


def fit_patches(recipe: AdaptRecipe, stores: Stores, multiple: int = 1) -> AdaptRecipe:
    """Return the recipe with patches that at least half the pictures of every store have room for.

    Args:
        recipe: patches in HR pixels.
        stores: of one scale.
        multiple: number that LR patches must divide by.

    Raises:
        ImageError: pictures are too small for any patch.
    """
    scale = stores.pictures.scale
    unit = scale * multiple
    room = min(store.median_side for store in stores.all) * scale // unit * unit
    if not room:
        raise ImageError(f"the pictures are smaller than {unit} pixels, which the network needs; use larger ones")
    patches = [min(max(unit, stage.patch // unit * unit), room) for stage in recipe.stages]
    if any(patch < stage.patch for patch, stage in zip(patches, recipe.stages, strict=True)):
        logger.info("small pictures: patches of %s pixels", ", ".join(map(str, patches)))
    for store in stores.all:
        store.check_patches(patches)
    stages = [stage.model_copy(update={"patch": patch}) for patch, stage in zip(patches, recipe.stages, strict=True)]
    return recipe.model_copy(update={"stages": stages})
