"""A model as the file that another runtime takes, proven: loaded there, run on pictures and compared, or not kept.

Every target is made from the graph (`graph.build`) or the plain weights, adapters merged in before; the file computes
what `dsclora upscale` computes: RGB in 0..1 to RGB in 0..1, normalisation inside and, but for spandrel's, whose
programs clip, clipped.
"""

import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from dsclora import files
from dsclora.errors import DscloraError, EngineError, MissingExtraError, OutputError, UsageError
from dsclora.exports import to_ncnn, to_onnx, to_openvino, to_spandrel, to_torch, verify
from dsclora.exports.base import FIXED_SIZE, PRECISIONS, Converted, Layout, Precision, Report, Target
from dsclora.networks import span
from dsclora.networks.adapter import Range
from dsclora.networks.span import SpanNetwork

_WHERE: dict[Target, tuple[str, str]] = {
    "onnx": ("ort", ""),
    "spandrel": ("", "pip install spandrel torch torchvision"),
    "torchscript": ("train", ""),
    "pt2": ("train", ""),
}


def export(
    model: SpanNetwork,
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
    makers: dict[Target, Callable[[SpanNetwork, Path], Converted]] = {
        "onnx": partial(to_onnx.convert, precision=precision, size=size, ranges=ranges),
        "openvino": partial(to_openvino.convert, precision=precision, size=size, ranges=ranges),
        "ncnn": partial(to_ncnn.convert, precision=precision, layout=layout),
        "spandrel": to_spandrel.convert,
        "torchscript": partial(to_torch.convert, target="torchscript", size=size),
        "pt2": partial(to_torch.convert, target="pt2", size=size),
    }
    written = model
    if precision == "fp16":
        # on the usual range of 255 the first conv's weights are so small that fp16 has few bits for them, ncnn's none
        written = span.with_range(model, 1.0)
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
        report = verify.verify(model, made, target, precision, size, [folder / path.name for path in results])
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
    model: SpanNetwork,
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
    if target not in PRECISIONS[precision]:
        raise UsageError(f"--to {target} has no {precision}; it can be had of {', '.join(PRECISIONS[precision])}")
    if precision == "int8" and not ranges:
        raise UsageError("int8 needs the ranges of an adapter that `dsclora quantize` made: name it with --adapter")
    if size is not None and target not in FIXED_SIZE:
        raise UsageError(f"--to {target} takes pictures of any size; --size is for {', '.join(FIXED_SIZE)}")
    if layout != "plain" and target != "ncnn":
        raise UsageError(f"--layout {layout} is for --to ncnn")
    if not model.name.strip("."):
        raise UsageError(f"{model.name!r} is no name for a file")
