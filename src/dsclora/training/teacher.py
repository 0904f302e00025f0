"""The teacher's pictures: the choice of those to make, and the cache for those that are made once."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from dsclora.engines import Engine, Setting
from dsclora.engines.choice import open_engine
from dsclora.errors import RecipeError
from dsclora.inference.strips import enlarge
from dsclora.networks import Network
from dsclora.pictures.arrays import Pixels, Uint8
from dsclora.pictures.resize import imresize
from dsclora.training import processes
from dsclora.training.budget import median_seconds
from dsclora.training.patches import PairStore
from dsclora.training.recipes import AdaptRecipe

logger = logging.getLogger("dsclora")


def open_teacher(teacher: Network, device: torch.device) -> Engine:
    """Open a teacher on a device, with as many threads as PyTorch has."""
    return open_engine(teacher, Setting(device=device.type, threads=torch.get_num_threads()))


def taught_stores(store: PairStore, guard: PairStore | None, teach_own: bool) -> list[PairStore]:
    """Return the stores whose pictures a teacher enlarges: the guard alone where there is one, unless `teach_own`."""
    if guard is None:
        return [store]
    return [store, guard] if teach_own else [guard]


def enlarge_to_scale(engine: Engine, scale: int, lr: Uint8, *, ensemble: bool = False) -> Uint8:
    """Let a teacher enlarge a picture, and reduce the result where its scale is larger than the one asked for.

    Args:
        engine: the teacher's engine, of that scale or a larger one.
        scale: the factor of the picture to return.
        lr: (h, w, 3).
        ensemble: take the mean of eight orientations, `self_ensemble`.

    Returns:
        (h * scale, w * scale, 3).
    """
    if ensemble:
        return self_ensemble(partial(enlarge_to_scale, engine, scale), lr)
    sr = enlarge(engine, lr, border="zero")
    if engine.scale > scale:
        sr = imresize(sr, scale / engine.scale)
    return sr[: lr.shape[0] * scale, : lr.shape[1] * scale]  # 3 * (2 / 3) may be more than 2


def cache_outputs(
    store: PairStore, teacher: Network, engine: Engine, *, ensemble: bool = False, undegraded: bool = False
) -> None:
    """Let a teacher enlarge the pictures of a store, once.

    Args:
        store: the store that keeps the pictures.
        teacher: the teacher, of the store's scale or a larger one.
        engine: the engine that runs it.
        ensemble: as `enlarge_to_scale`.
        undegraded: as `PairStore.add_teacher`.
    """
    name = teacher.fingerprint[:16] + "-ensemble" * ensemble + "-undegraded" * undegraded
    store.add_teacher(name, partial(enlarge_to_scale, engine, store.scale, ensemble=ensemble), undegraded)


def self_ensemble(upscale: Callable[[Pixels], Pixels], pixels: Pixels) -> Pixels:
    """Enlarge a picture in its eight orientations and take the mean (geometric self-ensemble, Lim et al. 2017).

    Args:
        upscale: (h, w, bands) to (h * scale, w * scale, bands), uint8 or uint16.
        pixels: as `upscale` takes them.

    Returns:
        as `upscale` returns it, the mean of the eight rounded.
    """
    total: Any = 0
    for turns in range(8):
        turned = np.rot90(pixels[:, ::-1] if turns >= 4 else pixels, turns)
        back = np.rot90(upscale(np.ascontiguousarray(turned)), -turns)
        total = total + (back[:, ::-1] if turns >= 4 else back).astype(np.float32)
    mean: Pixels = np.rint(total / 8).astype(pixels.dtype)
    return mean


def announce(teacher: Network, ensemble: bool) -> None:
    """Log that a teacher's pictures are made now: it may take minutes."""
    ways = ", each in eight orientations" if ensemble else ""
    logger.info("the teacher %s enlarges the pictures%s, once", teacher.name, ways)


class Lessons:
    """The pictures that a teacher makes for an adaptation.

    Args:
        recipe: the recipe that applies.
        teacher: the teacher, of the stores' scale or a larger one.
        store: pictures to adapt to.
        guard: pictures of other kinds, or None.
        device: the device that the teacher runs on.
    """

    def __init__(
        self, recipe: AdaptRecipe, teacher: Network, store: PairStore, guard: PairStore | None, device: torch.device
    ) -> None:
        self._recipe, self._teacher, self._store = recipe, teacher, store
        self._stores = taught_stores(store, guard, recipe.teach_own)
        self._engine = open_teacher(teacher, device)
        # where pictures are degraded, the teacher enlarges them undegraded
        self._undegraded = bool(recipe.degrade) and store in self._stores

    def cache(self) -> None:
        """Make the pictures and keep them in the stores."""
        announce(self._teacher, self._recipe.teacher_ensemble)
        processes.rank_0_first(self._cache)

    def _cache(self) -> None:
        ensemble = self._recipe.teacher_ensemble
        for store in self._stores:
            undegraded = self._undegraded and store is self._store
            cache_outputs(store, self._teacher, self._engine, ensemble=ensemble, undegraded=undegraded)

    def are_cached(self, seconds: float | None, factor: float) -> bool:
        """Decide whether the teacher enlarges the stores' pictures once, instead of the patches of every step.

        It must where it sees the pictures undegraded or in eight orientations. Else it does where there is a budget of
        time if it takes no more than a third of it; without one, if the patches are more work.

        Args:
            seconds: the seconds left of the budget; None for no budget.
            factor: the factor by which the recipe's stages are longer.

        Raises:
            RecipeError: it must, and that takes more than half of the budget.
        """
        recipe, scale = self._recipe, self._store.scale
        required = self._undegraded or recipe.teacher_ensemble
        if not required and any(stage.affinity_weight for stage in recipe.stages):
            return False  # its features are needed at every step
        pixels = sum(store.pixels / store.copies for store in self._stores)  # copies count once
        if seconds is None:
            areas = [stage.iterations * stage.batch * (stage.patch // scale) ** 2 for stage in recipe.stages]
            return required or pixels <= factor * sum(areas)
        wait = self._seconds_per_pixel() * pixels
        if required and wait > seconds / 2:
            raise RecipeError(
                f"the teacher's pictures take {wait / 60:.1f} minutes, more than half of what is left; allow more "
                "--minutes, or leave out " + ("teacher_ensemble" if recipe.teacher_ensemble else "--teacher")
            )
        return required or wait <= seconds / 3

    def _seconds_per_pixel(self) -> float:
        store = self._stores[0]
        sample = store.lr(0)[:128, :128]
        ensemble = self._recipe.teacher_ensemble
        work = partial(enlarge_to_scale, self._engine, store.scale, sample, ensemble=ensemble)
        return median_seconds(work) / (sample.size / 3)


def without_teacher(recipe: AdaptRecipe) -> AdaptRecipe:
    """Return a recipe without its distillation terms.

    Raises:
        RecipeError: nothing is left to learn from.
    """
    if any(not stage.hr_weight for stage in recipe.stages):
        raise RecipeError("a stage has only a teacher_weight: name a teacher with --teacher")
    quiet = {"teacher_weight": 0.0, "affinity_weight": 0.0}
    stages: Sequence[Any] = [stage.model_copy(update=quiet) for stage in recipe.stages]
    return recipe.model_copy(update={"stages": stages, "teacher_ensemble": False})
