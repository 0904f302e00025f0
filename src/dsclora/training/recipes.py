"""Training recipes: TOML files, validated before anything runs. An unknown key is an error, never ignored."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from dsclora.errors import MissingExtraError, RecipeError
from dsclora.pictures.degrade import Degradation

try:
    from pydantic import BaseModel, ConfigDict, Field, ValidationError
except ImportError as missing:
    raise MissingExtraError("pydantic", "train", "training") from missing


RecipeT = TypeVar("RecipeT", bound="Training")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Network(_Strict):
    """The network to train.

    Attributes:
        scale: factor.
        channels: feature channels C.
        range: the network is trained on `(rgb - mean) * range`. At SPAN's 255 the loss leaps back to its start every
            thousand steps at a rate of 2e-3 (measured). The file has 255 all the same: the first conv is divided.
        spread: standard deviation of every 3x3 conv's output on a first batch, to which its weights are scaled before
            training; 0 leaves them as they are drawn. Without it each attention of a fresh SPAN multiplies by nearly
            zero, and it takes thousands of steps until the middle blocks do anything (measured).
        form: what is trained: "training", every 3x3 conv as four (Conv3XC), or "plain", as it will be used, which is
            faster and enough for SOAP.
    """

    scale: Annotated[int, Field(ge=1, le=8)] = 4
    channels: Annotated[int, Field(ge=4, le=256)] = 26
    range: Annotated[float, Field(gt=0)] = 16.0
    spread: Annotated[float, Field(ge=0)] = 0.0
    form: Literal["training", "plain"] = "training"


class Stage(_Strict):
    """A stretch of training with its own patches, loss and learning-rate curve.

    The curve rises linearly from 0 to `learning_rate` over `warmup` iterations, then falls along a half cosine to
    `final_learning_rate` at the stage's end. The optimiser's state goes on from stage to stage.

    Attributes:
        iterations: steps.
        batch: patches per step.
        patch: patch side in HR pixels, as papers count; a multiple of the scale.
        learning_rate, final_learning_rate: of the optimiser.
        warmup: iterations.
        loss: `losses.distance`, on RGB in 0..1. "psnr" is of the size of -3 (dB over -10),
            many times what the others are: it wants weights of about 0.01.
        hr_weight: of the distance to the original (L_rec).
        teacher_weight: of the distance to the teacher's picture (pixel distillation, L_TS); 0 without a teacher.
        affinity_weight: of the spatial affinity to the teacher's features (L_AD); in `adapt` alone.
        precision: of activations; weights and optimiser are float32 always. "auto" is bf16 where the processor or the
            GPU computes in it: that takes half the time and costs nothing (1,200 more steps of span-x2 ended level in
            both), and elsewhere it takes ten times as long (measured: experiments/README.md).
    """

    iterations: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=1)] = 8
    patch: Annotated[int, Field(ge=8)] = 192
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    final_learning_rate: Annotated[float, Field(ge=0)] = 1e-6
    warmup: Annotated[int, Field(ge=0)] = 0
    loss: Literal["l1", "mse", "psnr"] = "l1"
    hr_weight: Annotated[float, Field(ge=0)] = 1.0
    teacher_weight: Annotated[float, Field(ge=0)] = 0.0
    affinity_weight: Annotated[float, Field(ge=0)] = 0.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"


class Training(_Strict):
    """What all recipes have.

    Attributes:
        stages: one after the other.
        seed: of initialisation and patches.
        sizes: every picture is taken once at each of these factors of its own size, 1.0 as it is: sharper and softer
            ones teach a network more than one camera's.
        optimiser: "adam", or "soap", which takes three times the learning rate and from scratch gets much further in as
            many steps (measured: experiments/README.md).
        teacher_ensemble: the teacher enlarges every picture in its eight orientations, and the mean is what it teaches
            (geometric self-ensemble), for eight times the wait before training.
        ema: decay of the averaged weights, which are what is validated and saved; in `adapt` and `quantize` at most
            1 - 10 / steps (`averaging`): 0.9975 for 4,000.
        clip: largest norm of the gradient.
        license: written into the file that is made.
    """

    stages: Annotated[list[Stage], Field(min_length=1, alias="stage")]
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    sizes: Annotated[list[Annotated[float, Field(ge=0.1, le=2.0)]], Field(min_length=1)] = [1.0]
    optimiser: Literal["adam", "soap"] = "adam"
    teacher_ensemble: bool = False
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    clip: Annotated[float, Field(gt=0)] = 1.0
    license: str = "MIT"


class PretrainRecipe(Training):
    """How to make a base model.

    Attributes:
        network: what to train.
        validate_every, checkpoint_every: iterations.
    """

    network: Network = Network()
    validate_every: Annotated[int, Field(ge=1)] = 1000
    checkpoint_every: Annotated[int, Field(ge=1)] = 500


class Lora(_Strict):
    """Which convs are adapted, and how: `convlora.Target`.

    Attributes:
        convs: name of a conv in the network, or pattern with `*` and `?`; the first entry that matches counts.
        rank: r, in loralib's sense.
        alpha: the update is multiplied by `alpha / rank`.
    """

    convs: str
    rank: Annotated[int, Field(ge=1, le=256)]
    alpha: Annotated[float, Field(gt=0)]


class Affinity(_Strict):
    """How the spatial affinity is computed.

    Attributes:
        taps: names of the modules whose features are compared; every SConvLB by default.
        rows: positions drawn from every patch, an unbiased estimate; 0 for all of them, which on a CPU costs several
            times the network itself.
    """

    taps: list[str] = []
    rows: Annotated[int, Field(ge=0)] = 64


class AdaptRecipe(Training):
    """How to make an adapter.

    Attributes:
        lora: which convs are adapted.
        affinity: how the spatial affinity is computed, where a stage has a weight for it.
        degrade: how LR is made from HR; plainly reduced by default.
        copies: how often every picture is taken, each degraded anew.
        holdout: share of the pictures that is not trained on.
        guard_share: share of every batch that is cut from the guard pictures, where there are any.
        teach_own: with guard pictures, distil on the pictures to adapt to as well. It pays where the teacher is better
            than the base on them; where it is not (documents, and a teacher of photographs), it holds adaptation back.
        validations: how often in a run the held-out pictures are enlarged.
    """

    lora: Annotated[list[Lora], Field(min_length=1)]
    affinity: Affinity = Affinity()
    degrade: list[Degradation] = []
    copies: Annotated[int, Field(ge=1)] = 1
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.2
    guard_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    teach_own: bool = False
    validations: Annotated[int, Field(ge=1)] = 20


def scaled(stages: Sequence[Stage], factor: float) -> list[Stage]:
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


def averaging(recipe: Training, steps: int) -> float:
    """The recipe's `ema`, or less in a run of so few steps that it would remember its start."""
    return min(recipe.ema, 1 - 10 / max(20, steps))


