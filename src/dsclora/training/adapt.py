"""Adapt a frozen base to pictures: ConvLoRA under distillation (DSCLoRA, arXiv 2504.11271), with a do-no-harm gate."""

import copy
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dsclora import files
from dsclora.engines import Engine, Setting
from dsclora.engines.choice import open_engine
from dsclora.errors import OutputError, RecipeError
from dsclora.networks import adapter as adapters
from dsclora.networks import span, span_torch
from dsclora.pictures import metrics
from dsclora.pictures.arrays import Uint8
from dsclora.pictures.degrade import degrade
from dsclora.pictures.pairs import read_for_validation
from dsclora.training import convlora, loop, processes
from dsclora.training.gate import Outcome, judge
from dsclora.training.objective import Objective, guard_patches, taught
from dsclora.training.patches import PairStore, open_store
from dsclora.training.recipes import AdaptRecipe, Stage, averaging, scaled, with_precision
from dsclora.training.selection import WINDOW, Sources
from dsclora.training.teacher import cache_outputs, enlarge_to_scale

Whole = list[tuple[Uint8, Uint8]]


@dataclass(frozen=True)
class Plan:
    """What is decided at the start of a run and holds when it is resumed.

    Attributes:
        factor: by which the recipe's stages are longer.
        validations: how often the held-out pictures are enlarged.
        cached: the teacher enlarges the pictures once, not the patches of every step.
    """

    factor: float
    validations: int
    cached: bool


