"""Which pictures an adaptation trains on, chooses by and judges by; all are looked at before anything is trained."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dsclora.errors import ImageError, RecipeError
from dsclora.pictures import metrics
from dsclora.pictures.pairs import Pair, find_pairs, read_pair
from dsclora.training import grouping
from dsclora.training.recipes import AdaptRecipe

MOST_HELD_OUT = 40
"""Pictures to choose and judge by: they are held in memory."""

WINDOW = 1024
"""Of a picture that is judged, its middle counts: HR pixels high and wide."""

_STORE = 4 * 2**30  # bytes of decoded HR pictures, about; of very many pictures only the middle is taken

Say = Callable[[str], None]


@dataclass(frozen=True)
class Sources:
    """Pictures of an adaptation.

    Attributes:
        train: to train on.
        choose: to choose the best weights by.
        judge: to judge them by at the end.
        judge_groups: of each picture of `judge`, a number that is the same for crops of one picture.
        guard: of other kinds, whose look is to be kept: trained on towards the teacher's picture of them.
        general: of other kinds, to see what is forgotten; not trained on.
        general_groups: as `judge_groups`.
        windows: of each picture to train on, and of each of the guard, the middle that is trained on, as `read_pair`.
        confidence: of the interval of the gain. Where the pictures to judge by have chosen the weights too, 0.99: of
            twenty attempts without any gain the best passes 0.95 in 4 to 24 of 100 cases (simulated).
    """

    train: list[Pair]
    choose: list[Pair]
    judge: list[Pair]
    judge_groups: list[int]
    guard: list[Pair] = field(default_factory=list)
    general: list[Pair] = field(default_factory=list)
    general_groups: list[int] = field(default_factory=list)
    windows: tuple[int | None, int | None] = (None, None)
    confidence: float = 0.95


@dataclass(frozen=True)
class _Looked:
    """A readable picture and the sketch of what is used of it."""

    pair: Pair
    sketch: npt.NDArray[np.uint64]


def find_sources(
    recipe: AdaptRecipe,
    images: Path,
    scale: int,
    valid: Path | None = None,
    guard: Path | None = None,
    general: Path | None = None,
    say: Say = lambda _: None,
) -> Sources:
    """Look at all pictures once, name those that cannot be used, and divide the others by content.

    Nothing that is judged by is trained on: what of `images` and `guard` shows the same as a picture of `valid`, and
    what of `guard` shows the same as one of `images`, is left out.

    Args:
        recipe: says which share is held out.
        images: folder of HR pictures, or with `HR/` and `LRx{scale}/`.
        scale: of the base.
        valid: folder of pictures to choose and judge by, instead of a part of `images`; of more than `MOST_HELD_OUT`
            some drawn at random.
        guard: folder of pictures of other kinds; a part of them is not trained on, to see what is forgotten.
        general: folder of pictures to see what is forgotten on, where there is no guard.
        say: told, in one line each, which pictures are left out and why, and how they were divided.

    Raises:
        ImageError: too few pictures.
        RecipeError: the recipe degrades pictures, but their LR is given.
    """
    found = _find(images, scale, say)
    if recipe.degrade and found[0].lr is not None:
        raise RecipeError(f"degrade: {images} has LR pictures of its own; leave out one or the other")
    taken = len(found) * (recipe.copies if recipe.degrade else 1)
    window, guard_window = _training_window(taken, recipe, scale), None
    # what lies outside is neither trained on nor judged by; at a smaller size the window shows more
    reach = 1 / min(1, *recipe.sizes)
    looked = _look(images, found, scale, max(WINDOW, math.ceil(reach * window)), say)
    if valid is None:
        parts, numbers = _divide(recipe, images, looked, say)
        train, choose = ([looked[n] for n in part] for part in parts[:2])
        judge = choose if parts[2] is parts[1] else [looked[n] for n in parts[2]]
        judge_groups = [numbers[n] for n in parts[2]]
        judging = choose + judge
    else:
        drawn = _find(valid, scale, say)
        order = np.random.default_rng(recipe.seed).permutation(len(drawn))
        judging = _look(valid, [drawn[n] for n in order], scale, WINDOW, say, MOST_HELD_OUT)
        if len(drawn) > MOST_HELD_OUT:
            say(f"{valid}: {len(judging)} of {len(drawn)} pictures are judged by")
        choose = judge = sorted(judging, key=lambda one: str(one.pair.hr))
        judge_groups = grouping.numbered(_grouped(valid, judge, grouping.LEAST_HELD_OUT, say), len(judge))
        if len(set(judge_groups)) < grouping.LEAST_HELD_OUT:
            raise ImageError(
                f"{valid}: {len(set(judge_groups))} different pictures, too few to be certain of a gain; "
                f"it takes {grouping.LEAST_HELD_OUT}"
            )
        train = _without(looked, judging, images, "shows what a picture to judge by shows", say)
    if choose is judge:
        say(
            f"the same {len(judge)} pictures choose the weights and judge them, so the gain must be certain to 99 %, "
            "not 95 %"
        )
    say(f"{len(train)} pictures to train on, {len(choose)} to choose by, {len(judge)} to judge by")

    guards: list[_Looked] = []
    kept: list[Pair] = [] if general is None else find_pairs(general, scale)
    kept_groups = list(range(len(kept)))
    if guard is not None:
        found = _find(guard, scale, say)
        guard_window = _training_window(len(found), recipe, scale)
        others = _look(guard, found, scale, max(WINDOW, math.ceil(reach * guard_window)), say)
        others = _without(others, looked + judging, guard, "shows what a picture to adapt to shows", say)
        (trained, first, second), numbers = _divide(recipe, guard, others, say)
        guards, held = [others[n] for n in trained], sorted({*first, *second})
        kept, kept_groups = [others[n].pair for n in held], [numbers[n] for n in held]
        say(f"{len(guards)} guard pictures to train on, {len(kept)} to see what is forgotten")
    return Sources(
        [one.pair for one in train],
        [one.pair for one in choose],
        [one.pair for one in judge],
        judge_groups,
        [one.pair for one in guards],
        kept,
        kept_groups,
        (window, guard_window),
        0.99 if choose is judge else 0.95,
    )


def _training_window(pictures: int, recipe: AdaptRecipe, scale: int) -> int:
    """Of so many pictures the middle that is trained on, HR pixels high and wide, a multiple of the scale.

    All decoded they take about 4 GB of disk up to some 5,000 pictures (at patches of 256; sizes and copies counted) and
    0.8 MB each beyond; a teacher's pictures take as much again.
    """
    side = math.isqrt(_STORE // 3 // max(1, pictures * len(recipe.sizes)))
    return max(side, 2 * max(stage.patch for stage in recipe.stages)) // scale * scale


def _find(folder: Path, scale: int, say: Say) -> list[Pair]:
    found = find_pairs(folder, scale)
    others = sorted(path.name for path in folder.glob("LRx*") if path.is_dir())
    if found[0].lr is None and others:
        say(f"{folder}: has {', '.join(others)} but no LRx{scale}; LR is made from HR")
    return found


def _look(
    folder: Path, found: Sequence[Pair], scale: int, window: int, say: Say, most: int | None = None
) -> list[_Looked]:
    """Those that can be used, at most so many."""
    border = metrics.protocol("classic-y", scale).border
    say(f"{folder}: looking at {len(found)} pictures")
    looked: list[_Looked] = []
    for number, pair in enumerate(found):
        if len(looked) == most:
            break
        if number and number % 1000 == 0:
            say(f"{folder}: looked at {number} of {len(found)}")
        try:
            # what LR holds does not matter here, only whether it can be read
            _, hr = read_pair(pair, scale, lambda picture: picture[::scale, ::scale], window)
        except ImageError as error:
            say(f"left out: {error}")
            continue
        if min(hr.shape[:2]) <= 2 * border:
            say(f"left out: {pair.hr}: {hr.shape[1]} x {hr.shape[0]} is too small to judge by")
            continue
        looked.append(_Looked(pair, grouping.sketch(hr)))
    if not looked:
        raise ImageError(f"{folder}: holds no picture that can be used")
    return looked


def _divide(
    recipe: AdaptRecipe, folder: Path, looked: Sequence[_Looked], say: Say
) -> tuple[tuple[list[int], list[int], list[int]], list[int]]:
    """Positions to train on, to choose by and to judge by, as `split.hold_out`; and of each position its group."""
    groups = _grouped(folder, looked, grouping.LEAST, say)
    try:
        parts = grouping.hold_out(groups, recipe.holdout, MOST_HELD_OUT, recipe.seed)
    except ImageError as error:
        raise ImageError(f"{folder}: {error}") from error
    trained = set(parts[0])
    large = [g for g in groups if g[0] in trained and len(g) > min(MOST_HELD_OUT, recipe.holdout * len(looked))]
    if large:
        say(
            f"{folder}: {sum(map(len, large))} pictures are of {len(large)} series too large to be held out, so that "
            "they are trained on and not judged by; name some of their kind with --valid"
        )
    return parts, grouping.numbered(groups, len(looked))


def _grouped(folder: Path, looked: Sequence[_Looked], least: int, say: Say) -> list[list[int]]:
    """Crops of one picture together. Names are believed, unless they make too few groups or one of more than half."""
    names, sketches = [one.pair.name for one in looked], [one.sketch for one in looked]
    named, groups = grouping.group(names, sketches), grouping.group(names, sketches, by_name="crops")
    if named == groups:
        return groups
    if grouping.alike(named, least):
        say(
            f"{folder}: names are too much alike to tell crops of one picture by them; only contents are compared "
            "(if they are crops, call them NAME_s001, NAME_s002, or the gain is flattered)"
        )
        return groups
    say(
        f"{folder}: by their names {len(looked)} pictures are of {len(named)} series (as scan7-1 and scan7-2 are), "
        "each of which is on one side and counts once; rename them if they are not"
    )
    return named


def _without(looked: list[_Looked], others: list[_Looked], folder: Path, why: str, say: Say) -> list[_Looked]:
    """Those that share no content with others."""
    everything = [*looked, *others]
    groups = grouping.group([o.pair.name for o in everything], [o.sketch for o in everything], by_name="no")
    shared = {member for members in groups if max(members) >= len(looked) for member in members}

    kept = [one for number, one in enumerate(looked) if number not in shared]
    if not kept:
        raise ImageError(f"{folder}: every picture {why}")
    if len(kept) < len(looked):
        named = [looked[n].pair.name for n in sorted(shared) if n < len(looked)]
        more = f" and {len(named) - 10} more" if len(named) > 10 else ""
        say(f"left out of {folder}, as each {why}: {', '.join(named[:10])}{more}")
    return kept
