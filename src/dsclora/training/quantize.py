"""Train a model for int8: ranges are calibrated, then trained together with a low-rank update of the weights.

The result is an adapter with ranges: `dsclora export --precision int8` writes it for a runtime. The base in floating
point is the teacher; nothing but the update and the ranges is trained.
"""

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dsclora import zoo
from dsclora.errors import RecipeError, UsageError
from dsclora.networks import Network, span_torch
from dsclora.networks import adapter as adapters
from dsclora.pictures.pairs import find_pairs
from dsclora.training import convlora, fake_quant, loop, losses
from dsclora.training.patches import PairStore, open_store
from dsclora.training.recipes import AdaptRecipe, Stage, averaging, load_adapt, scaled
from dsclora.training.run import Progress, Run, identity, pictures_hash
from dsclora.training.task import attach
from dsclora.training.validation import ValidationSet

logger = logging.getLogger("dsclora")

CALIBRATED_ON = 48  # patches


@dataclass(frozen=True)
class Outcome:
    """A trained adapter with ranges, and the cost of int8 with and without it.

    Attributes:
        adapter: the adapter, with ranges.
        base: PSNR on the validation pictures, classic-y, dB, in floating point.
        calibrated: the same in int8 without training.
        trained: the same in int8 with the adapter.
    """

    adapter: adapters.Adapter
    base: float
    calibrated: float
    trained: float


def quantize_files(
    pictures: str | os.PathLike[str],
    *,
    valid: str | os.PathLike[str],
    output: str | os.PathLike[str],
    base: Network | str = zoo.DEFAULT,
    recipe: AdaptRecipe | str | os.PathLike[str] | None = None,
    iterations: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    report: Callable[[Progress], None] = lambda _: None,
) -> Outcome:
    """Train an adapter that keeps the picture in int8, and write it; the log and the checkpoint lie in NAME.run.

    Args:
        pictures, valid: folders of HR pictures; the best weights are chosen by PSNR on `valid`.
        output: adapter file to write.
        base: a network, a bundled model's name, or a model file.
        recipe: a recipe, or its file; by default the bundled recipe, `zoo.int8_recipe`.
        iterations: makes the recipe's stages shorter or longer.
        resume: go on from the checkpoint.
        overwrite: replace an existing file.
        report: called with the progress.

    Raises:
        UsageError: the output exists already or is no adapter's file.
        RecipeError, ModelError, ImageError, TrainingError, OutputError: as the message says.
    """
    target = Path(output)
    if target.suffix != ".safetensors" or target.is_dir():
        raise UsageError(f"{target}: an adapter's file ends in .safetensors")
    if target.exists() and not overwrite:
        raise UsageError(f"{target}: exists already; choose another --output or pass --overwrite")
    if not isinstance(recipe, AdaptRecipe):
        recipe = load_adapt(recipe if recipe is not None else zoo.int8_recipe())
    if iterations is not None:
        whole = sum(stage.iterations for stage in recipe.stages)
        recipe = recipe.model_copy(update={"stages": scaled(recipe.stages, iterations / whole)})
    network = zoo.load(base) if isinstance(base, str) else base
    run = Run(target.with_suffix(".run"), resume=resume, overwrite=overwrite, report=report)
    outcome = quantize(recipe, network, Path(pictures), Path(valid), run)
    adapters.write(target, outcome.adapter, overwrite)
    run.discard_pictures()
    return outcome


