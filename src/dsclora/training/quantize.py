"""Make a model hold in int8: ranges calibrated, then trained together with a low-rank update of the weights.

What is made is an adapter with ranges: `dsclora export --precision int8` writes it for a runtime. The base in floating
point is the teacher; nothing but the update and the ranges is trained.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dsclora.errors import OutputError, RecipeError
from dsclora.networks import adapter as adapters
from dsclora.networks import span, span_torch
from dsclora.pictures import metrics
from dsclora.pictures.pairs import find_pairs, read_for_validation
from dsclora.training import convlora, fake_quant, loop, losses
from dsclora.training.patches import PairStore, open_store
from dsclora.training.recipes import AdaptRecipe, Stage, averaging

CALIBRATED_ON = 48  # patches


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        adapter: with ranges.
        base: PSNR on the validation pictures, classic-y, dB, in floating point.
        calibrated: in int8 without training.
        trained: in int8 with the adapter.
    """

    adapter: adapters.Adapter
    base: float
    calibrated: float
    trained: float


def quantize(
    recipe: AdaptRecipe,
    base: span.SpanNetwork,
    train: Path,
    valid: Path,
    folder: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    report: Callable[[loop.Progress], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Calibrate, train, and give the adapter with ranges.

    Args:
        recipe: `lora`, stages, seed, averaging and clipping count; `hr_weight` weighs the originals, `teacher_weight`
            the base's own picture. It is trained in fp32, and nothing is held out: `valid` is there for that.
        base: in floating point.
        train, valid: folders of HR pictures; the best weights are chosen by PSNR on `valid`.
        folder: for the checkpoint, the log and the decoded pictures.
        resume: go on from `folder/checkpoint.pt`.
        overwrite: a run in `folder` may be replaced.
        report, say: as `fit.fit`.

    Raises:
        RecipeError: a conv that is not there, or degradations, affinity or a self-ensemble, which have no place here.
        TrainingError: as `fit.fit`.
        ImageError: a folder without usable pictures.
        OutputError: `folder` holds another run, or cannot be written.
    """
    if recipe.degrade or recipe.teacher_ensemble or any(stage.affinity_weight for stage in recipe.stages):
        raise RecipeError("quantize copies the base: leave out degrade, affinity_weight and teacher_ensemble")
    if not resume and not overwrite and (folder / "checkpoint.pt").exists():
        raise OutputError(f"{folder}: holds a run already; go on with --resume or choose another name")
    stages = [stage.model_copy(update={"precision": "fp32"}) for stage in recipe.stages]
    recipe = recipe.model_copy(update={"stages": stages})  # what it is trained in: so the header says
    protocol = metrics.protocol("classic-y", base.scale)
    validation = list(read_for_validation(find_pairs(valid, base.scale), base.scale, protocol.border))
    try:
        if not resume:  # what an interrupted start leaves must not be taken for this run's
            (folder / "checkpoint.pt").unlink(missing_ok=True)
        store = open_store(find_pairs(train, base.scale), base.scale, folder / "pictures", say, sizes=recipe.sizes)
        store.check_patches((stage.patch for stage in recipe.stages), say)
    except OSError as error:
        raise OutputError(f"{error.filename or folder}: cannot be written ({error.strerror})") from error

    teacher = span_torch.from_network(base).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    patch = recipe.stages[0].patch // base.scale
    ranges = fake_quant.calibrate(teacher, patches(store, recipe.seed, patch))
    try:
        student = convlora.attach(
            teacher, [convlora.Target(e.convs, e.rank, e.alpha) for e in recipe.lora], recipe.seed
        )
    except ValueError as error:
        raise RecipeError(f"lora: {error}") from error
    net = fake_quant.quantize(student, ranges)

    def loss(net: nn.Module, stage: Stage, step: int) -> Tensor:
        batch = store.batch(recipe.seed, step, stage.batch, stage.patch // base.scale)
        lr = span_torch.to_tensor(batch.lr)
        made = net(lr)
        with torch.inference_mode():
            wanted = teacher(lr)
        value = stage.teacher_weight * losses.distance(stage.loss, made, wanted.clone())
        if stage.hr_weight:
            value = value + stage.hr_weight * losses.distance(stage.loss, made, span_torch.to_tensor(batch.hr))
        return value

    def score(net: nn.Module) -> float:
        return protocol.mean_capped_psnr(span_torch.uint8_function(net), validation)

    in_float, calibrated = score(teacher), score(net)
    say(f"{in_float:.4f} dB in floating point, {calibrated:.4f} dB in int8 before training")
    steps = sum(stage.iterations for stage in recipe.stages)
    every = -(-steps // recipe.validations)
    ema = averaging(recipe, steps)
    fitted, best = loop.fit(
        net,
        recipe.stages,
        loss,
        score,
        folder,
        method=recipe.optimiser,
        ema=ema,
        clip=recipe.clip,
        validate_every=every,
        checkpoint_every=min(every, 200),
        identity=_identity(recipe, base, store, validation),
        resume=resume,
        validate_first=True,
        report=report,
        say=say,
    )
    result: dict[str, Any] = {"float": in_float, "calibrated": calibrated, "trained": best}
    training: dict[str, Any] = {
        "recipe": recipe.model_dump(by_alias=True) | {"ema": ema},
        "data": {"pictures": len(store), "sha256": store.fingerprint()},
        "base": base.name,
        "int8": {"protocol": "classic-y", "pictures": len(validation)} | {k: round(v, 4) for k, v in result.items()},
    }
    made = adapters.Adapter(
        convlora.extract(fake_quant.dequantize(fitted)),
        base.sha256,
        base.scale,
        base.channels,
        training,
        recipe.license,
        ranges=fake_quant.ranges_of(fitted),
    )
    return Outcome(made, in_float, calibrated, best)


def patches(store: PairStore, seed: int, patch: int) -> Iterator[Tensor]:
    """What is calibrated on."""
    for step in range(CALIBRATED_ON // 4):
        yield span_torch.to_tensor(store.batch(seed + 1, step, 4, patch).lr)


def _identity(recipe: AdaptRecipe, base: span.SpanNetwork, store: PairStore, validation: list[Any]) -> str:
    content = hashlib.sha256(json.dumps(recipe.model_dump(), sort_keys=True).encode())
    content.update(f"{base.fingerprint} {store.fingerprint()}".encode())
    for lr, hr in validation:
        content.update(lr.tobytes() + hr.tobytes())
    return content.hexdigest()
