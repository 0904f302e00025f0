"""Divide the pictures of an adaptation into training, validation and test; all are read before training."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dsclora.errors import ImageError, RecipeError
from dsclora.pictures import metrics
from dsclora.pictures.pairs import Pair, find_pairs, read_pair
from dsclora.training import grouping
from dsclora.training.recipes import AdaptRecipe

logger = logging.getLogger("dsclora")

MOST_HELD_OUT = 40
"""The most pictures to validate and test on: they are held in memory."""

WINDOW = 1024
"""Side of the central crop (HR pixels) of a picture that is validated or tested on."""

_STORE = 4 * 2**30  # bytes of decoded HR pictures, about; of very many pictures only the middle is taken


@dataclass(frozen=True)
class Selection:
    """The pictures of an adaptation.

    Attributes:
        train: pictures to train on.
        validation: pictures to choose the best weights by.
        test: pictures to judge them by at the end.
        test_groups: for each picture of `test`, a number that is the same for crops of one picture.
        guard: pictures of other kinds, whose look is to be kept: the teacher's picture of them is the target.
        other: pictures of other kinds that are not trained on, to see what is forgotten.
        other_groups: as `test_groups`.
        windows: side of the central crop (HR pixels) that is trained on, of the pictures and of the guard, as
            `read_pair`.
        confidence: the confidence of the gain's interval. Where the pictures to test on have chosen the weights too,
            0.99: of twenty attempts without any gain the best passes 0.95 in 4 to 24 of 100 cases (simulated).
    """

    train: list[Pair]
    validation: list[Pair]
    test: list[Pair]
    test_groups: list[int]
    guard: list[Pair] = field(default_factory=list)
    other: list[Pair] = field(default_factory=list)
    other_groups: list[int] = field(default_factory=list)
    windows: tuple[int | None, int | None] = (None, None)
    confidence: float = 0.95


@dataclass(frozen=True)
class _Candidate:
    """A readable picture and the hashes of the region we use."""

    pair: Pair
    sketch: npt.NDArray[np.uint64]


@dataclass(frozen=True)
class _HeldOut:
    """Pictures held out: to validate on, to test on, and the groups of the latter."""

    validation: list[_Candidate]
    test: list[_Candidate]
    groups: list[int]

    @property
    def all(self) -> list[_Candidate]:
        return self.validation + self.test

    @property
    def is_shared(self) -> bool:
        """True where the same pictures validate and test."""
        return self.validation is self.test


def find_selection(
    recipe: AdaptRecipe,
    pictures: Path,
    scale: int,
    valid: Path | None = None,
    guard: Path | None = None,
    other: Path | None = None,
) -> Selection:
    """Read all pictures once, name those that cannot be used, and divide the others by content.

    Nothing that is tested on is trained on: a picture of `pictures` or `guard` that shows the same as one of `valid`,
    and one of `guard` that shows the same as one of `pictures`, is left out. Which are left out and why, and how they
    were divided, is logged.

    Args:
        recipe: says which share is held out; in HR pixels (`AdaptRecipe.at_scale`).
        pictures: folder of HR pictures, or with `HR/` and `LRx{scale}/`.
        scale: the base's factor.
        valid: folder of pictures to validate and test on, instead of a part of `pictures`; of more than
            `MOST_HELD_OUT` some drawn at random.
        guard: folder of pictures of other kinds; a part of them is not trained on, to see what is forgotten.
        other: folder of pictures to see what is forgotten on, where there is no guard.

    Raises:
        ImageError: too few pictures.
        RecipeError: the recipe degrades pictures, but their LR is given.
    """
    pairs = _find(pictures, scale)
    if recipe.degrade and pairs[0].lr is not None:
        raise RecipeError(f"degrade: {pictures} has LR pictures of its own; leave out one or the other")
    window = _training_window(len(pairs) * (recipe.copies if recipe.degrade else 1), recipe, scale)
    candidates = _inspect(pictures, pairs, scale, max(WINDOW, math.ceil(_reach(recipe) * window)))
    if valid is None:
        train, held_out = _hold_out(recipe, pictures, candidates)
    else:
        held_out = _draw(recipe, valid, scale)
        train = _exclude(candidates, held_out.all, pictures, "shows the same as a picture to judge by")
    if held_out.is_shared:
        logger.info(
            "the same %d pictures choose the weights and judge them, so the gain must be certain to 99 %%, not 95 %%",
            len(held_out.test),
        )
    sizes = [len(part) for part in (train, held_out.validation, held_out.test)]
    logger.info("%d pictures to train on, %d to choose by, %d to judge by", *sizes)
    guards, others, guard_window = _find_guard(recipe, guard, scale, [*candidates, *held_out.all])
    other_pairs = [] if other is None else find_pairs(other, scale)
    return Selection(
        _pairs(train),
        _pairs(held_out.validation),
        _pairs(held_out.test),
        held_out.groups,
        _pairs(guards),
        other_pairs if guard is None else _pairs(others.test),
        list(range(len(other_pairs))) if guard is None else others.groups,
        (window, guard_window),
        0.99 if held_out.is_shared else 0.95,
    )


def _pairs(candidates: Sequence[_Candidate]) -> list[Pair]:
    return [candidate.pair for candidate in candidates]


def _reach(recipe: AdaptRecipe) -> float:
    """Return how much further the window of the smallest size reaches: it shows more of a picture."""
    return 1 / min(1, *recipe.sizes)


def _hold_out(recipe: AdaptRecipe, folder: Path, candidates: Sequence[_Candidate]) -> tuple[list[_Candidate], _HeldOut]:
    """Divide pictures into those to train on and those held out."""
    (train, validation, test), numbers = _divide(recipe, folder, candidates)
    validation_pictures = [candidates[n] for n in validation]
    test_pictures = validation_pictures if test is validation else [candidates[n] for n in test]
    return [candidates[n] for n in train], _HeldOut(validation_pictures, test_pictures, [numbers[n] for n in test])


def _draw(recipe: AdaptRecipe, folder: Path, scale: int) -> _HeldOut:
    """Draw the pictures to validate and test on from a folder.

    Raises:
        ImageError: it holds too few.
    """
    pairs = _find(folder, scale)
    order = np.random.default_rng(recipe.seed).permutation(len(pairs))
    drawn = _inspect(folder, [pairs[n] for n in order], scale, WINDOW, MOST_HELD_OUT)
    if len(pairs) > MOST_HELD_OUT:
        logger.info("%s: %d of %d pictures are used to judge", folder, len(drawn), len(pairs))
    test = sorted(drawn, key=lambda candidate: str(candidate.pair.hr))
    groups = grouping.numbered(_group(folder, test, grouping.LEAST_HELD_OUT), len(test))
    if len(set(groups)) < grouping.LEAST_HELD_OUT:
        raise ImageError(
            f"{folder}: {len(set(groups))} different pictures are too few to be certain of a gain; "
            f"add some, it takes {grouping.LEAST_HELD_OUT}"
        )
    return _HeldOut(test, test, groups)


def _find_guard(
    recipe: AdaptRecipe, folder: Path | None, scale: int, known: Sequence[_Candidate]
) -> tuple[list[_Candidate], _HeldOut, int | None]:
    """Divide the guard's pictures into those to train on and those that show what is forgotten; and their window."""
    if folder is None:
        return [], _HeldOut([], [], []), None
    pairs = _find(folder, scale)
    window = _training_window(len(pairs), recipe, scale)
    candidates = _inspect(folder, pairs, scale, max(WINDOW, math.ceil(_reach(recipe) * window)))
    candidates = _exclude(candidates, known, folder, "shows the same as a picture to adapt to")
    (trained, first, second), numbers = _divide(recipe, folder, candidates)
    unused = sorted({*first, *second})
    others = [candidates[n] for n in unused]
    logger.info("%d guard pictures to train on, %d to see what is forgotten", len(trained), len(unused))
    return [candidates[n] for n in trained], _HeldOut(others, others, [numbers[n] for n in unused]), window