def with_precision(stages: Sequence[Stage], auto: str) -> list[Stage]:
    """Stages with `auto` for the precision of those that leave it open."""
    return [stage.model_copy(update={"precision": auto}) if stage.precision == "auto" else stage for stage in stages]


def load_pretrain(path: Path) -> PretrainRecipe:
    """Read and validate a recipe of a base model.

    Raises:
        RecipeError: unreadable, not TOML, or any key or value that is not allowed (all of them at once).
    """
    recipe = _load(path, PretrainRecipe)
    for number, stage in enumerate(recipe.stages):
        if stage.patch % recipe.network.scale:
            raise RecipeError(
                f"{path}: stage.{number}.patch: {stage.patch} does not divide by the scale, {recipe.network.scale}"
            )
        if stage.affinity_weight:
            raise RecipeError(f"{path}: stage.{number}.affinity_weight: is for adapt, not for pretrain")
    return recipe


def load_adapt(path: Path) -> AdaptRecipe:
    """Read and validate a recipe of an adapter.

    Raises:
        RecipeError: as `load_pretrain`.
    """
    recipe = _load(path, AdaptRecipe)
    if sum(step.kind == "downscale" for step in recipe.degrade) > 1:
        raise RecipeError(f"{path}: degrade: downscale is named twice")
    return recipe


def _load(path: Path, kind: type[RecipeT]) -> RecipeT:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{path}: not TOML ({error})") from error
    try:
        recipe = kind.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'recipe'}: {e['msg'][0].lower()}{e['msg'][1:]}" for e in error.errors()
        )
        raise RecipeError(f"{path}: {problems}") from error
    for number, stage in enumerate(recipe.stages):
        if stage.warmup >= stage.iterations:
            raise RecipeError(f"{path}: stage.{number}.warmup: {stage.warmup} takes all {stage.iterations} iterations")
        if not stage.hr_weight and not stage.teacher_weight:
            raise RecipeError(f"{path}: stage.{number}: hr_weight and teacher_weight are both 0; nothing to learn from")
    return recipe
