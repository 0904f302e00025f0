"""A model as the file that another runtime takes, proven: loaded there, run on pictures and compared, or not kept.

Every target is made from the graph (`graph.build`) or the plain weights, adapters merged in before; the file computes
what `dsclora upscale` computes: RGB in 0..1 to RGB in 0..1, normalisation inside and, but for spandrel's, whose
programs clip, clipped.
"""

import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from dsclora import files, graph, image, weights, zoo
from dsclora.adapter import Range
from dsclora.engines import Engine, open_engine
from dsclora.errors import DscloraError, EngineError, MissingExtraError, OutputError, UsageError
from dsclora.metrics import psnr
from dsclora.weights import Model

Target = Literal["onnx", "openvino", "ncnn", "spandrel", "torchscript", "pt2"]
Precision = Literal["fp32", "fp16", "int8"]
Layout = Literal["plain", "upscayl"]
Float32 = npt.NDArray[np.float32]
Run = Callable[[Float32], Float32]
"""(1, 3, h, w) float32 in 0..1 to (1, 3, h * scale, w * scale)."""

TARGETS: tuple[Target, ...] = get_args(Target)
LIMITS: dict[Precision, tuple[float, float]] = {"fp32": (90.0, 0.5), "fp16": (60.0, 8.0), "int8": (40.0, 64.0)}
"""What a file must keep to: PSNR in dB on every photograph; levels of 255 that any pixel of these and of the other
pictures may be off, but of those that no photograph resembles."""

# They leave the ranges of int8; and of what it was never shown a network may make a picture that hangs on the last
# bits: what two runtimes make of them by the published x4 networks is up to 255 levels apart, in fp32 too, where their
# photographs agree to 134 dB (in fp16 to 75). It is measured and told; the file is kept all the same.
_OUTSIDE = ("noise", "checkers")
_PRECISIONS: dict[Precision, tuple[Target, ...]] = {
    "fp32": TARGETS,
    "fp16": ("onnx", "openvino", "ncnn"),
    "int8": ("onnx", "openvino"),
}
_FIXED: tuple[Target, ...] = ("onnx", "openvino", "torchscript", "pt2")
_WHERE: dict[Target, tuple[str, str]] = {
    "onnx": ("ort", ""),
    "spandrel": ("", "pip install spandrel torch torchvision"),
    "torchscript": ("train", ""),
    "pt2": ("train", ""),
}
_INT8 = "int8 is for photographs: checkers of single pixels and strong noise leave the ranges and come out wrong"
_OTHERWISE = "checkers of single pixels or strong noise come out otherwise: the network hangs on the last bits there"
_VNNI = "on x86 without VNNI (AVX2 alone) OpenVINO's sums of int8 products saturate: look at what is made there"
_SATURATED = "; where that is an x86 processor without VNNI: export on another one, or to onnx"
_TIMED = 5  # runs, in turn with the reference's


@dataclass(frozen=True)
class Compared:
    """A picture through the exported file.

    Attributes:
        picture: which; photographs come first.
        psnr: in dB, against our fp32 engine; infinite where equal.
        worst: the pixel that is furthest off, in levels of 255.
    """

    picture: str
    psnr: float
    worst: float