def _training_window(pictures: int, recipe: AdaptRecipe, scale: int) -> int:
    """Return the side of the central crop (HR pixels) used for training, so that the decoded store stays near 4 GB.

    That holds up to some 5,000 pictures (at patches of 256; sizes and copies counted); beyond it takes 0.8 MB for each.
    A teacher's pictures take as much again. The side is a multiple of the scale.
    """
    side = math.isqrt(_STORE // 3 // max(1, pictures * len(recipe.sizes)))
    return max(side, 2 * max(stage.patch for stage in recipe.stages)) // scale * scale


def _find(folder: Path, scale: int) -> list[Pair]:
    pairs = find_pairs(folder, scale)
    others = sorted(path.name for path in folder.glob("LRx*") if path.is_dir())
    if pairs[0].lr is None and others:
        logger.info("%s: has %s but no LRx%d; LR is made from HR", folder, ", ".join(others), scale)
    return pairs


def _inspect(folder: Path, pairs: Sequence[Pair], scale: int, window: int, most: int | None = None) -> list[_Candidate]:
    """Read pictures, at most so many that can be used, and hash what they show.

    Raises:
        ImageError: none can be used.
    """
    border = metrics.protocol("classic-y", scale).border
    logger.info("%s: looking at %d pictures", folder, len(pairs))
    candidates: list[_Candidate] = []
    for number, pair in enumerate(pairs):
        if len(candidates) == most:
            break
        if number and number % 1000 == 0:
            logger.info("%s: looked at %d of %d", folder, number, len(pairs))
        try:
            # LR need only be readable here; its pixels do not matter
            _, hr = read_pair(pair, scale, lambda picture: picture[::scale, ::scale], window)
        except ImageError as error:
            logger.warning("left out: %s", error)
            continue
        if min(hr.shape[:2]) <= 2 * border:
            logger.warning("left out: %s: %d x %d is too small to judge by", pair.hr, hr.shape[1], hr.shape[0])
            continue
        candidates.append(_Candidate(pair, grouping.sketch(hr)))
    if not candidates:
        raise ImageError(f"{folder}: holds no picture that can be used")
    return candidates


def _divide(
    recipe: AdaptRecipe, folder: Path, candidates: Sequence[_Candidate]
) -> tuple[tuple[list[int], list[int], list[int]], list[int]]:
    """Return positions to train, validate and test on, as `grouping.hold_out`; and the group of each position."""
    groups = _group(folder, candidates, grouping.LEAST)
    try:
        parts = grouping.hold_out(groups, recipe.holdout, MOST_HELD_OUT, recipe.seed)
    except ImageError as error:
        raise ImageError(f"{folder}: {error}") from error
    trained = set(parts[0])
    large = [g for g in groups if g[0] in trained and len(g) > min(MOST_HELD_OUT, recipe.holdout * len(candidates))]
    if large:
        logger.warning(
            "%s: %d pictures are of %d series too large to hold out; they are used for training only; "
            "name some of their kind with --valid to judge by them too",
            folder,
            sum(map(len, large)),
            len(large),
        )
    return parts, grouping.numbered(groups, len(candidates))


def _group(folder: Path, candidates: Sequence[_Candidate], least: int) -> list[list[int]]:
    """Put crops of one picture together.

    Names are trusted, unless they make fewer than `least` groups or one of more than half.
    """
    names, sketches = [one.pair.name for one in candidates], [one.sketch for one in candidates]
    named, groups = grouping.group(names, sketches), grouping.group(names, sketches, by_name="crops")
    if named == groups:
        return groups
    if grouping.are_alike(named, least):
        logger.info(
            "%s: names are too much alike to tell crops of one picture by them; only contents are compared "
            "(if they are crops, call them NAME_s001, NAME_s002, or the gain is too high)",
            folder,
        )
        return groups
    logger.info(
        "%s: by their names %d pictures are of %d series (as scan7-1 and scan7-2 are), "
        "each of which is on one side and counts once; rename them if they are not",
        folder,
        len(candidates),
        len(named),
    )
    return named


def _exclude(candidates: list[_Candidate], others: Sequence[_Candidate], folder: Path, reason: str) -> list[_Candidate]:
    """Return the candidates that share no content with others.

    Raises:
        ImageError: none is left.
    """
    everything = [*candidates, *others]
    groups = grouping.group([o.pair.name for o in everything], [o.sketch for o in everything], by_name="no")
    shared = {member for members in groups if max(members) >= len(candidates) for member in members}

    kept = [one for number, one in enumerate(candidates) if number not in shared]
    if not kept:
        raise ImageError(f"{folder}: every picture {reason}")
    if len(kept) < len(candidates):
        named = [candidates[n].pair.name for n in sorted(shared) if n < len(candidates)]
        more = f" and {len(named) - 10} more" if len(named) > 10 else ""
        logger.warning("left out of %s, as each %s: %s%s", folder, reason, ", ".join(named[:10]), more)
    return kept
