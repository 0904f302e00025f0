"""Train a base model from a recipe and a folder of pictures."""

import logging
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from dsclora import zoo
from dsclora.errors import OutputError, RecipeError, TrainingError
from dsclora.networks import Network, span, span_torch
from dsclora.networks.span import SpanNetwork
from dsclora.pictures.pairs import find_pairs
from dsclora.training import loop, losses, processes
from dsclora.training.patches import Batch, PairStore, open_store
from dsclora.training.recipes import PretrainRecipe, PretrainStage, Stage, load_pretrain, with_precision
from dsclora.training.run import Progress, Run, identity, pictures_hash
from dsclora.training.teacher import announce, cache_outputs, open_teacher
from dsclora.training.validation import ValidationSet

logger = logging.getLogger("dsclora")


@dataclass(frozen=True)
class Outcome:
    """A pretrained model.

    Attributes:
        model: the plain network, averaged weights at their best.
        path: its file.
        psnr: on the validation pictures, classic-y, dB.
    """

    model: SpanNetwork
    path: Path
    psnr: float


def pretrain_files(
    recipe: PretrainRecipe | str | os.PathLike[str],
    *,
    train: str | os.PathLike[str],
    valid: str | os.PathLike[str],
    output: str | os.PathLike[str],
    teacher: Network | str | None = None,
    start: Network | str | None = None,
    resume: bool = False,
    device: torch.device | str = "cpu",
    compile: bool = False,
    report: Callable[[Progress], None] = lambda _: None,
) -> Outcome:
    """Train a base model and write `output/model.safetensors`; the log and the checkpoint lie beside it.

    Args:
        recipe: a recipe, its file, or a bundled recipe's name.
        train, valid: folders of HR pictures. The best weights are chosen by PSNR on `valid`.
        output: folder to write into; the decoded pictures in it are removed at the end.
        teacher, start: as `pretrain`, or a bundled model's name, or a model file.
        resume: go on from `output/checkpoint.pt`.
        device: "cpu" or "cuda" to train on.
        compile: as `pretrain`.
        report: called with the progress.

    Raises:
        RecipeError, ModelError, ImageError, TrainingError, OutputError: as the message says.
    """
    recipe = recipe if isinstance(recipe, PretrainRecipe) else load_pretrain(recipe)
    with processes.joined(device) as joined:
        teaching = zoo.load(teacher) if isinstance(teacher, str) else teacher
        origin = zoo.load(start) if isinstance(start, str) else start
        if origin is not None and not isinstance(origin, SpanNetwork):
            raise RecipeError(f"{origin.name} is no SPAN; a recipe trains SPANs alone")
        run = Run(Path(output), resume=resume, device=joined, report=report)
        outcome = pretrain(recipe, Path(train), Path(valid), run, teaching, start=origin, compile=compile)
        run.discard_pictures()
    return outcome