@dataclass(frozen=True)
class Report:
    """What was made and how it did.

    Attributes:
        target, precision: as asked for.
        files: what to ship.
        runtime: what it was loaded in.
        notes: what to know when it is run.
        compared: picture by picture.
        milliseconds, reference_milliseconds: medians for the largest picture, in turn: this file, and our engine.
        size: (height, width) of that picture.
    """

    target: Target
    precision: Precision
    files: tuple[Path, ...]
    runtime: str
    notes: tuple[str, ...]
    compared: tuple[Compared, ...]
    milliseconds: float
    reference_milliseconds: float
    size: tuple[int, int]

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON, which has no infinity."""
        facts = asdict(self)
        facts["compared"] = [asdict(c) | {"psnr": c.psnr if np.isfinite(c.psnr) else None} for c in self.compared]
        return facts


@dataclass(frozen=True)
class _Made:
    """Files in a folder, how to run them, and what to know."""

    runtime: str
    run: Run
    notes: tuple[str, ...] = ()


def export(
    model: Model,
    target: Target,
    folder: Path,
    *,
    precision: Precision = "fp32",
    size: tuple[int, int] | None = None,
    layout: Layout = "plain",
    ranges: Mapping[str, Range] | None = None,
    overwrite: bool = False,
) -> Report:
    """Write a model for another runtime, whole and verified, or not at all.

    Args:
        model: adapters merged in.
        target: which runtime's file.
        folder: to put it in, under the model's name; made if needed.
        precision: fp16 is of weights (OpenVINO, ncnn) or of weights and arithmetic (ONNX); int8 of the convs that have
            `ranges`.
        size: (height, width) that the file is to take, and no other; by default any.
        layout: "upscayl" for the blob names that Upscayl and realesrgan-ncnn-vulkan ask for.
        ranges: of an adapter that `dsclora quantize` made, merged into the model.
        overwrite: replace existing files.

    Raises:
        UsageError: the target has no such precision, size or layout, or the model has no name to give to the file.
        MissingExtraError: the runtime is not installed, so the file could not be verified.
        EngineError: the file computes another picture, by more than `LIMITS`; the runtime cannot convert or run it.
        OutputError: a file exists already, or cannot be written.
    """
    check(model, target, precision, size, layout, ranges)
    name = re.sub(r"[^\w.+-]", "_", model.name)  # an adapter's strength comes after a colon
    name += (f"_{size[1]}x{size[0]}" if size else "") + ("" if precision == "fp32" else f"_{precision}")
    makers: dict[Target, Callable[[Model, Path], _Made]] = {
        "onnx": partial(_onnx, precision=precision, size=size, ranges=ranges),
        "openvino": partial(_openvino, precision=precision, size=size, ranges=ranges),
        "ncnn": partial(_ncnn, precision=precision, layout=layout),
        "spandrel": _spandrel,
        "torchscript": partial(_torch, target="torchscript", size=size),
        "pt2": partial(_torch, target="pt2", size=size),
    }
    written = model
    if precision == "fp16":
        # on the usual range of 255 the first conv's weights are so small that fp16 has few bits for them, ncnn's none
        written = weights.with_range(model, 1.0)
    existed = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".export-", dir=folder))
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror})") from error
    try:
        stem = work / name
        try:
            made = makers[target](written, stem)
        except ImportError as error:
            extra, install = _WHERE.get(target, ("export", ""))
            purpose = f"--to {target}, which makes the file or proves it,"
            raise MissingExtraError(str(error.name), extra, purpose, install) from error
        except DscloraError:
            raise
        except Exception as error:  # whatever a converter raises
            raise EngineError(f"{name}: --to {target} does not work out: {error}") from error
        results = sorted(work.iterdir(), key=lambda path: (path.suffix == ".bin", path.name))
        for path in results:
            if (folder / path.name).exists() and not overwrite:
                raise OutputError(f"{folder / path.name}: exists already; choose another folder or pass --overwrite")
        if target == "ncnn" and (folder / f"{name}.xml").exists() and layout == "upscayl":
            raise OutputError(
                f"{folder}: holds an OpenVINO model whose {name}.bin this would replace; choose another folder"
            )
        if target == "openvino" and (folder / f"{name}.param").exists():
            raise OutputError(
                f"{folder}: holds an ncnn model whose {name}.bin this would replace; choose another folder"
            )
        report = _verify(model, made, target, precision, size, [folder / path.name for path in results])
        del made  # a runtime may hold its file
        for path in results:
            with files.replacing(folder / path.name, overwrite) as temporary:
                shutil.move(path, temporary)
        return report
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if not existed:
            with suppress(OSError):
                folder.rmdir()  # if it is empty: nothing came of it


def check(
    model: Model,
    target: Target,
    precision: Precision,
    size: tuple[int, int] | None,
    layout: Layout,
    ranges: Mapping[str, Range] | None,
) -> None:
    """Refuse what a target cannot be, before any file is made; arguments as `export`'s.

    Raises:
        UsageError: says what can be had.
    """
    if target not in _PRECISIONS[precision]:
        raise UsageError(f"--to {target} has no {precision}; it can be had of {', '.join(_PRECISIONS[precision])}")
    if precision == "int8" and not ranges:
        raise UsageError("int8 needs the ranges of an adapter that `dsclora quantize` made: name it with --adapter")
    if size is not None and target not in _FIXED:
        raise UsageError(f"--to {target} takes pictures of any size; --size is for {', '.join(_FIXED)}")
    if layout != "plain" and target != "ncnn":
        raise UsageError(f"--layout {layout} is for --to ncnn")
    if not model.name.strip("."):
        raise UsageError(f"{model.name!r} is no name for a file")


def _verify(
    model: Model, made: _Made, target: Target, precision: Precision, size: tuple[int, int] | None, paths: list[Path]
) -> Report:
    """Compare with our fp32 engine on photographs and on pictures made to provoke.

    Raises:
        EngineError: beyond `LIMITS`, or the runtime failed.
    """
    reference = open_engine(model)
    compared = []
    lowest, furthest = LIMITS[precision]
    photographs, provocations = _photographs(size), _provocations(size)
    for name, picture in {**photographs, **provocations}.items():
        try:
            made_of_it = np.asarray(made.run(picture), np.float64)
        except Exception as error:  # whatever a runtime raises
            raise EngineError(f"{paths[0].name}: {made.runtime} does not run it: {error}") from error
        wanted = reference(picture).astype(np.float64)
        if made_of_it.shape != wanted.shape:
            raise EngineError(f"{paths[0].name}: {made.runtime} makes {made_of_it.shape} of it, not {wanted.shape}")
        if not np.isfinite(made_of_it).all():
            raise EngineError(
                f"{paths[0].name}: {made.runtime} makes what is no number of the picture {name!r}; not kept"
            )
        if target == "spandrel":  # which clips by itself; of the others it is part of what is compared
            made_of_it = made_of_it.clip(0, 1)
        row = Compared(name, psnr(255 * made_of_it, 255 * wanted), float(np.abs(made_of_it - wanted).max() * 255))
        compared.append(row)
        if (row.worst > furthest and name not in _OUTSIDE) or (name in photographs and row.psnr < lowest):
            raise EngineError(
                f"{paths[0].name}: in {made.runtime} the picture {name!r} differs by {row.worst:.2f} levels "
                f"({row.psnr:.1f} dB); {furthest:g} levels and, on photographs, {lowest:g} dB are the limit; not kept"
                + (_SATURATED if (target, precision) == ("openvino", "int8") else "")
            )
    limits = [_INT8] if precision == "int8" else [_OTHERWISE] if any(row.worst > furthest for row in compared) else []
    timed = max(photographs.values(), key=lambda picture: picture.size)
    seconds = np.array([[_seconds(made.run, timed), _seconds(reference, timed)] for _ in range(_TIMED + 1)])
    own, ours = np.median(seconds[1:], axis=0) * 1e3
    return Report(
        target,
        precision,
        tuple(paths),
        made.runtime,
        (*made.notes, *limits),
        tuple(compared),
        float(own),
        float(ours),
        (timed.shape[2], timed.shape[3]),
    )


def _seconds(run: Run | Engine, picture: Float32) -> float:
    begin = time.perf_counter()
    run(picture)
    return time.perf_counter() - begin


def _photographs(size: tuple[int, int] | None) -> dict[str, Float32]:
    """Bundled photographs, in uneven sizes if any are taken."""
    made = {}
    shapes = [size] if size else [(256, 256), (117, 91), (64, 173)]
    for path, (height, width) in zip(image.find(zoo.general_pictures()), shapes, strict=False):
        pixels = image.read_rgb8(path)
        fill = ((0, max(0, height - pixels.shape[0])), (0, max(0, width - pixels.shape[1])), (0, 0))
        made[path.stem] = _batch(np.pad(pixels, fill, "symmetric")[:height, :width] / 255)
    return made


def _provocations(size: tuple[int, int] | None) -> dict[str, Float32]:
    """White, black, noise, checkers of one pixel: what finds an overflow, a wrong border or a wrong order of bands."""
    height, width = size or (45, 38)
    random = np.random.default_rng(0)
    checkers = np.indices((height, width)).sum(0)[..., None] % 2 * np.ones(3)
    made = {
        "white": np.ones((height, width, 3)),
        "black": np.zeros((height, width, 3)),
        "one colour": np.full((height, width, 3), (0.9, 0.1, 0.4)),
        "noise": random.random((height, width, 3)),
        "checkers": checkers,
    }
    if size is None:
        made["one pixel"] = np.full((1, 1, 3), (0.2, 0.5, 0.8))
    return {name: _batch(pixels) for name, pixels in made.items()}


def _batch(pixels: npt.NDArray[np.float64]) -> Float32:
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)


def _onnx(
    model: Model, stem: Path, precision: Precision, size: tuple[int, int] | None, ranges: Mapping[str, Range] | None
) -> _Made:
    """A file for ONNX Runtime, DirectML, TensorRT, CoreML's converters, browsers."""
    import onnxruntime

    path = _beside(stem, ".onnx")
    made = graph.build(model, half=precision == "fp16", size=size, ranges=ranges if precision == "int8" else None)
    path.write_bytes(made.SerializeToString())
    about = "a processor without fp16 arithmetic computes it in fp32: so it was verified"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return _Made(
        f"ONNX Runtime {onnxruntime.__version__}",
        lambda picture: session.run(None, {graph.INPUT: picture})[0],
        (
            f"opset {graph.OPSET}, {graph.INPUT} (NCHW, RGB, float32, 0..1) to {graph.OUTPUT}",
            _shape(size),
            *((about,) if precision == "fp16" else ()),
        ),
    )


