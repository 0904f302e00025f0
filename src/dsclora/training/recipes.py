"""Training recipes: TOML files, validated before anything runs. An unknown key is an error, never ignored."""

import os
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from dsclora import zoo
from dsclora.errors import RecipeError, did_you_mean
from dsclora.pictures.degrade import Degradation

RecipeT = TypeVar("RecipeT", bound="Recipe")

Count = Annotated[int, Field(ge=1, le=10**9)]
Weight = Annotated[float, Field(ge=0, le=1e6)]
Sizes = Annotated[list[Annotated[float, Field(ge=0.1, le=2.0)]], Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Form = Literal["training", "plain"]
Optimiser = Literal["adam", "soap"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class NetworkSettings(_Strict):
    """The network to train.

    Attributes:
        scale: the factor that it enlarges by.
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
    range: Annotated[float, Field(gt=0, le=1e6)] = 16.0
    spread: Weight = 0.0
    form: Form = "training"


class Stage(_Strict):
    """A stretch of training with its own patches, loss and learning-rate curve.

    The curve rises linearly from 0 to `learning_rate` over `warmup` iterations, then falls along a half cosine to
    `final_learning_rate` at the stage's end. The optimiser's state goes on from stage to stage.

    Attributes:
        iterations: steps.
        batch: patches per step.
        patch: patch side in HR pixels, as papers count; a multiple of the scale.
        learning_rate, final_learning_rate: the optimiser's rates after the warm-up and at the end.
        warmup: the iterations of the linear rise.
        loss: `losses.distance`, on RGB in 0..1. "psnr" is of the size of -3 (dB over -10),
            many times what the others are: it wants weights of about 0.01.
        hr_weight: the weight of the distance to the original (L_rec).
        teacher_weight: the weight of the distance to the teacher's picture (pixel distillation, L_TS); 0 without one.
        affinity_weight: the weight of the spatial affinity to the teacher's features (L_AD); in `adapt` alone.
        precision: the type of activations; weights and optimiser are float32 always. "auto" is bf16 where the processor
            or the GPU computes in it: that takes half the time and costs nothing (1,200 more steps of span-x2 ended
            level in both), and elsewhere it takes ten times as long (measured: experiments/README.md).
    """

    iterations: Count
    batch: Annotated[int, Field(ge=1, le=2**16)] = 8
    patch: Annotated[int, Field(ge=8, le=2**16)] = 192
    learning_rate: Annotated[float, Field(gt=0, le=1e6)] = 2e-3
    final_learning_rate: Annotated[float, Field(ge=0, le=1e6)] = 1e-6
    warmup: Annotated[int, Field(ge=0, le=10**9)] = 0
    loss: Literal["l1", "mse", "psnr"] = "l1"
    hr_weight: Weight = 1.0
    teacher_weight: Weight = 0.0
    affinity_weight: Weight = 0.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.warmup >= self.iterations:
            raise ValueError(f"warmup: {self.warmup} takes all {self.iterations} iterations")
        if not self.hr_weight and not self.teacher_weight:
            raise ValueError("hr_weight and teacher_weight are both 0; nothing to learn from")
        return self


class PretrainStage(Stage):
    """A stage of a base model's training, which may begin a part of the run.

    A stage that names one of the keys below begins a part; what it names holds until a later stage names another. A
    part begins as a run with `--start` does: with the best weights of the part before, a fresh optimiser and a fresh
    average, and its steps are counted from 0.

    Attributes:
        seed, sizes, optimiser, teacher_ensemble: as `Recipe`.
        form: as `NetworkSettings`.
        validate_every: as `PretrainRecipe`.
    """

    seed: Seed | None = None
    sizes: Sizes | None = None
    optimiser: Optimiser | None = None
    form: Form | None = None
    teacher_ensemble: bool | None = None
    validate_every: Count | None = None

    @property
    def changes(self) -> dict[str, Any]:
        """The values that the stage changes for itself and the stages after it."""
        keys = PretrainStage.model_fields.keys() - Stage.model_fields.keys()
        return {key: value for key in sorted(keys) if (value := getattr(self, key)) is not None}

    @model_serializer(mode="wrap")
    def _leave_out_none(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in dump(self).items() if value is not None}


class Recipe(_Strict):
    """The keys that all recipes have.

    Attributes:
        stages: one after the other.
        seed: the seed of initialisation and patches.
        sizes: every picture is taken once at each of these factors of its own size, 1.0 as it is: sharper and softer
            ones teach a network more than one camera's.
        optimiser: "adam", or "soap", which takes three times the learning rate and from scratch gets much further in as
            many steps (measured: experiments/README.md).
        teacher_ensemble: the teacher enlarges every picture in its eight orientations, and the mean is what it teaches
            (geometric self-ensemble), for eight times the wait before training.
        ema: decay of the averaged weights, which are what is validated and saved; in `adapt` and `quantize` at most
            1 - 10 / steps (`averaging`): 0.9975 for 4,000.
        clip: largest norm of the gradient.
        license: written into the trained file.
    """

    stages: Annotated[list[Stage], Field(min_length=1, alias="stage")]
    seed: Seed = 0
    sizes: Sizes = [1.0]
    optimiser: Optimiser = "adam"
    teacher_ensemble: bool = False
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    clip: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    license: str = "MIT"

    def describe(self, stages: Sequence[Stage] | None = None, **changes: object) -> dict[str, Any]:
        """Return the recipe as a file's header has it.

        Args:
            stages: as they were trained; the recipe's by default.
            changes: other keys, as they were used.
        """
        stages = self.stages if stages is None else stages
        return self.model_dump(by_alias=True) | {"stage": [stage.model_dump() for stage in stages], **changes}


class PretrainRecipe(Recipe):
    """A recipe for a base model.

    Attributes:
        stages: one after the other; some may begin a part of the run (`PretrainStage`).
        network: the network to train.
        validate_every, checkpoint_every: iterations.
    """

    stages: Annotated[list[PretrainStage], Field(min_length=1, alias="stage")]  # type: ignore[assignment]
    network: NetworkSettings = NetworkSettings()
    validate_every: Count = 1000
    checkpoint_every: Count = 500

    @model_validator(mode="after")
    def _check(self) -> Self:
        for number, stage in enumerate(self.stages):
            if stage.patch % self.network.scale:
                raise ValueError(
                    f"stage.{number}.patch: {stage.patch} does not divide by the scale, {self.network.scale}"
                )
            if stage.affinity_weight:
                raise ValueError(f"stage.{number}.affinity_weight: is for adapt, not for pretrain")
        return self

    def parts(self) -> list["PretrainRecipe"]:
        """Return the parts of the run, each a recipe of its own whose stages change nothing."""
        parts: list[PretrainRecipe] = []
        for stage in self.stages:
            changes = stage.changes
            before = parts[-1] if parts else self
            plain = stage.model_copy(update=dict.fromkeys(changes))
            if parts and not changes:
                parts[-1] = before.model_copy(update={"stages": [*before.stages, plain]})
                continue
            if "form" in changes:
                changes["network"] = before.network.model_copy(update={"form": changes.pop("form")})
            parts.append(before.model_copy(update={**changes, "stages": [plain]}))
        return parts


class Lora(_Strict):
    """A choice of convs to adapt, with the rank and the alpha of their updates: `convlora.Target`.

    Attributes:
        convs: name of a conv in the network, or pattern with `*` and `?`; the first entry that matches counts. In a
            file it may be a list, for several entries that are equal otherwise.
        rank: r, in loralib's sense.
        alpha: the update is multiplied by `alpha / rank`.
    """

    convs: str
    rank: Annotated[int, Field(ge=1, le=256)]
    alpha: Annotated[float, Field(gt=0, le=1e6)]


class Affinity(_Strict):
    """The settings of the spatial affinity.

    Attributes:
        taps: names of the modules whose features are compared; every SConvLB by default.
        rows: positions drawn from every patch, an unbiased estimate; 0 for all of them, which on a CPU costs several
            times the network itself.
    """

    taps: list[str] = []
    rows: Annotated[int, Field(ge=0, le=10**9)] = 64


class AdaptRecipe(Recipe):
    """A recipe for an adapter.

    Attributes:
        stages, lora: those of the bundled recipe (`zoo.adapt_recipe`) by default.
        affinity: the settings of the spatial affinity, where a stage has a weight for it.
        degrade: the steps that make LR from HR; plain reduction by default.
        copies: the number of times that every picture is taken, each degraded anew.
        holdout: share of the pictures that is not trained on.
        guard_share: share of every batch that is cut from the guard pictures, where there are any.
        teach_own: with guard pictures, distil on the pictures to adapt to as well. It pays where the teacher is better
            than the base on them; where it is not (documents, and a teacher of photographs), it holds adaptation back.
        validations: the number of times in a run that the held-out pictures are enlarged.
        pixels: the unit of patches, and of blurs before the reduction: "hr", pixels of the originals, or "lr",
            pixels of what the network sees, so that one recipe fits bases of all scales (`at_scale`).
    """

    lora: Annotated[list[Lora], Field(min_length=1)]
    affinity: Affinity = Affinity()
    degrade: list[Degradation] = []
    copies: Annotated[int, Field(ge=1, le=10**4)] = 1
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.2
    guard_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    teach_own: bool = False
    validations: Count = 20
    pixels: Literal["hr", "lr"] = "hr"

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        content = dict(content)
        if missing := [key for key in ("lora", "stage") if key not in content]:
            default = tomllib.loads(zoo.adapt_recipe().read_text(encoding="utf-8"))
            content |= {key: default[key] for key in missing}
            if "stage" in missing and content.get("pixels") == "lr":
                raise ValueError("pixels: the bundled recipe's stages are in HR pixels; name a stage with its patch")
        content["lora"] = _split(content["lora"])
        return content

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sum(step.kind == "downscale" for step in self.degrade) > 1:
            raise ValueError("degrade: downscale is named twice")
        for number, stage in enumerate(self.stages):
            if self.pixels == "lr" and "patch" not in stage.model_fields_set:
                raise ValueError(f"stage.{number}.patch: is missing, and the default is in HR pixels")
        return self

    @model_serializer(mode="wrap")
    def _leave_out_hr(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in dump(self).items() if (key, value) != ("pixels", "hr")}

    def at_scale(self, scale: int) -> "AdaptRecipe":
        """Return the recipe in HR pixels of a scale; itself where it is in HR pixels already."""
        if self.pixels == "hr":
            return self
        stages = [stage.model_copy(update={"patch": stage.patch * scale}) for stage in self.stages]
        kinds = [step.kind for step in self.degrade]
        reduced = kinds.index("downscale") if "downscale" in kinds else 0
        degrade = [
            replace(step, strength=(step.strength[0] * scale, step.strength[1] * scale))
            if step.kind == "blur" and number < reduced
            else step
            for number, step in enumerate(self.degrade)
        ]
        return self.model_copy(update={"stages": stages, "degrade": degrade, "pixels": "hr"})


def _split(lora: Any) -> Any:
    """Return the entries of `lora`, of which some may name several convs, with one name or pattern each."""
    if not isinstance(lora, list):
        return lora
    entries: list[Any] = []
    for entry in lora:
        several = isinstance(entry, dict) and isinstance(entry.get("convs"), list) and entry["convs"]
        entries += [{**entry, "convs": convs} for convs in entry["convs"]] if several else [entry]
    return entries


def scaled(stages: Sequence[Stage], factor: float) -> list[Stage]:
    """Return stages of `factor` times the length in all, at least one step; empty ones are left out."""
    scaled, length, done = [], 0, 0
    for stage in stages:
        length += stage.iterations
        iterations = max(1, round(length * factor)) - done
        if iterations:
            warmup = min(round(stage.warmup * min(1.0, factor)), iterations - 1)
            scaled.append(stage.model_copy(update={"iterations": iterations, "warmup": warmup}))
        done += iterations
    return scaled


def averaging(recipe: Recipe, steps: int) -> float:
    """Return the recipe's `ema`, or less in a run of so few steps that it would remember its start."""
    return min(recipe.ema, 1 - 10 / max(20, steps))


StageT = TypeVar("StageT", bound=Stage)


def with_precision(stages: Sequence[StageT], auto: str) -> list[StageT]:
    """Return stages with `auto` for the precision of those that leave it open."""
    return [stage.model_copy(update={"precision": auto}) if stage.precision == "auto" else stage for stage in stages]


def load_pretrain(name: str | os.PathLike[str]) -> PretrainRecipe:
    """Read and validate a recipe of a base model: a file, or a bundled recipe's name.

    Raises:
        RecipeError: unreadable, not TOML, or any key or value that is not allowed (all of them at once).
    """
    return _load(_find(name, zoo.recipes()), PretrainRecipe)


def load_adapt(name: str | os.PathLike[str]) -> AdaptRecipe:
    """Read and validate a recipe of an adapter: a file, or a bundled recipe's name.

    Raises:
        RecipeError: as `load_pretrain`.
    """
    return _load(_find(name, zoo.recipes() / "adapters"), AdaptRecipe)


def _find(name: str | os.PathLike[str], folder: Path) -> Path:
    path, bundled = Path(name), sorted(file.stem for file in folder.glob("*.toml"))
    if str(name) in bundled:
        return folder / f"{name}.toml"
    if path.suffix or os.path.isfile(path):  # noqa: PTH113 (never raises)
        return path
    near, known = did_you_mean(str(name), bundled), ", ".join(bundled)
    raise RecipeError(f"no bundled recipe is called {str(name)!r}{near}, and no such file exists; bundled: {known}")


def _load(path: Path, kind: type[RecipeT]) -> RecipeT:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{path}: not TOML ({error})") from error
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"{path}: {'; '.join(_problem(e['loc'], e['msg']) for e in error.errors())}") from error


def _problem(place: tuple[int | str, ...], message: str) -> str:
    """Return a mistake as `key: what is wrong`; our own validators may begin with the rest of the key."""
    message = message.removeprefix("Value error, ")
    key = ".".join(map(str, place))
    first, colon, _ = message.partition(": ")
    if colon and " " not in first:
        return f"{key}.{message}" if key else message
    return f"{key or 'recipe'}: {message[0].lower()}{message[1:]}"