def pretrain(
    recipe: PretrainRecipe,
    train: Path,
    valid: Path,
    run: Run,
    teacher: Network | None = None,
    *,
    start: SpanNetwork | None = None,
    compile: bool = False,
) -> Outcome:
    """Train, validate, and write `model.safetensors` into the run's folder.

    Args:
        recipe: the recipe, of one part or several.
        train, valid: folders of HR pictures. The best weights are chosen by PSNR on `valid`.
        run: the folder, and whether to resume; under `torchrun`, call this inside `processes.joined`.
        teacher: a larger model for the recipe's `teacher_weight`, of the same scale or a larger one: then its pictures
            are reduced.
        start: begin with this model's weights, in training form, instead of fresh ones: of the same width, any scale.
        compile: run the network through `torch.compile`, on a GPU with CUDA graphs. On a CPU it needs a C++ compiler.

    Raises:
        RecipeError: recipe, teacher and start do not fit each other.
        TrainingError: as `loop.Training`, `loop.check_shares` and `compiled`.
        ImageError: a folder without usable pictures.
        OutputError: the folder holds another run, or cannot be written.
    """
    distilling = any(stage.teacher_weight for stage in recipe.stages)
    _check(recipe, run, teacher, start)
    if teacher is not None and not distilling:
        logger.info("the recipe has no teacher_weight: %s is not used", teacher.name)
    validation = ValidationSet.read(valid, recipe.network.scale)
    with run.writing():
        run.begin()
    job = _Job(recipe, train, validation, run, teacher, start, compile)
    parts, model, psnr = recipe.parts(), start, 0.0
    for number in range(min(run.saved_part(), len(parts) - 1), len(parts)):
        model, psnr = job.train_part(number, model)
    assert model is not None
    training: dict[str, Any] = {
        "recipe": recipe.describe(with_precision(recipe.stages, run.precision())),
        "pictures": job.pictures,
        "teacher_sha256": teacher.sha256 if distilling and teacher else None,
        "start_sha256": start.sha256 if start else None,
        "validation": {"protocol": "classic-y", "pictures": len(validation), "psnr": round(psnr, 4)},
    }
    model = model.with_weights(model.weights, training=training, license=recipe.license)
    path = run.folder / "model.safetensors"
    if processes.rank() == 0:
        span.write(path, model, overwrite=True)
    return Outcome(model, path, psnr)


def _check(recipe: PretrainRecipe, run: Run, teacher: Network | None, start: SpanNetwork | None) -> None:
    """Check recipe, run, teacher and start against each other."""
    if any(stage.teacher_weight for stage in recipe.stages) and teacher is None:
        raise RecipeError("the recipe has a teacher_weight: name a teacher with --teacher")
    if teacher is not None and teacher.scale < recipe.network.scale:
        raise RecipeError(f"the teacher enlarges x{teacher.scale} only, the recipe asks for x{recipe.network.scale}")
    if start is not None and start.channels != recipe.network.channels:
        raise RecipeError(f"{start.name} has {start.channels} channels, the recipe asks for {recipe.network.channels}")
    if start is not None and start.mean != span.SPAN_MEAN:
        raise RecipeError(f"{start.name} subtracts {start.mean}, not SPAN's mean; training cannot begin with it")
    loop.check_shares([stage.batch for stage in recipe.stages])
    run.refuse_earlier_run("folder")
    if not run.has_begun and (run.folder / "model.safetensors").exists():  # another run's
        raise OutputError(
            f"{run.folder}: holds a model.safetensors already, and no run to go on with; choose another folder"
        )


