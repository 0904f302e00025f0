"""Training recipes: TOML files, validated before anything runs. An unknown key is an error, never ignored."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from dsclora.errors import MissingExtraError, RecipeError

try:
    from pydantic import BaseModel, ConfigDict, Field, ValidationError
except ImportError as missing:
    raise MissingExtraError("pydantic", "train", "training") from missing


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Network(_Strict):
    """The network to train.

    Attributes:
        scale: factor.
        channels: feature channels C.
        range: the network is trained on `(rgb - mean) * range`. At SPAN's 255 the loss leaps back to its start every
            thousand steps at a rate of 2e-3 (measured). The file has 255 all the same: the first conv is divided.
    """

    scale: Annotated[int, Field(ge=1, le=8)] = 4
    channels: Annotated[int, Field(ge=4, le=256)] = 26
    range: Annotated[float, Field(gt=0)] = 16.0


class Stage(_Strict):
    """A stretch of training with its own patches, loss and learning-rate curve.

    The curve rises linearly from 0 to `learning_rate` over `warmup` iterations, then falls along a half cosine to
    `final_learning_rate` at the stage's end. The optimiser's state goes on from stage to stage.

    Attributes:
        iterations: steps.
        batch: patches per step.
        patch: patch side in HR pixels, as papers count; a multiple of the scale.
        learning_rate, final_learning_rate: of Adam.
        warmup: iterations.
        loss: distance, on RGB in 0..1.
        hr_weight: of the distance to the original.
        teacher_weight: of the distance to the teacher's picture (pixel distillation); 0 without a teacher.
    """

    iterations: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=1)] = 8
    patch: Annotated[int, Field(ge=8)] = 192
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    final_learning_rate: Annotated[float, Field(ge=0)] = 1e-6
    warmup: Annotated[int, Field(ge=0)] = 0
    loss: Literal["l1", "mse"] = "l1"
    hr_weight: Annotated[float, Field(ge=0)] = 1.0
    teacher_weight: Annotated[float, Field(ge=0)] = 0.0


class PretrainRecipe(_Strict):
    """How to make a base model.

    Attributes:
        network: what to train.
        stages: one after the other.
        seed: of initialisation and patches.
        ema: decay of the averaged weights, which are what is validated and saved.
        clip: largest norm of the gradient.
        precision: of activations; weights, collapse and optimiser are float32 always.
        validate_every, checkpoint_every: iterations.
        license: written into the model file.
    """

    network: Network = Network()
    stages: Annotated[list[Stage], Field(min_length=1, alias="stage")]
    seed: Annotated[int, Field(ge=0)] = 0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    clip: Annotated[float, Field(gt=0)] = 1.0
    precision: Literal["fp32", "bf16"] = "bf16"
    validate_every: Annotated[int, Field(ge=1)] = 1000
    checkpoint_every: Annotated[int, Field(ge=1)] = 500
    license: str = "MIT"


def load(path: Path) -> PretrainRecipe:
    """Read and validate a recipe.

    Raises:
        RecipeError: unreadable, not TOML, or any key or value that is not allowed (all of them at once).
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not TOML ({error})") from error
    try:
        recipe = PretrainRecipe.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'recipe'}: {e['msg'][0].lower()}{e['msg'][1:]}" for e in error.errors()
        )
        raise RecipeError(f"{path}: {problems}") from error
    for number, stage in enumerate(recipe.stages):
        if stage.patch % recipe.network.scale:
            raise RecipeError(
                f"{path}: stage.{number}.patch: {stage.patch} does not divide by the scale, {recipe.network.scale}"
            )
        if stage.warmup >= stage.iterations:
            raise RecipeError(f"{path}: stage.{number}.warmup: {stage.warmup} takes all {stage.iterations} iterations")
        if not stage.hr_weight and not stage.teacher_weight:
            raise RecipeError(f"{path}: stage.{number}: hr_weight and teacher_weight are both 0; nothing to learn from")
    return recipe