def _shape(size: tuple[int, int] | None) -> str:
    return f"one picture of {size[1]} x {size[0]}" if size else "any batch, height and width"


def _openvino(
    model: Model, stem: Path, precision: Precision, size: tuple[int, int] | None, ranges: Mapping[str, Range] | None
) -> _Made:
    import openvino

    path = _beside(stem, ".xml")
    core = openvino.Core()
    made = graph.build(model, size=size, ranges=ranges if precision == "int8" else None)
    network = core.read_model(made.SerializeToString())
    openvino.save_model(network, path, compress_to_fp16=precision == "fp16")
    compiled = core.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    note = "verified with INFERENCE_PRECISION_HINT f32; say so too: the default of some processors is bf16"
    return _Made(
        f"OpenVINO {openvino.__version__.split('-')[0]}",
        lambda picture: np.array(compiled([picture])[0]),
        (note, _shape(size), *((_VNNI,) if precision == "int8" else ())),
    )


def _ncnn(model: Model, stem: Path, precision: Precision, layout: Layout) -> _Made:
    """`.param` and `.bin` by pnnx from the graph, for ncnn on phones and Vulkan."""
    import ncnn
    import pnnx

    if layout == "plain":  # pnnx's own way; Upscayl's has the bare name
        stem = _beside(stem, ".ncnn")
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "span.onnx"
        source.write_bytes(graph.build(model).SerializeToString())
        sizes = ["inputshape=[1,3,64,64]", "inputshape2=[1,3,80,96]"]  # two, so that neither is taken as given
        command = [str(pnnx.EXEC_PATH), str(source), *sizes, f"fp16={int(precision == 'fp16')}"]
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
        parts = [Path(scratch) / f"span.ncnn.{kind}" for kind in ("param", "bin")]
        if done.returncode or not all(part.exists() for part in parts):
            last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it says nothing"]
            raise EngineError(f"{stem.name}: pnnx does not convert it: {last[0]}")
        text = parts[0].read_text()
        source_blob, target_blob = "in0", "out0"
        if layout == "upscayl":
            text = re.sub(r"\bin0\b", "data", re.sub(r"\bout0\b", "output", text))
            source_blob, target_blob = "data", "output"
        _beside(stem, ".param").write_text(text)
        shutil.copyfile(parts[1], _beside(stem, ".bin"))
    net = ncnn.Net()
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    if net.load_param(str(_beside(stem, ".param"))) or net.load_model(str(_beside(stem, ".bin"))):
        raise EngineError(f"{stem.name}: ncnn does not load what pnnx made")

    def run(picture: Float32) -> Float32:
        extractor = net.create_extractor()
        extractor.input(source_blob, ncnn.Mat(picture[0]).clone())
        failed, made = extractor.extract(target_blob)
        if failed:
            raise RuntimeError(f"error {failed}")
        return np.array(made)[None]

    notes = [f"blobs {source_blob} (RGB, 0..1) to {target_blob}"]
    notes.append(
        "verified with fp32 arithmetic (use_fp16_arithmetic and the like off); ncnn's default on phones is fp16"
    )
    if layout == "upscayl":
        if not re.search(rf"x{model.scale}|{model.scale}x", stem.name):
            notes.append(f"Upscayl reads the factor from the name: put x{model.scale} into it")
        notes.append("copy both files into Upscayl's custom models folder")
    return _Made(f"ncnn {ncnn.__version__}", run, tuple(notes))


