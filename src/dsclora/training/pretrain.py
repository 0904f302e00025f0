"""Train a base model from a recipe and a folder of pictures."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dsclora.engines import Setting
from dsclora.engines.choice import open_engine
from dsclora.errors import OutputError, RecipeError, TrainingError
from dsclora.networks import span, span_torch
from dsclora.pictures import metrics
from dsclora.pictures.arrays import Uint8
from dsclora.pictures.pairs import find_pairs, read_for_validation
from dsclora.training import loop, losses, processes
from dsclora.training.patches import Batch, PairStore, open_store
from dsclora.training.recipes import PretrainRecipe, Stage, with_precision
from dsclora.training.teacher import cache_outputs


@dataclass(frozen=True)
class Outcome:
    """What pretraining made.

    Attributes:
        model: the plain network, averaged weights at their best.
        path: where it was written.
        psnr: on the validation pictures, classic-y, dB.
    """

    model: span.SpanNetwork
    path: Path
    psnr: float


def pretrain(
    recipe: PretrainRecipe,
    train: Path,
    valid: Path,
    output: Path,
    teacher: span.SpanNetwork | None = None,
    *,
    start: span.SpanNetwork | None = None,
    resume: bool = False,
    device: torch.device | str = "cpu",
    compile: bool = False,
    report: Callable[[loop.Progress], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Train, validate, and write `output/model.safetensors`.

    Args:
        recipe: what to do.
        train, valid: folders of HR pictures. The best weights are chosen by PSNR on `valid`.
        output: folder for the model, the checkpoint, the log and the decoded pictures.
        teacher: a larger model for the recipe's `teacher_weight`, of the same scale or a larger one: then its pictures
            are reduced.
        start: begin with this network's weights instead of fresh ones (`span_torch.to_training_form`): of the same
            width, any scale.
        resume: go on from `output/checkpoint.pt`.
        device: to train on. Under `torchrun`, call it inside `parallel.joined`.
        compile: run the network through `torch.compile`, on a GPU with CUDA graphs. On a CPU it needs a C++ compiler.
        report: called with the progress.
        say: called with a line of text for whatever else a user should know.

    Raises:
        RecipeError: recipe, teacher and start do not fit each other.
        TrainingError: as `fit.fit`, `fit.check_shares` and `compiled`.
        ImageError: a folder without usable pictures.
        OutputError: `output` holds another run, or cannot be written.
    """
    distilling = any(stage.teacher_weight for stage in recipe.stages)
    if distilling and teacher is None:
        raise RecipeError("the recipe has a teacher_weight: name a teacher with --teacher")
    if teacher is not None and teacher.scale < recipe.network.scale:
        raise RecipeError(f"the teacher enlarges x{teacher.scale} only, the recipe asks for x{recipe.network.scale}")
    if start is not None and start.channels != recipe.network.channels:
        raise RecipeError(f"{start.name} has {start.channels} channels, the recipe asks for {recipe.network.channels}")
    if start is not None and start.mean != span.SPAN_MEAN:
        raise RecipeError(f"{start.name} subtracts {start.mean}, not SPAN's mean; training cannot begin with it")
    loop.check_shares([stage.batch for stage in recipe.stages])
    begun = (output / "checkpoint.pt").exists()
    if begun and not resume:
        raise OutputError(f"{output}: holds a run already; go on with --resume or choose another folder")
    if not begun and (output / "model.safetensors").exists():  # not ours to replace, with --resume neither
        raise OutputError(
            f"{output}: holds a model.safetensors already, of no run that can go on; choose another folder"
        )
    if teacher is not None and not distilling:
        say(f"the recipe has no teacher_weight: {teacher.name} is not asked")

    protocol = metrics.protocol("classic-y", recipe.network.scale)
    scale = recipe.network.scale
    validation = list(read_for_validation(find_pairs(valid, scale), scale, protocol.border))

    def open_pictures() -> PairStore:
        store = open_store(find_pairs(train, scale), scale, output / "pictures", say, sizes=recipe.sizes)
        say(f"{len(store)} pictures to train on, {len(validation)} to validate on")
        store.check_patches((stage.patch for stage in recipe.stages), say)
        if distilling and teacher is not None:
            ensemble = recipe.teacher_ensemble
            ways = ", each in eight orientations" if ensemble else ""
            say(f"the teacher {teacher.name} enlarges the pictures{ways}, once")
            setting = Setting(device=torch.device(device).type, threads=torch.get_num_threads())
            teaching = open_engine(teacher, setting)
            cache_outputs(store, teacher, teaching, ensemble=ensemble)
        return store

    try:
        store = processes.rank_0_first(open_pictures)
    except OSError as error:
        raise OutputError(f"{error.filename or output}: cannot be written ({error.strerror})") from error

    torch.manual_seed(recipe.seed)
    net = span_torch.SpanTrain(recipe.network.channels, recipe.network.scale, range=recipe.network.range)
    if start is not None:
        span_torch.to_training_form(net, span.with_range(start, recipe.network.range))
    elif recipe.network.spread:
        first = store.batch(recipe.seed, 0, recipe.stages[0].batch, recipe.stages[0].patch // scale)
        span_torch.lsuv_init(net, span_torch.to_tensor(first.lr), recipe.network.spread)
    if recipe.network.form == "plain":
        net = span_torch.collapse(net)
    net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    running = compiled(net, device) if compile else net

    auto = loop.precision(output, resume, span_torch.resolve_precision("auto", torch.device(device)), say)
    stages = with_precision(recipe.stages, auto)

    def loss(_: nn.Module, stage: Stage, step: int) -> Tensor:
        batch = store.batch(recipe.seed, step, stage.batch, stage.patch // scale, processes.shard())
        return loss_of(running, batch, stage, device)

    def score(net: nn.Module) -> float:
        assert isinstance(net, span_torch.Span)
        run = span_torch.uint8_function(span_torch.collapse(net))
        return protocol.mean_capped_psnr(run, validation)

    fitted, psnr = loop.fit(
        net,
        stages,
        loss,
        score,
        output,
        method=recipe.optimiser,
        ema=recipe.ema,
        clip=recipe.clip,
        validate_every=recipe.validate_every,
        checkpoint_every=recipe.checkpoint_every,
        identity=_identity(recipe, store, validation, teacher, start),
        resume=resume,
        report=report,
        say=say,
    )
    assert isinstance(fitted, span_torch.Span)
    training: dict[str, Any] = {
        "recipe": recipe.model_dump(by_alias=True) | {"stage": [stage.model_dump() for stage in stages]},
        "pictures": len(store),
        "teacher_sha256": teacher.sha256 if distilling and teacher else None,
        "start_sha256": start.sha256 if start else None,
        "validation": {"protocol": "classic-y", "pictures": len(validation), "psnr": round(psnr, 4)},
    }
    model = span.with_range(span_torch.to_network(fitted, training, recipe.license), span.SPAN_RANGE)
    path = output / "model.safetensors"
    if processes.rank() == 0:
        span.write(path, model, overwrite=True)
    return Outcome(model, path, psnr)


def compiled(net: nn.Module, device: torch.device | str = "cpu") -> Callable[[Tensor], Tensor]:
    """The network's forward pass through `torch.compile`, on a GPU with CUDA graphs; it shares the weights.

    Raises:
        TrainingError: a CPU and no C++ compiler.
    """
    kind = torch.device(device).type
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if kind == "cpu" and not shutil.which(compiler):
        raise TrainingError(f"--compile needs a C++ compiler, and {compiler} is not here; go on without it")
    return torch.compile(net, mode="reduce-overhead" if kind == "cuda" else None, dynamic=False)


def loss_of(net: Callable[[Tensor], Tensor], batch: Batch, stage: Stage, device: torch.device | str = "cpu") -> Tensor:
    """Of a batch: the distance to the originals and to the teacher's pictures, with the stage's weights; a scalar.

    Args:
        net: any form, on the device.
        batch: patches.
        stage: its loss, weights and precision count.
        device: to compute on.
    """
    with span_torch.autocast(stage.precision, torch.device(device)):
        sr = net(span_torch.to_tensor(batch.lr, device)).float()
    value = stage.hr_weight * losses.distance(stage.loss, sr, span_torch.to_tensor(batch.hr, device))
    if batch.teacher is not None and stage.teacher_weight:
        target = span_torch.to_tensor(batch.teacher, device)
        value = value + stage.teacher_weight * losses.distance(stage.loss, sr, target)
    return value


def _identity(
    recipe: PretrainRecipe,
    store: PairStore,
    validation: list[tuple[Uint8, Uint8]],
    teacher: span.SpanNetwork | None,
    start: span.SpanNetwork | None,
) -> str:
    content = hashlib.sha256(json.dumps(recipe.model_dump(), sort_keys=True).encode())
    content.update(store.fingerprint().encode())
    for lr, hr in validation:
        content.update(lr.tobytes() + hr.tobytes())
    for role, model in (("teacher", teacher), ("start", start)):  # one and the same in another role is another run
        content.update(f"{role} {model.fingerprint if model else ''}".encode())
    return content.hexdigest()