def quantize(recipe: AdaptRecipe, base: Network, train: Path, valid: Path, run: Run) -> Outcome:
    """Calibrate, train, and return the adapter with ranges.

    Args:
        recipe: its `lora`, stages, seed, averaging and clipping are used; `hr_weight` weighs the originals,
            `teacher_weight` the base's own picture. It is trained in fp32, and nothing is held out; `valid` takes that
            place.
        base: the network in floating point.
        train, valid: folders of HR pictures; the best weights are chosen by PSNR on `valid`.
        run: the folder, and whether to resume.

    Raises:
        RecipeError: a conv that is not there, or degradations, affinity or a self-ensemble, which are not supported.
        TrainingError: as `loop.Training`.
        ImageError: a folder without usable pictures.
        OutputError: the folder holds another run, or cannot be written.
    """
    recipe = _fp32(recipe.at_scale(base.scale))
    run.refuse_earlier_run()
    validation = ValidationSet.read(valid, base.scale, base.multiple)
    with run.writing():
        run.begin()
        store = open_store(find_pairs(train, base.scale), base.scale, run.folder / "pictures", sizes=recipe.sizes)
        store.check_patches(stage.patch for stage in recipe.stages)

    teacher = base.to_torch().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ranges = fake_quant.calibrate(teacher, patches(store, recipe.seed, recipe.stages[0].patch // base.scale))
    net = fake_quant.insert_fake_quant(attach(teacher, recipe), ranges)
    in_float, calibrated = validation.score(teacher), validation.score(net)
    logger.info("%.4f dB in floating point, %.4f dB in int8 before training", in_float, calibrated)
    steps = sum(stage.iterations for stage in recipe.stages)
    every, ema = -(-steps // recipe.validations), averaging(recipe, steps)
    settings = loop.Settings(ema, recipe.clip, every, min(every, 200), recipe.optimiser, validate_first=True)
    key = identity(recipe.model_dump(), base.fingerprint, store.fingerprint(), pictures_hash(validation.pictures))
    objective = _objective(recipe, store, teacher)
    fitted, best = loop.Training(net, recipe.stages, objective, validation.score, run, settings, key).train()
    result: dict[str, Any] = {"float": in_float, "calibrated": calibrated, "trained": best}
    training: dict[str, Any] = {
        "recipe": recipe.describe(ema=ema),
        "data": {"pictures": len(store), "sha256": store.fingerprint()},
        "base": base.name,
        "int8": {"protocol": "classic-y", "pictures": len(validation)} | {k: round(v, 4) for k, v in result.items()},
    }
    plain, ranges = fake_quant.dequantize(fitted), fake_quant.ranges_of(fitted)
    adapter = convlora.to_adapter(plain, base, training, recipe.license, ranges)
    return Outcome(adapter, in_float, calibrated, best)


def _fp32(recipe: AdaptRecipe) -> AdaptRecipe:
    """Return the recipe in the precision that it is trained in, so that the header says it.

    Raises:
        RecipeError: it asks for degradations, affinity or a self-ensemble.
    """
    if recipe.degrade or recipe.teacher_ensemble or any(stage.affinity_weight for stage in recipe.stages):
        raise RecipeError("quantize copies the base: leave out degrade, affinity_weight and teacher_ensemble")
    stages = [stage.model_copy(update={"precision": "fp32"}) for stage in recipe.stages]
    return recipe.model_copy(update={"stages": stages})


def _objective(recipe: AdaptRecipe, store: PairStore, teacher: nn.Module) -> Callable[[nn.Module, Stage, int], Tensor]:
    """Return the loss of a step: the distances to the base's own picture and to the original."""

    def loss(net: nn.Module, stage: Stage, step: int) -> Tensor:
        batch = store.batch(recipe.seed, step, stage.batch, stage.patch // store.scale)
        lr = span_torch.to_tensor(batch.lr)
        sr = net(lr)
        with torch.inference_mode():
            target = teacher(lr)
        value = stage.teacher_weight * losses.distance(stage.loss, sr, target.clone())
        if stage.hr_weight:
            value = value + stage.hr_weight * losses.distance(stage.loss, sr, span_torch.to_tensor(batch.hr))
        return value

    return loss


def patches(store: PairStore, seed: int, patch: int) -> Iterator[Tensor]:
    """Cut the patches that ranges are calibrated on."""
    for step in range(CALIBRATED_ON // 4):
        yield span_torch.to_tensor(store.batch(seed + 1, step, 4, patch).lr)