def _spandrel(model: Model, stem: Path) -> _Made:
    """The training form, lossless, which spandrel, chaiNNer and ComfyUI recognise."""
    import spandrel
    import torch

    plain, norm = _normalised(model)
    path = _beside(stem.with_name(f"{model.scale}x_{stem.name}"), ".safetensors")
    tensors = training_form(plain) | ({} if norm else {"no_norm": np.zeros(1, np.float32)})
    weights.write_safetensors(path, tensors, {"format": "pt"}, False)
    loaded = spandrel.ModelLoader().load_from_file(path).eval()

    def run(picture: Float32) -> Float32:
        with torch.inference_mode():
            return loaded(torch.from_numpy(picture)).numpy()  # type: ignore[no-any-return]

    found = f"{loaded.architecture.name} x{loaded.scale}"
    return _Made(f"spandrel {spandrel.__version__}", run, (f"recognised as {found}", "for chaiNNer and ComfyUI"))


def _normalised(model: Model) -> tuple[Model, bool]:
    """The same function on one of the two inputs that SPAN's class knows: whether mean and range are SPAN's.

    Raises:
        UsageError: another mean, which zero padding keeps from being folded into the first conv's bias.
    """
    if model.mean == weights.SPAN_MEAN:
        return weights.with_range(model, weights.SPAN_RANGE), True
    if not any(model.mean):
        return weights.with_range(model, 1.0), False
    raise UsageError(f"{model.name}: a SPAN in spandrel has the mean {weights.SPAN_MEAN} or none, not {model.mean}")


