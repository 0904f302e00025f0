"""Train a base model from a recipe and a folder of pictures."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dsclora import fit, losses, metrics, span, weights
from dsclora.errors import OutputError, RecipeError
from dsclora.pairs import PairStore, Uint8, open_store, read_pairs
from dsclora.recipes import PretrainRecipe, Stage


@dataclass(frozen=True)
class Outcome:
    """What pretraining made.

    Attributes:
        model: the plain network, averaged weights at their best.
        path: where it was written.
        psnr: on the validation pictures, classic-y, dB.
    """

    model: weights.Model
    path: Path
    psnr: float


def pretrain(
    recipe: PretrainRecipe,
    train: Path,
    valid: Path,
    output: Path,
    teacher: weights.Model | None = None,
    resume: bool = False,
    report: Callable[[fit.Progress], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Train, validate, and write `output/model.safetensors`.

    Args:
        recipe: what to do.
        train, valid: folders of HR pictures. The best weights are chosen by PSNR on `valid`.
        output: folder for the model, the checkpoint, the log and the decoded pictures.
        teacher: a larger model of the same scale, for the recipe's `teacher_weight`.
        resume: go on from `output/checkpoint.pt`.
        report: called with the progress.
        say: called with a line of text for whatever else a user should know.

    Raises:
        RecipeError: recipe and teacher do not fit each other.
        TrainingError: as `fit.fit`.
        ImageError: a folder without usable pictures.
        OutputError: `output` holds another run, or cannot be written.
    """
    distilling = any(stage.teacher_weight for stage in recipe.stages)
    if distilling and teacher is None:
        raise RecipeError("the recipe has a teacher_weight: name a teacher with --teacher")
    if teacher is not None and teacher.scale != recipe.network.scale:
        raise RecipeError(f"the teacher enlarges x{teacher.scale}, the recipe asks for x{recipe.network.scale}")
    if not resume and (output / "checkpoint.pt").exists():
        raise OutputError(f"{output}: holds a run already; go on with --resume or choose another folder")

    protocol = metrics.protocol("classic-y", recipe.network.scale)
    validation = read_pairs(valid, recipe.network.scale, protocol.border)
    try:
        store = open_store(train, recipe.network.scale, output / "pictures", say)
        if distilling and teacher is not None:
            say(f"the teacher {teacher.name} enlarges the pictures, once")
            store.add_teacher(_fingerprint(teacher)[:16], _uint8_runner(span.from_model(teacher)))
    except OSError as error:
        raise OutputError(f"{error.filename or output}: cannot be written ({error.strerror})") from error
    say(f"{len(store)} pictures to train on, {len(validation)} to validate on")

    torch.manual_seed(recipe.seed)
    net = span.SpanTrain(recipe.network.channels, recipe.network.scale, range=recipe.network.range)
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss(net: nn.Module, stage: Stage, step: int) -> Tensor:
        batch = store.batch(recipe.seed, step, stage.batch, stage.patch // recipe.network.scale)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16"):
            sr = net(_to_tensor(batch.lr)).float()
        value = stage.hr_weight * losses.distance(stage.loss, sr, _to_tensor(batch.hr))
        if batch.teacher is not None and stage.teacher_weight:
            target = _to_tensor(batch.teacher)
            value = value + stage.teacher_weight * losses.distance(stage.loss, sr, target)
        return value

    def score(net: nn.Module) -> float:
        assert isinstance(net, span.Span)
        run = _uint8_runner(span.collapse(net))
        return float(np.mean([protocol.score(run(lr), hr)[0] for _, lr, hr in validation]))

    fitted, psnr = fit.fit(
        net,
        recipe.stages,
        loss,
        score,
        output,
        ema=recipe.ema,
        clip=recipe.clip,
        validate_every=recipe.validate_every,
        checkpoint_every=recipe.checkpoint_every,
        identity=_identity(recipe, store, validation, teacher),
        resume=resume,
        report=report,
    )
    assert isinstance(fitted, span.Span)
    training: dict[str, Any] = {
        "recipe": recipe.model_dump(by_alias=True),
        "pictures": len(store),
        "teacher_sha256": teacher.sha256 if distilling and teacher else None,
        "validation": {"protocol": "classic-y", "pictures": len(validation), "psnr": round(psnr, 4)},
    }
    model = weights.with_range(span.to_model(fitted, training, recipe.license), weights.SPAN_RANGE)
    path = output / "model.safetensors"
    weights.write(path, model, overwrite=True)
    return Outcome(model, path, psnr)


def _to_tensor(batch: Uint8) -> Tensor:
    return torch.from_numpy(batch).float().div(255).to(memory_format=torch.channels_last)


def _uint8_runner(net: span.Span) -> Callable[[Uint8], Uint8]:
    """A function from an LR picture (h, w, 3) uint8 to the network's picture of it, in full precision."""
    net = net.eval()

    def run(lr: Uint8) -> Uint8:
        with torch.inference_mode():
            sr = net(_to_tensor(np.array(lr.transpose(2, 0, 1)[None])))  # a copy: stored pictures are read-only
            sr = sr.mul(255).round().clamp(0, 255).byte()
        return np.ascontiguousarray(sr[0].permute(1, 2, 0).numpy())

    return run


def _fingerprint(model: weights.Model) -> str:
    """Of what a model computes: the file's hash covers the tensors alone."""
    return hashlib.sha256(f"{model.sha256} {model.mean} {model.range}".encode()).hexdigest()


def _identity(
    recipe: PretrainRecipe,
    store: PairStore,
    validation: list[tuple[str, Uint8, Uint8]],
    teacher: weights.Model | None,
) -> str:
    content = hashlib.sha256(json.dumps(recipe.model_dump(), sort_keys=True).encode())
    content.update(store.fingerprint().encode())
    for _, lr, hr in validation:
        content.update(lr.tobytes() + hr.tobytes())
    content.update((_fingerprint(teacher) if teacher else "").encode())
    return content.hexdigest()
