"""The Python interface: load a model, call it on pictures, and the other verbs of the command line as functions.

Everything here is a short call into the layers below, with the defaults of the command line.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dsclora import zoo
from dsclora.engines import Precision, Setting
from dsclora.engines.choice import open_engines
from dsclora.exports.base import Precision as ExportPrecision
from dsclora.exports.base import Report, Target
from dsclora.inference import jobs
from dsclora.inference.jobs import Options, Result
from dsclora.inference.model import Model, PathLike
from dsclora.inference.upscale import upscale_files
from dsclora.measure import evaluate as measure
from dsclora.networks import Network
from dsclora.networks.adapter import Adapter
from dsclora.pictures import arrays, metrics
from dsclora.pictures.pairs import find_pairs
from dsclora.pictures.write import suffix_of

if TYPE_CHECKING:
    from torch import nn

    from dsclora.networks.adaptation import Adaptation

EngineName = Literal["auto", "native", "openvino", "onnxruntime", "torch"]
Device = Literal["cpu", "cuda", "mps"]


@dataclass(frozen=True)
class Scores:
    """The figures that a model reaches on a folder of pictures.

    Attributes:
        protocol: the rules that the figures were computed by, by name.
        psnr: mean PSNR in dB.
        ssim: mean SSIM, 0..1.
        pictures: the scores by picture.
    """

    protocol: dict[str, object]
    psnr: float
    ssim: float
    pictures: tuple[measure.Score, ...]


def load(
    name: PathLike = zoo.DEFAULT,
    *,
    adapters: "PathLike | Adapter | Iterable[PathLike | Adapter | tuple[PathLike | Adapter, float]]" = (),
    engine: EngineName = "auto",
    precision: Precision = "fp32",
    device: Device = "cpu",
    threads: int | None = None,
) -> Model:
    """Load a model, with adapters merged in.

    Args:
        name: a bundled model, a bundled adapter (then with its base), or a model file.
        adapters: bundled names, files or adapters to add, each alone, as `NAME:STRENGTH`, or as (adapter, strength).
        engine: the runtime; "auto" takes the fastest that is installed.
        precision: the numbers computed with; "bf16" costs about 0.01 dB, where the processor has it.
        device: "cuda" and "mps" need PyTorch.
        threads: the number of threads of a CPU engine; all cores by default.

    Raises:
        ModelError: no such model or adapter; a file that is refused; an adapter of another base.
        EngineError, MissingExtraError: the runtime is missing on this machine, or does not fit the other choices.
    """
    if isinstance(adapters, str | os.PathLike | Adapter):
        adapters = [adapters]
    setting = Setting(engine, precision, device, threads)
    return Model(zoo.load_adapted(os.fspath(name), [_with_strength(one) for one in adapters]), setting)


def load_adapter(name: PathLike) -> Adapter:
    """Load a bundled adapter by name, or an adapter file.

    Raises:
        ModelError: no such adapter; or the file is refused.
    """
    return zoo.load_adapter(os.fspath(name))


def upscale(
    inputs: "PathLike | Iterable[PathLike]",
    output: PathLike | None = None,
    *,
    model: "Model | PathLike" = zoo.DEFAULT,
    options: Options | None = None,
    format: str | None = None,
) -> Iterator[Result]:
    """Enlarge pictures from files to files, as `dsclora upscale` does.

    Args:
        inputs: files, folders or patterns; one or several.
        output: a file, for one input, or a folder; by default beside the input, as `NAME_x4`.
        model: a loaded model, or what `load` takes.
        options: size, quality, the rule for existing files, and so on.
        format: "png", "jpg", "webp", "avif" or "tif"; by default the input's.

    Returns:
        an iterator that does the work: first a result for every input that cannot be done, then one for every picture,
        in order. A picture that fails does not stop the others; the error is in its result.

    Raises:
        UsageError: an output that names one picture for several inputs, or an unknown format.
    """
    options = options or Options()
    opened = model if isinstance(model, Model) else load(model)
    names = [os.fspath(inputs)] if isinstance(inputs, str | os.PathLike) else [os.fspath(one) for one in inputs]
    suffix = None if format is None else suffix_of(format)
    target = None if output is None else Path(output)
    planned, refused = jobs.plan_jobs(names, target, options, opened.scale, suffix)
    return _results(opened, planned, refused, options)


def _results(model: Model, planned: list[jobs.Job], refused: list[Result], options: Options) -> Iterator[Result]:
    yield from refused
    if planned:
        yield from upscale_files(open_engines(model.network, len(planned), model.setting), planned, options)


def adapt(
    pictures: PathLike,
    *,
    base: "Model | PathLike" = zoo.DEFAULT,
    output: PathLike | None = None,
    teacher: "Model | PathLike | None" = None,
    guard: PathLike | None = None,
    valid: PathLike | None = None,
    recipe: PathLike | None = None,
    minutes: float | None = None,
    iterations: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: Literal["cpu", "cuda"] = "cpu",
) -> "Adaptation":
    """Adapt a frozen model to pictures, and judge the result on some that are held out, as `dsclora adapt` does.

    It writes what the command writes: the adapter, under its name only if it beats its base, and a report page. Needs
    `pip install 'dsclora[train]'`.

    Args:
        pictures: a folder of sharp originals, as large as the results are to be.
        base: the model to adapt.
        output: the adapter file to write, `NAME.safetensors`; by default the folder's name, in the working directory.
        teacher: a stronger model to learn from; by default, with a guard and a bundled base, the bundled wide one.
        guard: a folder of pictures on which the adapted model is to stay as it was.
        valid: a folder of pictures to judge by, instead of some of `pictures`.
        recipe: a recipe file or a bundled recipe's name.
        minutes, iterations: the length of the run, by one of them.
        resume: go on from an interrupted run.
        overwrite: replace an existing adapter.
        device: the device to train on.

    Returns:
        the adapter, whether it was accepted, its gain and the files that were written.

    Raises:
        UsageError, RecipeError, ImageError, ModelError, OutputError, TrainingError: as the command says.
    """
    from dsclora.training.adapt import adapt_files

    return adapt_files(
        pictures,
        base=_named(base),
        output=output,
        teacher=None if teacher is None else _named(teacher),
        guard=guard,
        valid=valid,
        recipe=recipe,
        minutes=minutes,
        iterations=iterations,
        resume=resume,
        overwrite=overwrite,
        device=device,
    )


def attach(
    net: "nn.Module", convs: str | Sequence[str] = "*", *, rank: int = 8, alpha: float = 16.0, seed: int = 0
) -> "nn.Module":
    """Return a frozen copy of a network with low-rank updates of its convs, which compute nothing yet.

    Any `nn.Module` with `nn.Conv2d` inside will do. Only the updates require gradients.

    Args:
        net: the network; it stays as it was.
        convs: names of convs, or patterns of names with `*` and `?`.
        rank: of every update, in loralib's sense.
        alpha: updates are multiplied by `alpha / rank`.
        seed: the seed of the random numbers that they start from.

    Raises:
        ValueError: a pattern matches no conv, or the network has updates already.
        MissingExtraError: PyTorch is not installed.
    """
    from dsclora.training import convlora

    if isinstance(net, Model):
        raise TypeError("attach takes a PyTorch module: model.network.to_torch() gives one")
    patterns = [convs] if isinstance(convs, str) else convs
    return convlora.attach(net, [convlora.Target(pattern, rank, alpha) for pattern in patterns], seed)


def evaluate(
    model: "Model | PathLike", folder: PathLike, *, protocol: Literal["classic-y", "ntire-rgb"] = "classic-y"
) -> Scores:
    """Measure PSNR and SSIM over a folder, as `dsclora evaluate` does.

    Args:
        model: a loaded model, or what `load` takes.
        folder: originals, or `HR/` with `LRx4/` and the like.
        protocol: the rules to compute the figures by.

    Raises:
        ImageError: no pictures, or one that cannot be measured.
    """
    opened = model if isinstance(model, Model) else load(model)
    rules = metrics.protocol(protocol, opened.scale)
    pairs = find_pairs(Path(folder), opened.scale)

    def run(lr: arrays.Uint8) -> arrays.Uint8:
        with opened.lock:
            return measure.as_published(opened.engine, lr)

    scores = measure.scores(run, pairs, opened.scale, rules)
    psnr, ssim = measure.mean(scores)
    return Scores(rules.describe(), psnr, ssim, tuple(scores))


def export(
    model: "Model | PathLike",
    to: Target,
    folder: PathLike,
    *,
    precision: ExportPrecision = "fp32",
    size: tuple[int, int] | None = None,
    overwrite: bool = False,
) -> Report:
    """Write a model for another runtime, verified there, as `dsclora export` does.

    Args:
        model: a loaded model, or what `load` takes.
        to: "onnx", "openvino", "ncnn", "spandrel", "torchscript" or "pt2".
        folder: the folder to write into.
        precision: "fp32" or "fp16".
        size: (height, width) of the only input that the file takes; by default any.
        overwrite: replace existing files.

    Raises:
        UsageError, MissingExtraError, EngineError, OutputError: as the command says.
    """
    from dsclora.exports import export as exporter

    return exporter.export(_network(model), to, Path(folder), precision=precision, size=size, overwrite=overwrite)


def _with_strength(adapter: "PathLike | Adapter | tuple[PathLike | Adapter, float]") -> tuple[Adapter, float]:
    if isinstance(adapter, Adapter):
        return adapter, 1.0
    if isinstance(adapter, str | os.PathLike):
        return zoo.parse_adapter(os.fspath(adapter))
    if isinstance(adapter, tuple) and len(adapter) == 2 and isinstance(adapter[0], str | os.PathLike | Adapter):
        return _adapter(adapter[0]), adapter[1]
    raise TypeError(f"an adapter is a name, a file, an Adapter, or one of them with its strength, not {adapter!r}")


def _adapter(adapter: "PathLike | Adapter") -> Adapter:
    return adapter if isinstance(adapter, Adapter) else load_adapter(adapter)


def _named(model: "Model | PathLike") -> Network | str:
    """Return a loaded model's network, or the name: what depends on names of bundled models needs it."""
    return model.network if isinstance(model, Model) else os.fspath(model)


def _network(model: "Model | PathLike") -> Network:
    return model.network if isinstance(model, Model) else load(model).network