def training_form(model: Model) -> dict[str, Float32]:
    """The plain network as the training form that collapses to it exactly: around every 3x3 conv a 1x1 that passes on.

    The skip is zero, the first 1x1 copies the inputs into the first half of its outputs, the last one takes the first
    half; so nothing is multiplied but by 0 and 1.

    Returns:
        the official training keys, `eval_conv` among them.
    """
    made = dict(model.tensors)
    for name in weights.CONVS_3X3:
        weight, bias = (model.tensors[f"{name}.eval_conv.{kind}"] for kind in ("weight", "bias"))
        outputs, inputs = weight.shape[:2]
        middle = np.zeros((2 * outputs, 2 * inputs, 3, 3), np.float32)
        middle[:outputs, :inputs] = weight
        parts = {
            "sk": (np.zeros((outputs, inputs)), np.zeros(outputs)),
            "conv.0": (np.eye(2 * inputs, inputs), np.zeros(2 * inputs)),
            "conv.1": (middle, np.concatenate([bias, np.zeros(outputs)])),
            "conv.2": (np.eye(outputs, 2 * outputs), np.zeros(outputs)),
        }
        for part, (of_part, shift) in parts.items():
            kernel = of_part if of_part.ndim == 4 else of_part[..., None, None]
            made[f"{name}.{part}.weight"] = kernel.astype(np.float32)
            made[f"{name}.{part}.bias"] = shift.astype(np.float32)
    return made


def _torch(model: Model, stem: Path, target: Target, size: tuple[int, int] | None) -> _Made:
    """TorchScript for libtorch and phones; PT2 (`torch.export`) for AOTInductor and ExecuTorch."""
    import torch

    from dsclora import span

    class Clipped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = span.from_model(model)

        def forward(self, lr: torch.Tensor) -> torch.Tensor:
            return self.net(lr).clamp(0, 1)  # type: ignore[no-any-return]

    net = Clipped().eval()
    # what is one in an example is taken to be always one
    example = torch.zeros(1, 3, *size) if size else torch.zeros(2, 3, 40, 48)
    path = _beside(stem, ".pt" if target == "torchscript" else ".pt2")
    with torch.inference_mode():
        if target == "torchscript":
            torch.jit.trace(net, example).save(path)  # type: ignore[no-untyped-call]
            loaded = torch.jit.load(path)  # type: ignore[no-untyped-call]
        else:
            axes = dict.fromkeys((0, 2, 3), torch.export.Dim.AUTO) if size is None else {}
            torch.export.save(torch.export.export(net, (example,), dynamic_shapes=(axes or None,)), path)
            loaded = torch.export.load(path).module()

    def run(picture: Float32) -> Float32:
        with torch.inference_mode():
            return loaded(torch.from_numpy(picture)).numpy()  # type: ignore[no-any-return]

    return _Made(f"torch {torch.__version__}", run, ("NCHW, RGB, float32, 0..1", _shape(size)))


def _beside(stem: Path, suffix: str) -> Path:
    """Names may hold dots: `with_suffix` would cut them."""
    return stem.with_name(stem.name + suffix)