@dataclass
class _Job:
    """The inputs that all parts of a run share; `train_part` trains one of them."""

    recipe: PretrainRecipe
    train: Path
    validation: ValidationSet
    run: Run
    teacher: Network | None
    start: SpanNetwork | None
    compile: bool
    pictures: int = 0

    def train_part(self, number: int, start: SpanNetwork | None) -> tuple[SpanNetwork, float]:
        """Train a part, from what the part before ended with, and return its best weights and their score."""
        parts = self.recipe.parts()
        recipe, scale, run = parts[number], self.recipe.network.scale, self.run
        with run.writing():
            store = processes.rank_0_first(lambda: self._open_pictures(recipe))
        self.pictures = len(store)
        net = _network(recipe, store, start).to(run.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        forward = compiled(net, run.device) if self.compile else net

        def objective(_: nn.Module, stage: PretrainStage, step: int) -> Tensor:
            batch = store.batch(recipe.seed, step, stage.batch, stage.patch // scale, processes.shard())
            return loss_of(forward, batch, stage, run.device)

        every, checkpoint = recipe.validate_every, recipe.checkpoint_every
        settings = loop.Settings(recipe.ema, recipe.clip, every, checkpoint, recipe.optimiser)
        steps = [sum(stage.iterations for stage in part.stages) for part in parts]
        fitted, psnr = loop.Training(
            net,
            with_precision(recipe.stages, run.precision()),
            objective,
            lambda candidate: self.validation.score(span_torch.collapse(cast(span_torch.Span, candidate))),
            run,
            settings,
            self._identity(number, store),
            loop.Part(number, sum(steps[:number]), sum(steps)),
        ).train()
        model = span_torch.to_network(cast(span_torch.Span, fitted), {}, recipe.license)
        return span.with_range(model, span.SPAN_RANGE), psnr

    def _open_pictures(self, recipe: PretrainRecipe) -> PairStore:
        scale = recipe.network.scale
        store = open_store(find_pairs(self.train, scale), scale, self.run.folder / "pictures", sizes=recipe.sizes)
        logger.info("%d pictures to train on, %d to validate on", len(store), len(self.validation))
        store.check_patches(stage.patch for stage in recipe.stages)
        if self.teacher is not None and any(stage.teacher_weight for stage in recipe.stages):
            announce(self.teacher, recipe.teacher_ensemble)
            engine = open_teacher(self.teacher, self.run.device)
            cache_outputs(store, self.teacher, engine, ensemble=recipe.teacher_ensemble)
        return store

    def _identity(self, number: int, store: PairStore) -> str:
        return identity(
            self.recipe.model_dump(),
            number,
            store.fingerprint(),
            pictures_hash(self.validation.pictures),
            # the role is hashed too: a model as teacher is not the same run as that model as start
            {"teacher": self.teacher.fingerprint if self.teacher else "", "start": _fingerprint(self.start)},
        )


def _fingerprint(model: SpanNetwork | None) -> str:
    return model.fingerprint if model is not None else ""


def _network(recipe: PretrainRecipe, store: PairStore, start: SpanNetwork | None) -> span_torch.Span:
    """Make the network that is trained: fresh, or with the weights of another one; in the recipe's form."""
    settings, stage = recipe.network, recipe.stages[0]
    torch.manual_seed(recipe.seed)
    net = span_torch.SpanTrain(settings.channels, settings.scale, range=settings.range)
    if start is not None:
        span_torch.to_training_form(net, span.with_range(start, settings.range))
    elif settings.spread:
        first = store.batch(recipe.seed, 0, stage.batch, stage.patch // settings.scale)
        span_torch.lsuv_init(net, span_torch.to_tensor(first.lr), settings.spread)
    return span_torch.collapse(net) if settings.form == "plain" else net


def compiled(net: nn.Module, device: torch.device | str = "cpu") -> Callable[[Tensor], Tensor]:
    """Return the network's forward pass through `torch.compile`, on a GPU with CUDA graphs; it shares the weights.

    Raises:
        TrainingError: a CPU and no C++ compiler.
    """
    kind = torch.device(device).type
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if kind == "cpu" and not shutil.which(compiler):
        raise TrainingError(f"--compile needs a C++ compiler, and {compiler} is not installed; leave it out")
    return torch.compile(net, mode="reduce-overhead" if kind == "cuda" else None, dynamic=False)


def loss_of(net: Callable[[Tensor], Tensor], batch: Batch, stage: Stage, device: torch.device | str = "cpu") -> Tensor:
    """Return the loss of a batch, a scalar: the weighted distances to the originals and to the teacher's pictures.

    Args:
        net: the network in any form, on the device.
        batch: the patches.
        stage: the stage, for its loss, weights and precision.
        device: the device to compute on.
    """
    with span_torch.autocast(stage.precision, torch.device(device)):
        sr = net(span_torch.to_tensor(batch.lr, device)).float()
    value = stage.hr_weight * losses.distance(stage.loss, sr, span_torch.to_tensor(batch.hr, device))
    if batch.teacher is not None and stage.teacher_weight:
        target = span_torch.to_tensor(batch.teacher, device)
        value = value + stage.teacher_weight * losses.distance(stage.loss, sr, target)
    return value
