"""Adapt a frozen base to pictures: ConvLoRA under distillation (DSCLoRA, arXiv 2504.11271), with a do-no-harm gate."""

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dsclora import adapter as adapters
from dsclora import convlora, fit, losses, metrics, span, split, weights
from dsclora.degrade import degrade
from dsclora.errors import ImageError, OutputError, RecipeError
from dsclora.pairs import Batch, Pair, PairStore, Uint8, find_pairs, open_store, read_for_validation
from dsclora.recipes import AdaptRecipe, Stage

MOST_HELD_OUT = 40
"""Pictures to choose and judge by: they are held in memory."""

WORTHWHILE = 0.001
"""A gain below, in dB, is none, however certain."""

_WINDOW = 1024  # of a picture that is judged, its middle: HR pixels high and wide
_STORE = 4 * 2**30  # bytes of decoded HR pictures, about; of very many pictures only the middle is taken

Whole = list[tuple[Uint8, Uint8]]


@dataclass(frozen=True)
class Change:
    """What an adapter does to a set of pictures, classic-y.

    Attributes:
        names: of the pictures.
        before, after: PSNR of the base and of the adapted base, dB, by picture.
    """

    names: list[str]
    before: list[float]
    after: list[float]

    @property
    def gains(self) -> list[float]:
        """After minus before, by picture."""
        return [b - a for a, b in zip(self.before, self.after, strict=True)]

    @property
    def gain(self) -> float:
        """Mean, dB."""
        return float(np.mean(self.gains))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean gain, by the paired bootstrap over pictures."""
        return metrics.bootstrap_interval(self.gains)

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "pictures": len(self.names),
            "before": round(float(np.mean(self.before)), 4),
            "after": round(float(np.mean(self.after)), 4),
            "gain": round(self.gain, 4),
            "interval": [round(v, 4) for v in self.interval],
        }


@dataclass(frozen=True)
class Sources:
    """Pictures of an adaptation.

    Attributes:
        train: to train on.
        choose: to choose the best weights by.
        judge: to judge them by at the end.
        guard: of other kinds, whose look is to be kept: trained on towards the teacher's picture of them.
        general: of other kinds, to see what is forgotten; not trained on.
    """

    train: list[Pair]
    choose: list[Pair]
    judge: list[Pair]
    guard: list[Pair] = field(default_factory=list)
    general: list[Pair] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """What an adaptation made.

    Attributes:
        adapter: at its best.
        change: on the held-out pictures.
        forgetting: on the general pictures; None where there are none.
        accepted: whether it beats the base: the gain's interval lies above 0, and the gain is at least `WORTHWHILE`.
        samples: held-out pictures, (name, LR, before, after, HR).
    """

    adapter: adapters.Adapter
    change: Change
    forgetting: Change | None
    accepted: bool
    samples: list[tuple[str, Uint8, Uint8, Uint8, Uint8]]


def find_sources(
    recipe: AdaptRecipe,
    images: Path,
    scale: int,
    valid: Path | None = None,
    guard: Path | None = None,
    general: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Sources:
    """Look at all pictures once, name the unreadable ones, and divide them by content.

    Args:
        recipe: says which share is held out.
        images: folder of HR pictures, or with `HR/` and `LRx{scale}/`.
        scale: of the base.
        valid: folder of pictures to choose and judge by, instead of a part of `images`.
        guard: folder of pictures of other kinds; a part of them is not trained on, to see what is forgotten.
        general: folder of pictures to see what is forgotten on, where there is no guard.
        say: told, in one line each, which pictures are left out and why, and how they were divided.

    Raises:
        ImageError: too few pictures.
    """
    train, choose, judge = _divide(recipe, images, scale, valid is None, say)
    if valid is not None:
        choose = judge = find_pairs(valid, scale)[:MOST_HELD_OUT]
    elif choose is judge:
        say("too few pictures to choose and to judge by different ones; the gain will be a little optimistic")
    say(f"{len(train)} pictures to train on, {len(choose)} to choose by, {len(judge)} to judge by")
    if guard is None:
        return Sources(train, choose, judge, [], find_pairs(general, scale) if general else [])
    trained, first, second = _divide(recipe, guard, scale, True, say)
    kept = first if first is second else first + second
    say(f"{len(trained)} guard pictures to train on, {len(kept)} to see what is forgotten")
    return Sources(train, choose, judge, trained, kept)


def _divide(
    recipe: AdaptRecipe, folder: Path, scale: int, hold_out: bool, say: Callable[[str], None]
) -> tuple[list[Pair], list[Pair], list[Pair]]:
    found = find_pairs(folder, scale)
    say(f"{folder}: looking at {len(found)} pictures")
    # what lies outside is neither trained on nor judged by
    window = max(_WINDOW, _window(len(found) * recipe.copies, recipe, scale))
    pairs, sketches, problems = split.sketches_of(found, window)
    for problem in problems:
        say(f"left out: {problem}")
    if not pairs:
        raise ImageError(f"{folder}: holds no readable picture")
    if not hold_out:
        return pairs, [], []
    names = [pair.name for pair in pairs]
    groups = split.group(names, sketches)
    if 2 * max(len(g) for g in groups) > len(pairs):
        named, groups = groups, split.group(names, sketches, by_name=False)
        if groups != named:
            say(f"{folder}: names are too much alike to tell crops of one picture by them; only contents are compared")
    train, choose, judge = split.hold_out(groups, recipe.holdout, MOST_HELD_OUT, recipe.seed)
    lists = [[pairs[n] for n in part] for part in (train, choose)]
    return lists[0], lists[1], lists[1] if choose is judge else [pairs[n] for n in judge]


class Objective:
    """The loss of a step: a batch, the student's and the teacher's picture of it, and the three terms.

    L = hr_weight * L_rec + teacher_weight * L_TS + affinity_weight * L_AD. With guard pictures a share of each batch is
    cut from them: there the target is the teacher's picture alone, and the distillation terms look only there.

    Args:
        recipe: weights and the rest.
        store: pictures to train on.
        guard: pictures of other kinds, or None.
        teacher: frozen; None for no distillation, or where all its pictures are in the stores.
        taps: names of the modules whose features are compared.
    """

    def __init__(
        self,
        recipe: AdaptRecipe,
        store: PairStore,
        guard: PairStore | None = None,
        teacher: span.Span | None = None,
        taps: Sequence[str] = (),
    ) -> None:
        self._recipe, self._store, self._guard, self._taps = recipe, store, guard, list(taps)
        self._teacher = teacher.eval().requires_grad_(False) if teacher is not None else None

    def __call__(self, net: nn.Module, stage: Stage, step: int) -> Tensor:
        """The loss, a scalar."""
        return sum(self.terms(net, stage, step).values(), torch.zeros(()))

    def terms(self, net: nn.Module, stage: Stage, step: int) -> dict[str, Tensor]:
        """The weighted terms: `rec`, `ts`, `ad`, and `guard`, as far as there are any."""
        seed, patch = self._recipe.seed, stage.patch // self._store.scale
        guarded = 0
        if self._guard is not None:
            guarded = min(stage.batch - 1, max(1, round(stage.batch * self._recipe.guard_share)))
        own = self._store.batch(seed, step, stage.batch - guarded, patch)
        batches = [own]
        if self._guard is not None and guarded:
            batches.append(self._guard.batch(seed + 1, step, guarded, patch))
        lr = span.to_tensor(np.concatenate([b.lr for b in batches]))
        count = len(own.lr)
        sr, features = self._run(net, lr, bool(stage.affinity_weight))
        terms = {"rec": stage.hr_weight * losses.distance(stage.loss, sr[:count], span.to_tensor(own.hr))}

        part = slice(count, None) if guarded else slice(0, count)
        distilled: Batch = batches[-1]
        live = self._teacher is not None and (distilled.teacher is None or bool(stage.affinity_weight))
        if live and (stage.teacher_weight or stage.affinity_weight or guarded):
            assert self._teacher is not None
            with torch.no_grad():
                target, wanted = self._run(self._teacher, lr[part], bool(stage.affinity_weight))
        elif distilled.teacher is not None:
            target, wanted = span.to_tensor(distilled.teacher), {}
        else:
            return terms
        weight = stage.teacher_weight or float(bool(guarded))
        if weight:
            terms["guard" if guarded else "ts"] = weight * losses.distance(stage.loss, sr[part], target)
        if stage.affinity_weight and features:
            positions = patch * patch
            rows = None
            if 0 < self._recipe.affinity.rows < positions:
                generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
                rows = torch.randperm(positions, generator=generator)[: self._recipe.affinity.rows]
            affinities = [losses.spatial_affinity(features[t][part], wanted[t], rows) for t in self._taps]
            terms["ad"] = stage.affinity_weight * sum(affinities, torch.zeros(()))
        return terms

    def _run(self, net: nn.Module, lr: Tensor, tapped: bool) -> tuple[Tensor, dict[str, Tensor]]:
        features: dict[str, Tensor] = {}

        def keep(name: str, _: nn.Module, __: Any, output: Any) -> None:
            features[name] = output[0] if isinstance(output, tuple) else output

        hooks = [
            net.get_submodule(tap).register_forward_hook(partial(keep, tap)) for tap in (self._taps if tapped else ())
        ]
        try:
            with torch.autocast("cpu", torch.bfloat16, enabled=self._recipe.precision == "bf16"):
                sr = net(lr).float()
        finally:
            for hook in hooks:
                hook.remove()
        return sr, features


def adapt(
    recipe: AdaptRecipe,
    base: weights.Model,
    sources: Sources,
    folder: Path,
    teacher: weights.Model | None = None,
    *,
    minutes: float | None = None,
    iterations: int | None = None,
    start: adapters.Adapter | None = None,
    resume: bool = False,
    overwrite: bool = False,
    report: Callable[[fit.Progress], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Train an adapter and judge it.

    Args:
        recipe: what to do.
        base: stays as it is.
        sources: from `find_sources`.
        folder: for the checkpoint, the logs and the decoded pictures.
        teacher: of the base's scale and any width. Without one there is no distillation; with guard pictures, the base
            is the teacher.
        minutes: shortens or lengthens the recipe's stages to fit, by the speed that is measured at the start.
        iterations: the same, by count.
        start: an adapter of this base to go on from, instead of a new one; its ranks count.
        resume: go on from the folder's checkpoint; the budget is that of the first start.
        overwrite: give up the folder's run, where there is one, and begin anew.
        report: called with the progress.
        say: called with a line of text for whatever else a user should know.

    Raises:
        RecipeError: recipe, base and teacher do not fit each other.
        TrainingError: as `fit.fit`.
        ImageError: no usable pictures.
        OutputError: the folder holds another run, or cannot be written.
    """
    begin = time.perf_counter()
    scale = base.scale
    if teacher is not None and teacher.scale != scale:
        raise RecipeError(f"the teacher enlarges x{teacher.scale}, the base x{scale}")
    if not resume and not overwrite and (folder / "checkpoint.pt").exists():
        raise OutputError(f"{folder}: holds a run already; go on with --resume or choose another name")
    if teacher is None and sources.guard:
        teacher = base
    if teacher is None:
        quiet = {"teacher_weight": 0.0, "affinity_weight": 0.0}
        if any(not stage.hr_weight for stage in recipe.stages):
            raise RecipeError("a stage has only a teacher_weight: name a teacher with --teacher")
        recipe = recipe.model_copy(update={"stages": [s.model_copy(update=quiet) for s in recipe.stages]})

    net = _student(recipe, base, start)
    taps = recipe.affinity.taps or convlora.sconvlbs(net)
    teaching = span.from_model(teacher).to(memory_format=torch.channels_last) if teacher is not None else None  # type: ignore[call-overload]
    _check_taps(recipe, taps, net, teaching, bool(sources.guard))
    window = _window(len(sources.train) * recipe.copies, recipe, scale)
    reduce = partial(_reduce, recipe, scale) if recipe.degrade else None
    try:
        store = open_store(
            sources.train,
            scale,
            folder / "pictures",
            say,
            reduce=reduce,
            reduced_by=json.dumps([recipe.seed, recipe.model_dump(include={"degrade"})]) if reduce else "",
            copies=recipe.copies if reduce else 1,
            window=window,
        )
        guard = None
        if sources.guard:
            guard_window = _window(len(sources.guard), recipe, scale)
            guard = open_store(sources.guard, scale, folder / "guard", say, window=guard_window)
    except OSError as error:
        raise OutputError(f"{error.filename or folder}: cannot be written ({error.strerror})") from error
    recipe = _shrink_patches(recipe, [s for s in (store, guard) if s is not None], say)
    border = metrics.protocol("classic-y", scale).border
    choose = list(read_for_validation(sources.choose, scale, border, reduce, _WINDOW))

    objective = Objective(recipe, store, guard, teaching, taps)
    plan = folder / "plan.json"
    if resume and plan.exists():
        factor = float(json.loads(plan.read_text())["factor"])
    else:
        factor = 1.0
        total = sum(stage.iterations for stage in recipe.stages)
        if iterations is not None:
            factor = iterations / total
        elif minutes is not None:
            left = 60 * minutes - (time.perf_counter() - begin)
            validation = _seconds(partial(mean_psnr, net, choose[:1])) * len(choose) * (recipe.validations + 2)
            costs = [_seconds(partial(_step, copy.deepcopy(net), objective, stage)) for stage in recipe.stages]
            needed = sum(stage.iterations * cost for stage, cost in zip(recipe.stages, costs, strict=True))
            factor = max(left - validation, 0.2 * left, 5.0) / needed
        plan.write_text(json.dumps({"factor": factor}))
    stages = _scaled(recipe.stages, factor)
    steps = sum(stage.iterations for stage in stages)
    if guard is not None or any(stage.teacher_weight for stage in stages):
        target = guard or store
        if teacher is not None and teaching is not None and not any(stage.affinity_weight for stage in stages):
            trained = sum(stage.iterations * stage.batch * (stage.patch // scale) ** 2 for stage in stages)
            clean = bool(recipe.degrade) and guard is None
            if clean or target.pixels <= trained:  # else it is quicker to let the teacher enlarge the patches
                say(f"the teacher {teacher.name} enlarges the pictures, once")
                name = teacher.fingerprint[:16] + ("-undegraded" if clean else "")
                target.add_teacher(name, span.as_function(teaching), clean)

    every = max(1, steps // recipe.validations)
    begun = sorted(start.updates.items()) if start is not None else []
    identity = hashlib.sha256(
        json.dumps(
            [
                [stage.model_dump() for stage in stages],
                recipe.model_dump(exclude={"stages"}),
                store.fingerprint(),
                guard.fingerprint() if guard else "",
                base.fingerprint,
                teacher.fingerprint if teacher else "",
                [hashlib.sha256(lr.tobytes() + hr.tobytes()).hexdigest() for lr, hr in choose],
                [[conv, hashlib.sha256(u.a.tobytes() + u.b.tobytes()).hexdigest(), u.alpha] for conv, u in begun],
            ],
            sort_keys=True,
        ).encode()
    ).hexdigest()
    fitted, best = fit.fit(
        net,
        stages,
        objective,
        lambda candidate: mean_psnr(candidate, choose),
        folder,
        ema=min(recipe.ema, 1 - 10 / max(20, steps)),  # a short run must not remember its start
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
        "recipe": recipe.model_dump(by_alias=True) | {"stage": [stage.model_dump() for stage in stages]},
        "data": {"pictures": len(sources.train), "guard": len(sources.guard), "sha256": store.fingerprint()},
        "base": base.name,
        "teacher": {"name": teacher.name, "sha256": teacher.sha256} if teacher is not None else None,
        "chosen_by": {"protocol": "classic-y", "pictures": len(choose), "psnr": round(best, 4)},
    }
    made = adapters.Adapter(convlora.extract(fitted), base.sha256, scale, base.channels, training, recipe.license)
    return judge(base, made, sources, reduce)


def judge(
    base: weights.Model,
    made: adapters.Adapter,
    sources: Sources,
    reduce: Callable[[Uint8, int], Uint8] | None = None,
    samples: int = 4,
) -> Outcome:
    """Compare a base with and without an adapter on pictures that were not trained on.

    Args:
        base, made: what to compare.
        sources: its `judge` and `general` pictures count.
        reduce: as `open_store`, of the held-out pictures.
        samples: pictures to keep for showing.
    """
    runs = [span.as_function(span.from_model(m)) for m in (base, adapters.merge(base, [(made, 1.0)]))]
    protocol = metrics.protocol("classic-y", base.scale)
    shown: list[tuple[str, Uint8, Uint8, Uint8, Uint8]] = []

    def change(pairs: list[Pair], reduced: Callable[[Uint8, int], Uint8] | None, keep: int) -> Change:
        result = Change([], [], [])
        pictures = read_for_validation(pairs, base.scale, protocol.border, reduced, _WINDOW)
        for pair, (lr, hr) in zip(pairs, pictures, strict=True):
            before, after = (run(lr) for run in runs)
            result.names.append(pair.name)
            result.before.append(protocol.score(before, hr)[0])
            result.after.append(protocol.score(after, hr)[0])
            if len(shown) < keep:
                shown.append((pair.name, lr, before, after, hr))
        return result

    held = change(sources.judge, reduce, samples)
    general = change(sources.general, None, 0) if sources.general else None
    accepted = held.interval[0] > 0 and held.gain >= WORTHWHILE
    result = {
        "protocol": "classic-y",
        "held_out": held.describe(),
        "general": general.describe() if general else None,
        "accepted": accepted,
    }
    made = replace(made, training={**made.training, "result": result})
    return Outcome(made, held, general, accepted, shown)


def _student(recipe: AdaptRecipe, base: weights.Model, start: adapters.Adapter | None) -> nn.Module:
    plain = span.from_model(base)
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
    if recipe.degrade and not guarded:
        raise RecipeError("affinity_weight: features of degraded pictures teach nothing; leave it out, or add a guard")
    if not taps:
        raise RecipeError("affinity.taps: no SConvLB to take features from (three adapted convs of a block); name taps")
    for module in (net, teacher):
        names = {name for name, _ in module.named_modules()} if module is not None else set(taps)
        if missing := [tap for tap in taps if tap not in names]:
            raise RecipeError(f"affinity.taps: {missing[0]} is not a module of the network")


def _window(pictures: int, recipe: AdaptRecipe, scale: int) -> int:
    side = math.isqrt(_STORE // 3 // max(1, pictures))
    return max(side, 2 * max(stage.patch for stage in recipe.stages)) // scale * scale


def _reduce(recipe: AdaptRecipe, scale: int, hr: Uint8, number: int) -> Uint8:
    return degrade(hr, scale, recipe.degrade, np.random.default_rng((recipe.seed, number)))


def _shrink_patches(recipe: AdaptRecipe, stores: list[PairStore], say: Callable[[str], None]) -> AdaptRecipe:
    """Patches that at least half the pictures of every store have room for, and that divide by the scale."""
    scale = stores[0].scale
    room = min(store.median_side for store in stores) * scale
    sizes = [min(stage.patch // scale * scale, room) for stage in recipe.stages]
    if any(size < stage.patch for size, stage in zip(sizes, recipe.stages, strict=True)):
        say(f"small pictures: patches of {', '.join(map(str, sizes))} pixels")
    stages = [stage.model_copy(update={"patch": size}) for size, stage in zip(sizes, recipe.stages, strict=True)]
    return recipe.model_copy(update={"stages": stages})


def _scaled(stages: Sequence[Stage], factor: float) -> list[Stage]:
    """Stages of `factor` times the length in all, at least one step; those of which nothing is left are dropped."""
    scaled, length, done = [], 0, 0
    for stage in stages:
        length += stage.iterations
        iterations = max(1, round(length * factor)) - done
        if iterations:
            warmup = min(round(stage.warmup * min(1.0, factor)), iterations - 1)
            scaled.append(stage.model_copy(update={"iterations": iterations, "warmup": warmup}))
        done += iterations
    return scaled


def mean_psnr(net: nn.Module, pictures: Whole) -> float:
    """Mean PSNR of a student, merged, on whole pictures; classic-y."""
    plain = convlora.detach(net, merged=True)
    assert isinstance(plain, span.Span)
    protocol, run = metrics.protocol("classic-y", plain.scale), span.as_function(plain)
    return float(np.mean([protocol.score(run(lr), hr)[0] for lr, hr in pictures]))


def _step(net: nn.Module, objective: Objective, stage: Stage) -> None:
    objective(net, stage, 0).backward()  # type: ignore[no-untyped-call]


def _seconds(work: Callable[[], object]) -> float:
    """Median of five, after two to warm up."""
    times = []
    for _ in range(7):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return float(np.median(times[2:]))
