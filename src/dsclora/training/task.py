"""The parties of an adaptation: recipe, base, teacher and start, checked against each other before anything runs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from dsclora.errors import RecipeError
from dsclora.networks import Network
from dsclora.networks import adapter as adapters
from dsclora.training import convlora, loop
from dsclora.training.objective import guard_patches
from dsclora.training.recipes import AdaptRecipe
from dsclora.training.teacher import without_teacher


@dataclass(frozen=True)
class Task:
    """An adaptation whose recipe, networks and modules fit each other.

    Attributes:
        recipe: the recipe as far as it applies, in HR pixels.
        base: the base, which is not changed.
        student: the base with ConvLoRA.
        taps: modules whose features are compared.
        teacher: the teacher, or None.
        teacher_net: the teacher's module, or None.
        start: the adapter that the student begins with, if any.
        unused: the name of the teacher that the recipe has no use for.
    """

    recipe: AdaptRecipe
    base: Network
    student: nn.Module
    taps: list[str]
    teacher: Network | None = None
    teacher_net: nn.Module | None = None
    start: adapters.Adapter | None = None
    unused: str | None = None

    def with_recipe(self, recipe: AdaptRecipe) -> "Task":
        """Return the task with another recipe."""
        return replace(self, recipe=recipe)


def prepare(
    recipe: AdaptRecipe,
    base: Network,
    teacher: Network | None = None,
    *,
    guarded: bool = False,
    start: adapters.Adapter | None = None,
) -> Task:
    """Check recipe and networks against each other, before any picture is read.

    Args:
        recipe: the recipe of the adaptation.
        base: the network to adapt.
        teacher: of any architecture and width, of the base's scale or a larger one: then its pictures are reduced.
            Without one there is no distillation; with guard pictures, the base is the teacher.
        guarded: whether there will be guard pictures.
        start: an adapter of this base to go on from, instead of a new one; its ranks count.

    Raises:
        RecipeError: recipe, base and teacher do not fit each other.
        ModelError: start is an adapter of another base.
        TrainingError: as `loop.check_shares`.
    """
    name = teacher.name if teacher is not None else None
    if teacher is None and guarded:
        if recipe.teach_own:
            raise RecipeError("teach_own: the base cannot teach itself; name a teacher with --teacher")
        teacher = base
    recipe = applicable_recipe(recipe.at_scale(base.scale), base, teacher, guarded)
    if not guarded and not any(stage.teacher_weight or stage.affinity_weight for stage in recipe.stages):
        teacher = None  # the recipe has no use for it
    student = _student(recipe, base, start)
    taps = recipe.affinity.taps or convlora.sconvlbs(student)
    teacher_net = _fast(teacher.to_torch()) if teacher is not None else None
    _check_taps(recipe, taps, student, teacher_net, guarded)
    unused = name if teacher is None else None
    return Task(recipe, base, student, taps, teacher, teacher_net, start, unused)


def applicable_recipe(recipe: AdaptRecipe, base: Network, teacher: Network | None, guarded: bool) -> AdaptRecipe:
    """Return the recipe for a base and a teacher, checked; without a teacher its distillation terms are left out.

    Raises:
        RecipeError, TrainingError: as `prepare`.
    """
    if teacher is not None and teacher.scale < base.scale:
        raise RecipeError(f"the teacher enlarges x{teacher.scale} only, the base x{base.scale}")
    if guarded and any(not stage.hr_weight or stage.batch < 2 for stage in recipe.stages):
        raise RecipeError("with a guard every stage needs an hr_weight, and a batch of 2 or more to share with it")
    guards = [guard_patches(stage.batch, recipe.guard_share) if guarded else 0 for stage in recipe.stages]
    loop.check_shares([*guards, *(stage.batch - part for stage, part in zip(recipe.stages, guards, strict=True))])
    return recipe if teacher is not None else without_teacher(recipe)


def attach(net: nn.Module, recipe: AdaptRecipe) -> nn.Module:
    """Return a copy of a network with the ConvLoRA that a recipe names.

    Raises:
        RecipeError: it names a conv that is not there.
    """
    targets = [convlora.Target(entry.convs, entry.rank, entry.alpha) for entry in recipe.lora]
    try:
        return convlora.attach(net, targets, recipe.seed)
    except ValueError as error:
        raise RecipeError(f"lora: {error}") from error


def _fast(net: nn.Module) -> nn.Module:
    """Put a network's weights into the layout that its convs are fastest with."""
    return net.to(memory_format=torch.channels_last)  # type: ignore[no-any-return,call-overload]


def _student(recipe: AdaptRecipe, base: Network, start: adapters.Adapter | None) -> nn.Module:
    plain = base.to_torch()
    if start is None:
        return _fast(attach(plain, recipe))
    adapters.check_fits(start, base)
    return _fast(convlora.insert(plain, start.updates))


def _check_taps(
    recipe: AdaptRecipe, taps: Sequence[str], net: nn.Module, teacher: nn.Module | None, guarded: bool
) -> None:
    if not any(stage.affinity_weight for stage in recipe.stages):
        return
    if recipe.teacher_ensemble:
        raise RecipeError("affinity_weight: the mean of eight orientations has no features; leave out teacher_ensemble")
    if recipe.degrade and (recipe.teach_own or not guarded):
        raise RecipeError(
            "affinity_weight: features of degraded pictures teach nothing; leave it out, or add a guard (not teach_own)"
        )
    if not taps:
        raise RecipeError("affinity.taps: no SConvLB to take features from (three adapted convs of a block); name taps")
    for module in (net, teacher):
        names = {name for name, _ in module.named_modules()} if module is not None else set(taps)
        if missing := [tap for tap in taps if tap not in names]:
            raise RecipeError(f"affinity.taps: {missing[0]} is not a module of the network")
