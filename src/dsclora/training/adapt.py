"""Adapt a frozen base to pictures: ConvLoRA under distillation (DSCLoRA, arXiv 2504.11271), with a do-no-harm gate."""

import copy
import hashlib
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dsclora import zoo
from dsclora.errors import UsageError
from dsclora.networks import Network
from dsclora.networks import adapter as adapters
from dsclora.networks.adaptation import Adaptation
from dsclora.training import convlora, loop, processes, report_page
from dsclora.training.budget import Budget, Plan, divide, load_plan, median_seconds, save_plan
from dsclora.training.gate import Outcome, judge
from dsclora.training.objective import Objective
from dsclora.training.recipes import AdaptRecipe, Stage, averaging, load_adapt, scaled, with_precision
from dsclora.training.run import Progress, Run, identity, pictures_hash
from dsclora.training.selection import WINDOW, Selection, find_selection
from dsclora.training.stores import Stores, fit_patches, open_stores, reduction
from dsclora.training.task import Task, prepare
from dsclora.training.teacher import Lessons
from dsclora.training.validation import ValidationSet

logger = logging.getLogger("dsclora")


def adapt_files(
    pictures: str | os.PathLike[str],
    *,
    base: Network | str = zoo.DEFAULT,
    output: str | os.PathLike[str] | None = None,
    teacher: Network | str | None = None,
    guard: str | os.PathLike[str] | None = None,
    valid: str | os.PathLike[str] | None = None,
    recipe: AdaptRecipe | str | os.PathLike[str] | None = None,
    start: adapters.Adapter | str | None = None,
    minutes: float | None = None,
    iterations: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: torch.device | str = "cpu",
    report: Callable[[Progress], None] = lambda _: None,
) -> Adaptation:
    """Adapt a base to a folder of pictures; write the adapter, or the rejected attempt, and its report.

    Beside the output lies NAME.run, with the log and the checkpoint; the decoded pictures in it are removed.

    Args:
        pictures: folder of HR pictures, or with `HR/` and `LRx{scale}/`.
        base: a network, a bundled model's name, or a model file.
        output: adapter file to write; by default the folder's name with `.safetensors`, in the working directory.
        teacher: a stronger network of the base's scale or a larger one, to distil from. By default, with a guard and a
            bundled base, the bundled wide model.
        guard: folder of pictures of other kinds, mixed in so that they are not forgotten.
        valid: folder of pictures to judge on, instead of a held-out part of `pictures`.
        recipe: a recipe, its file, or a bundled recipe's name; by default the bundled recipe.
        start: an adapter of the same base to go on from.
        minutes: makes the recipe's stages shorter or longer so that everything takes about that long.
        iterations: makes them shorter or longer so that they take that many steps in all.
        resume: go on from the checkpoint; the budget is that of the first start.
        overwrite: replace existing files.
        device: "cpu" or "cuda" to train on.
        report: called with the progress.

    Raises:
        UsageError: arguments that contradict each other, or files that exist already.
        RecipeError, ModelError, ImageError, TrainingError, OutputError: as the message says.
    """
    begin = time.monotonic()
    pictures = Path(pictures)
    target = _target(pictures, output)
    _check_usage(target, minutes, iterations, overwrite)
    if not isinstance(recipe, AdaptRecipe):
        recipe = load_adapt(recipe if recipe is not None else zoo.adapt_recipe())
    if teacher is None and guard is not None and isinstance(base, str):
        teacher = zoo.teacher_of(base)
    with processes.joined(device) as joined:
        network = zoo.load(base) if isinstance(base, str) else base
        origin = zoo.load_adapter(start) if isinstance(start, str) else start
        teaching = zoo.load(teacher) if isinstance(teacher, str) else teacher
        run = Run(target.with_suffix(".run"), resume=resume, overwrite=overwrite, device=joined, report=report)
        run.refuse_earlier_run()
        task = prepare(recipe, network, teaching, guarded=guard is not None, start=origin)
        selection = find_selection(
            task.recipe,
            pictures,
            network.scale,
            Path(valid) if valid is not None else None,
            Path(guard) if guard is not None else None,
            None if guard is not None else zoo.general_pictures(),
        )
        outcome = adapt(task, selection, run, Budget(_left(minutes, begin), iterations))
        return _write(target, outcome, run)