def adapt(
    recipe: AdaptRecipe,
    base: span.SpanNetwork,
    sources: Sources,
    folder: Path,
    teacher: span.SpanNetwork | None = None,
    *,
    minutes: float | None = None,
    iterations: int | None = None,
    start: adapters.Adapter | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: torch.device | str = "cpu",
    report: Callable[[loop.Progress], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Train an adapter and judge it.

    Args:
        recipe: what to do.
        base: stays as it is.
        sources: from `sources.find_sources`.
        folder: for the checkpoint, the logs and the decoded pictures.
        teacher: of any width, of the base's scale or a larger one: then its pictures are reduced. Without one there is
            no distillation; with guard pictures, the base is the teacher.
        minutes: shortens or lengthens the recipe's stages so that this function takes about that long, by the speed
            that is measured at the start.
        iterations: the same, by count.
        start: an adapter of this base to go on from, instead of a new one; its ranks count.
        resume: go on from the folder's checkpoint; the budget is that of the first start.
        overwrite: give up the folder's run, where there is one, and begin anew.
        device: to train on. Under `torchrun`, call it inside `parallel.joined`.
        report: called with the progress.
        say: called with a line of text for whatever else a user should know.

    Raises:
        RecipeError: recipe, base and teacher do not fit each other.
        TrainingError: as `fit.fit` and `fit.check_shares`.
        ImageError: no usable pictures.
        OutputError: the folder holds another run, or cannot be written.
    """
    end = time.perf_counter() + 60 * minutes if minutes is not None else None
    begun, given = (folder / "checkpoint.pt").exists(), teacher
    recipe, net, taps, teacher, teaching = _prepare(
        recipe, base, folder, teacher, bool(sources.guard), start, resume, overwrite
    )
    if given is not None and teacher is None:
        say(f"the recipe has no use for a teacher: {given.name} is not asked")
    net = net.to(device)
    teaching = teaching.to(device) if teaching is not None else None
    trained, held_out = (partial(_reduce, recipe, base.scale, part) if recipe.degrade else None for part in (0, 1))
    try:
        if not resume and processes.rank() == 0:  # what an interrupted start leaves must not be taken for this run's
            for stale in ("checkpoint.pt", "plan.json"):
                (folder / stale).unlink(missing_ok=True)
        store, guard = processes.rank_0_first(lambda: _open_stores(recipe, sources, base.scale, folder, trained, say))
        recipe, counts = _shrink_patches(recipe, [s for s in (store, guard) if s is not None], say)
        border = metrics.protocol("classic-y", base.scale).border
        choose = list(read_for_validation(sources.choose, base.scale, border, held_out, WINDOW))
        objective = Objective(recipe, store, guard, teaching, taps, device)
        path = folder / "plan.json"
        plan = processes.from_rank_0(
            lambda: Plan(**json.loads(path.read_text())) if begun and resume and path.exists() else None
        )
        if plan is not None and (minutes is not None or iterations is not None):
            say("a resumed run keeps the budget of its first start")
        factor = 1.0 if iterations is None else iterations / sum(stage.iterations for stage in recipe.stages)
        cached = False
        if teacher is not None and teaching is not None:
            asked = taught(store, guard, recipe.teach_own)
            setting = Setting(device=torch.device(device).type, threads=torch.get_num_threads())
            enlarging = open_engine(teacher, setting)
            undegraded = bool(recipe.degrade) and store in asked
            left = end - time.perf_counter() if end is not None else None
            cached = processes.from_rank_0(
                lambda: plan.cached if plan else _is_cached(recipe, enlarging, asked, undegraded, left, factor)
            )
            if cached:
                ways = ", each in eight orientations" if recipe.teacher_ensemble else ""
                say(f"the teacher {teacher.name} enlarges the pictures{ways}, once")
                processes.rank_0_first(partial(_teach, recipe, enlarging, teacher, store, asked, undegraded))
        if plan is None:
            validations = recipe.validations
            if end is not None:
                own = _plan(recipe, net, objective, choose, sources, end, say)  # on all processes: they share the cores
                factor, validations = processes.from_rank_0(lambda: own)
            plan = Plan(factor, validations, cached)
            if processes.rank() == 0:
                with files.replacing(path, overwrite=True) as temporary:
                    temporary.write_text(json.dumps(asdict(plan)))
    except OSError as error:
        raise OutputError(f"{error.filename or folder}: cannot be written ({error.strerror})") from error

    if start is not None and start.training.get("data", {}).get("sha256") != store.fingerprint():
        say(
            f"{start.name} was not trained on exactly these pictures; unless those to judge by are new to it, the gain "
            "is flattered"
        )
    stages = scaled(recipe.stages, plan.factor)
    steps = sum(stage.iterations for stage in stages)
    every = -(-steps // plan.validations)
    updates = sorted(start.updates.items()) if start is not None else []
    identity = _identity(
        [stage.model_dump() for stage in stages],
        recipe.model_dump(exclude={"stages"}),
        asdict(plan),
        [s.fingerprint() for s in (store, guard) if s is not None],
        base.fingerprint,
        teacher.fingerprint if teacher is not None else "",
        [hashlib.sha256(lr.tobytes() + hr.tobytes()).hexdigest() for lr, hr in choose],
        [[conv, hashlib.sha256(u.a.tobytes() + u.b.tobytes()).hexdigest(), u.alpha] for conv, u in updates],
    )
    stages = with_precision(
        stages, loop.precision(folder, resume, span_torch.resolve_precision("auto", torch.device(device)), say)
    )
    ema = averaging(recipe, steps)
    fitted, best = loop.fit(
        net,
        stages,
        objective,
        lambda candidate: mean_psnr(candidate, choose),
        folder,
        method=recipe.optimiser,
        ema=ema,
        clip=recipe.clip,
        validate_every=every,
        checkpoint_every=min(every, 200),
        identity=identity,
        resume=resume,
        validate_first=True,
        report=report,
        say=say,
    )
    training: dict[str, Any] = {
        "recipe": recipe.model_dump(by_alias=True) | {"stage": [stage.model_dump() for stage in stages], "ema": ema},
        "data": {"pictures": counts[0], "guard": sum(counts[1:]), "sha256": store.fingerprint()},
        "base": base.name,
        "start": start.name if start is not None else None,
        "teacher": {"name": teacher.name, "sha256": teacher.sha256} if teacher is not None else None,
        "chosen_by": {"protocol": "classic-y", "pictures": len(choose), "psnr": round(best, 4)},
    }
    made = adapters.Adapter(convlora.extract(fitted), base.sha256, base.scale, base.channels, training, recipe.license)
    return processes.from_rank_0(lambda: judge(base, made, sources, held_out, device=device))


def check(
    recipe: AdaptRecipe,
    base: span.SpanNetwork,
    folder: Path,
    teacher: span.SpanNetwork | None = None,
    *,
    guarded: bool = False,
    start: adapters.Adapter | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Find what is wrong before any picture is looked at.

    Args:
        recipe, base, folder, teacher, start, resume, overwrite: as `adapt`.
        guarded: whether there will be guard pictures.

    Raises:
        RecipeError, OutputError, ModelError, TrainingError: as `adapt`.
    """
    _prepare(recipe, base, folder, teacher, guarded, start, resume, overwrite)


def _prepare(
    recipe: AdaptRecipe, base: span.SpanNetwork, folder: Path, teacher: span.SpanNetwork | None, guarded: bool,
    start: adapters.Adapter | None, resume: bool, overwrite: bool,
) -> tuple[AdaptRecipe, nn.Module, list[str], span.SpanNetwork | None, span_torch.Span | None]:  # fmt: skip
    """The recipe as far as it applies, the student, the taps, and the teacher if there is a use for it."""
    if (folder / "checkpoint.pt").exists() and not resume and not overwrite:
        raise OutputError(f"{folder}: holds a run already; go on with --resume or choose another name")
    if teacher is None and guarded:
        if recipe.teach_own:
            raise RecipeError("teach_own: the base cannot teach itself; name a teacher with --teacher")
        teacher = base
    recipe = _suited(recipe, base, teacher, guarded)
    if not guarded and not any(stage.teacher_weight or stage.affinity_weight for stage in recipe.stages):
        teacher = None  # the recipe has no use for it
    net = _student(recipe, base, start)
    taps = recipe.affinity.taps or convlora.sconvlbs(net)
    teaching = span_torch.from_network(teacher).to(memory_format=torch.channels_last) if teacher is not None else None  # type: ignore[call-overload]
    _check_taps(recipe, taps, net, teaching, guarded)
    return recipe, net, taps, teacher, teaching


def _suited(
    recipe: AdaptRecipe, base: span.SpanNetwork, teacher: span.SpanNetwork | None, guarded: bool
) -> AdaptRecipe:
    """Check a recipe against what is there; without a teacher its distillation terms are left out."""
    if teacher is not None and teacher.scale < base.scale:
        raise RecipeError(f"the teacher enlarges x{teacher.scale} only, the base x{base.scale}")
    if guarded and any(not stage.hr_weight or stage.batch < 2 for stage in recipe.stages):
        raise RecipeError("with a guard every stage needs an hr_weight, and a batch of 2 or more to share with it")
    guards = [guard_patches(stage.batch, recipe.guard_share) if guarded else 0 for stage in recipe.stages]
    loop.check_shares([*guards, *(stage.batch - part for stage, part in zip(recipe.stages, guards, strict=True))])
    if teacher is not None:
        return recipe
    if any(not stage.hr_weight for stage in recipe.stages):
        raise RecipeError("a stage has only a teacher_weight: name a teacher with --teacher")
    quiet = {"teacher_weight": 0.0, "affinity_weight": 0.0}
    stages = [stage.model_copy(update=quiet) for stage in recipe.stages]
    return recipe.model_copy(update={"stages": stages, "teacher_ensemble": False})


def _student(recipe: AdaptRecipe, base: span.SpanNetwork, start: adapters.Adapter | None) -> nn.Module:
    plain = span_torch.from_network(base)
    if start is not None:
        adapters.check_fits(start, base)
        net = convlora.insert(plain, start.updates)
    else:
        targets = [convlora.Target(entry.convs, entry.rank, entry.alpha) for entry in recipe.lora]
        try:
            net = convlora.attach(plain, targets, recipe.seed)
        except ValueError as error:
            raise RecipeError(f"lora: {error}") from error
    return net.to(memory_format=torch.channels_last)  # type: ignore[no-any-return,call-overload]


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


def _reduce(recipe: AdaptRecipe, scale: int, part: int, hr: Uint8, number: int) -> Uint8:
    """Degrade; no picture of one part (0 trained on, 1 held out) has the noise of one of the other."""
    return degrade(hr, scale, recipe.degrade, np.random.default_rng((recipe.seed, part, number)))


def _open_stores(
    recipe: AdaptRecipe,
    sources: Sources,
    scale: int,
    folder: Path,
    reduce: Callable[[Uint8, int], Uint8] | None,
    say: Callable[[str], None],
) -> tuple[PairStore, PairStore | None]:
    """Pictures to train on and those of the guard, decoded."""
    store = open_store(
        sources.train,
        scale,
        folder / "pictures",
        say,
        reduce=reduce,
        reduced_by=json.dumps([recipe.seed, recipe.model_dump(include={"degrade"})]) if reduce else "",
        copies=recipe.copies if reduce else 1,
        window=sources.windows[0],
        sizes=recipe.sizes,
    )
    if not sources.guard:
        return store, None
    guard = folder / "guard"
    return store, open_store(sources.guard, scale, guard, say, window=sources.windows[1], sizes=recipe.sizes)


def _shrink_patches(
    recipe: AdaptRecipe, stores: list[PairStore], say: Callable[[str], None]
) -> tuple[AdaptRecipe, list[int]]:
    """Patches that at least half the pictures of every store have room for, and that divide by the scale.

    Returns:
        the recipe with them, and how many pictures of each store are trained on.
    """
    scale = stores[0].scale
    room = min(store.median_side for store in stores) * scale
    sizes = [min(stage.patch // scale * scale, room) for stage in recipe.stages]
    if any(size < stage.patch for size, stage in zip(sizes, recipe.stages, strict=True)):
        say(f"small pictures: patches of {', '.join(map(str, sizes))} pixels")
    counts = [store.large(min(sizes) // scale) for store in stores]
    for store in stores:
        store.check_patches(sizes, say)
    stages = [stage.model_copy(update={"patch": size}) for size, stage in zip(sizes, recipe.stages, strict=True)]
    return recipe.model_copy(update={"stages": stages}), counts


def _teach(
    recipe: AdaptRecipe, engine: Engine, teacher: span.SpanNetwork, store: PairStore, asked: Sequence[PairStore],
    undegraded: bool,
) -> None:  # fmt: skip
    """Let the teacher enlarge the pictures of stores; those of `store` as they were before they were degraded."""
    for target in asked:
        cache_outputs(
            target, teacher, engine, ensemble=recipe.teacher_ensemble, undegraded=undegraded and target is store
        )


def _is_cached(
    recipe: AdaptRecipe, teacher: Engine, stores: list[PairStore], undegraded: bool, seconds: float | None,
    factor: float,
) -> bool:  # fmt: skip
    """Whether the teacher enlarges the stores' pictures once, instead of the patches of every step.

    It must where it sees the pictures undegraded or in eight orientations. Else it does where there is a budget of time
    if it takes no more than a third of it; without one, if the patches are more work.

    Raises:
        RecipeError: it must, and that takes more than half of the budget.
    """
    required = undegraded or recipe.teacher_ensemble
    if not required and any(stage.affinity_weight for stage in recipe.stages):  # its features are needed at every step
        return False
    scale = stores[0].scale
    shown = sum(store.pixels / store.copies for store in stores)  # of copies one
    if seconds is None:
        areas = [stage.iterations * stage.batch * (stage.patch // scale) ** 2 for stage in recipe.stages]
        return required or shown <= factor * sum(areas)
    sample = stores[0].lr(0)[:128, :128]
    own = partial(enlarge_to_scale, teacher, scale, sample, ensemble=recipe.teacher_ensemble)
    wait = _seconds(own) * shown / (sample.size / 3)
    if required and wait > seconds / 2:
        raise RecipeError(
            f"the teacher's pictures take {wait / 60:.1f} minutes, more than half of what is left; allow more "
            "--minutes, or leave out " + ("teacher_ensemble" if recipe.teacher_ensemble else "--teacher")
        )
    return required or wait <= seconds / 3


def _plan(
    recipe: AdaptRecipe, net: nn.Module, objective: Objective, choose: Whole, sources: Sources, end: float,
    say: Callable[[str], None],
) -> tuple[float, int]:  # fmt: skip
    """Divide the time until `end` between judging and training: the stages' factor, and how many validations."""
    costs = [_seconds(partial(_step, copy.deepcopy(net), objective, stage)) for stage in recipe.stages]
    needed = sum(stage.iterations * cost for stage, cost in zip(recipe.stages, costs, strict=True))
    areas = [lr.shape[0] * lr.shape[1] for lr, _ in choose]
    validation = _seconds(partial(mean_psnr, net, choose[:1])) / areas[0] * sum(areas)
    last = 2 * validation / len(choose) * (len(sources.judge) + len(sources.general))
    left = end - time.perf_counter() - last
    validations = min(recipe.validations, max(2, int(0.25 * left / validation)))
    left -= validation * (validations + 1)
    if left < 5:
        say("no time is left but for five seconds of training; allow more --minutes")
    return max(5.0, left) / needed, validations


def _identity(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def mean_psnr(net: nn.Module, pictures: Whole) -> float:
    """Mean PSNR of a student, merged, on whole pictures; classic-y."""
    plain = convlora.detach(net, merged=True)
    assert isinstance(plain, span_torch.Span)
    return metrics.protocol("classic-y", plain.scale).mean_capped_psnr(span_torch.uint8_function(plain), pictures)


def _step(net: nn.Module, objective: Objective, stage: Stage) -> None:
    objective(net, stage, 0).backward()  # type: ignore[no-untyped-call]


def _seconds(work: Callable[[], object]) -> float:
    """Median of five, after two to warm up."""
    times = []
    for _ in range(7):
        begin = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # what a GPU was told is only begun when the call returns
        times.append(time.perf_counter() - begin)
    return float(np.median(times[2:]))