def _target(pictures: Path, output: str | os.PathLike[str] | None) -> Path:
    target = Path(output) if output is not None else Path(f"{pictures.resolve().name}.safetensors")
    if target.suffix != ".safetensors" or target.is_dir():
        raise UsageError(f"{target}: an adapter's file ends in .safetensors")
    return target


def _check_usage(target: Path, minutes: float | None, iterations: int | None, overwrite: bool) -> None:
    if minutes is not None and iterations is not None:
        raise UsageError("--minutes and --iterations exclude each other")
    if minutes is not None and not 0 < minutes < 1e6:
        raise UsageError(f"--minutes must be positive, got {minutes}")
    if iterations is not None and not (isinstance(iterations, int) and iterations >= 1):
        raise UsageError(f"--iterations must be a whole number from 1 on, got {iterations!r}")
    rejected = target.with_suffix(".rejected.safetensors")
    for path in (target, target.with_suffix(".html"), rejected, rejected.with_suffix(".html")):
        if path.exists() and not overwrite:
            raise UsageError(f"{path}: exists already; choose another --output or pass --overwrite")


def _left(minutes: float | None, begin: float) -> float | None:
    """Return the minutes that are left after the pictures were read, which takes part of them."""
    if minutes is None:
        return None
    left = minutes - (time.monotonic() - begin) / 60
    if left < 0.1:
        logger.warning("reading the pictures took all of %g minutes, too long to train well; allow more", minutes)
    return max(0.1, left)


def _write(target: Path, outcome: Outcome, run: Run) -> Adaptation:
    """Write the adapter and its report, and remove the decoded pictures; the first process alone does it."""
    path = target if outcome.accepted else target.with_suffix(".rejected.safetensors")
    page, result = path.with_suffix(".html"), outcome.adapter.training["result"]
    if processes.rank() == 0:
        adapters.write(path, outcome.adapter, run.overwrite)
        change = outcome.change
        rows = list(zip(change.names, change.before, change.after, strict=True))
        training = dict(outcome.adapter.training)
        report_page.write(page, target.stem, result, training, rows, outcome.samples, run.overwrite)
        run.discard_pictures()
    gain, interval = outcome.change.gain, outcome.change.interval
    return Adaptation(outcome.adapter, outcome.accepted, gain, interval, path, page, result)


def adapt(task: Task, selection: Selection, run: Run, budget: Budget | None = None) -> Outcome:
    """Train an adapter and judge it. It writes into the run's folder alone.

    Args:
        task: from `task.prepare`.
        selection: from `selection.find_selection`.
        run: the folder, and whether to resume; under `torchrun`, call this inside `processes.joined`.
        budget: how long it may take; by default as long as the recipe says.

    Raises:
        RecipeError: the teacher takes more time than there is.
        TrainingError: as `loop.Training`.
        ImageError: no usable pictures.
        OutputError: the folder holds another run, or cannot be written.
    """
    run.refuse_earlier_run()
    if task.unused is not None:
        logger.info("the recipe has no use for a teacher: %s is not used", task.unused)
    budget = budget or Budget()
    scale, held_out = task.base.scale, reduction(task.recipe, task.base.scale, 1)
    task.student.to(run.device)
    if task.teacher_net is not None:
        task.teacher_net.to(run.device)
    with run.writing():
        run.begin()
        stores = processes.rank_0_first(lambda: open_stores(task.recipe, selection, scale, run.folder))
        task = task.with_recipe(fit_patches(task.recipe, stores, _multiple(task)))
        validation = ValidationSet.read(selection.validation, scale, task.base.multiple, held_out, WINDOW)
        taps, teacher_net = task.taps, task.teacher_net
        objective = Objective(task.recipe, stores.pictures, stores.guard, teacher_net, taps, run.device)
        plan = _plan(task, stores, objective, validation, selection, run, budget)
    _check_start(task, stores)
    adapter = _train(task, stores, objective, validation, plan, run)
    return processes.from_rank_0(lambda: judge(task.base, adapter, selection, held_out, device=run.device))


def _multiple(task: Task) -> int:
    """Return the number that LR patches must divide by, for the student and the teacher."""
    return math.lcm(task.base.multiple, task.teacher.multiple if task.teacher is not None else 1)


def _check_start(task: Task, stores: Stores) -> None:
    start = task.start
    if start is not None and start.training.get("data", {}).get("sha256") != stores.pictures.fingerprint():
        logger.warning(
            "%s was not trained on exactly these pictures; if it has learnt from those to judge by, the gain is "
            "too high",
            start.name,
        )


def _plan(
    task: Task, stores: Stores, objective: Objective, validation: ValidationSet, selection: Selection, run: Run,
    budget: Budget,
) -> Plan:  # fmt: skip
    """Decide how long to train and whether the teacher's pictures are cached, and make them; or keep the run's plan."""
    plan = load_plan(run)
    if plan is not None and budget.is_limited:
        logger.info("a resumed run keeps the budget of its first start")
    factor, cached = budget.factor(task.recipe), False
    if task.teacher is not None:
        lessons = Lessons(task.recipe, task.teacher, stores.pictures, stores.guard, run.device)
        left = budget.seconds
        cached = processes.from_rank_0(lambda: plan.cached if plan else lessons.are_cached(left, factor))
        if cached:
            lessons.cache()
    if plan is None:
        validations = task.recipe.validations
        if budget.seconds is not None:
            # on all processes: they share the cores
            divided = _divide(task, objective, validation, selection, budget)
            factor, validations = processes.from_rank_0(lambda: divided)
        plan = Plan(factor, validations, cached)
        save_plan(run, plan)
    return plan


def _divide(
    task: Task, objective: Objective, validation: ValidationSet, selection: Selection, budget: Budget
) -> tuple[float, int]:
    """Divide the time that is left between judging and training, by the speed that is measured."""
    net = task.student
    costs = [median_seconds(partial(_step, copy.deepcopy(net), objective, stage)) for stage in task.recipe.stages]
    areas = [lr.shape[0] * lr.shape[1] for lr, _ in validation.pictures]
    first = ValidationSet(validation.pictures[:1], validation.scale, validation.multiple)
    whole = median_seconds(partial(score, first, net)) / areas[0] * sum(areas)
    judging = 2 * whole / len(validation) * (len(selection.test) + len(selection.other))
    return divide(task.recipe, budget.seconds or 0.0, costs, whole, judging)


def _step(net: nn.Module, objective: Objective, stage: Stage) -> None:
    objective(net, stage, 0).backward()  # type: ignore[no-untyped-call]


def score(validation: ValidationSet, net: nn.Module) -> float:
    """Return the mean PSNR (dB) of a student, merged, on whole pictures."""
    return validation.score(convlora.detach(net, merged=True))


def _train(
    task: Task, stores: Stores, objective: Objective, validation: ValidationSet, plan: Plan, run: Run
) -> adapters.Adapter:
    """Train the student and return its adapter at its best."""
    recipe, base = task.recipe, task.base
    stages: Sequence[Stage] = scaled(recipe.stages, plan.factor)
    steps = sum(stage.iterations for stage in stages)
    every, ema = -(-steps // plan.validations), averaging(recipe, steps)
    settings = loop.Settings(ema, recipe.clip, every, min(every, 200), recipe.optimiser, validate_first=True)
    key = identity(
        [stage.model_dump() for stage in stages],
        recipe.model_dump(exclude={"stages"}),
        asdict(plan),
        stores.fingerprints,
        base.fingerprint,
        task.teacher.fingerprint if task.teacher is not None else "",
        pictures_hash(validation.pictures),
        _updates_hash(task.start),
    )
    stages = with_precision(stages, run.precision())
    scoring = partial(score, validation)
    fitted, best = loop.Training(task.student, stages, objective, scoring, run, settings, key).train()
    counts, teacher = stores.counts(recipe), task.teacher
    training: dict[str, Any] = {
        "recipe": recipe.describe(stages, ema=ema),
        "data": {"pictures": counts[0], "guard": sum(counts[1:]), "sha256": stores.pictures.fingerprint()},
        "base": base.name,
        "start": task.start.name if task.start is not None else None,
        "teacher": {"name": teacher.name, "sha256": teacher.sha256} if teacher is not None else None,
        "chosen_by": {"protocol": "classic-y", "pictures": len(validation), "psnr": round(best, 4)},
    }
    return convlora.to_adapter(fitted, base, training, recipe.license)


def _updates_hash(start: adapters.Adapter | None) -> list[list[Any]]:
    updates = sorted(start.updates.items()) if start is not None else []
    return [[conv, hashlib.sha256(u.a.tobytes() + u.b.tobytes()).hexdigest(), u.alpha] for conv, u in updates]
