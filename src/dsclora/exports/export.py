"""Export a network to a file for another runtime; the file is loaded there, run and compared, or not kept.

Every target is made from the network's ONNX model or PyTorch module, adapters merged in before. The file computes what
`dsclora upscale` computes: RGB in 0..1 to RGB in 0..1, normalisation inside and, except for spandrel, whose programs
clip, clipped.
"""

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from dsclora import files
from dsclora.errors import DscloraError, EngineError, MissingExtraError, OutputError, UsageError
from dsclora.exports import to_ncnn, to_onnx, to_openvino, to_spandrel, to_torch, verify
from dsclora.exports.base import (
    FIXED_SIZE,
    INT8_ARCHITECTURES,
    PRECISIONS,
    TARGETS,
    Converted,
    Layout,
    Precision,
    Report,
    Target,
)
from dsclora.networks import Network, check_size
from dsclora.networks.adapter import Range

_WHERE: dict[Target, tuple[str, str]] = {
    "onnx": ("ort", ""),
    "spandrel": ("", "pip install spandrel torch torchvision"),
    "torchscript": ("train", ""),
    "pt2": ("train", ""),
}
"""The extra that brings a target's runtime, or the command that installs it; ("export", "") for the others."""


def export(
    network: Network,
    target: Target,
    folder: Path,
    *,
    precision: Precision = "fp32",
    size: tuple[int, int] | None = None,
    layout: Layout = "plain",
    ranges: Mapping[str, Range] | None = None,
    overwrite: bool = False,
) -> Report:
    """Write a network for another runtime, whole and verified, or not at all.

    Args:
        network: the network, adapters merged in.
        target: the kind of file.
        folder: the folder to write it into, under the network's name; made if needed.
        precision: "fp16" applies to weights (OpenVINO, ncnn) or to weights and arithmetic (ONNX), "int8" to the convs
            that have `ranges`.
        size: (height, width) of the only pictures that the file takes; by default any.
        layout: "upscayl" for the blob names that Upscayl and realesrgan-ncnn-vulkan ask for.
        ranges: the ranges of an adapter by `dsclora quantize` that is merged into the network.
        overwrite: replace existing files.

    Raises:
        UsageError: the target has no such precision, size, layout or kind of network, or the network's name is not one
            for a file.
        ModelError: the network has no form in that precision.
        MissingExtraError: the runtime is not installed, so the file could not be verified.
        EngineError: the file computes another picture, by more than `LIMITS`; the runtime cannot convert or run it.
        OutputError: a file exists already, or cannot be written.
    """
    check(network, target, precision, size, layout, ranges)
    name = re.sub(r"[^\w.+-]", "_", network.name)  # an adapter's strength comes after a colon
    name += (f"_{size[1]}x{size[0]}" if size else "") + ("" if precision == "fp32" else f"_{precision}")
    makers: dict[Target, Callable[[Network, Path], Converted]] = {
        "onnx": partial(to_onnx.convert, precision=precision, size=size, ranges=ranges),
        "openvino": partial(to_openvino.convert, precision=precision, size=size, ranges=ranges),
        "ncnn": partial(to_ncnn.convert, precision=precision, layout=layout),
        "spandrel": to_spandrel.convert,
        "torchscript": partial(to_torch.convert, target="torchscript", size=size),
        "pt2": partial(to_torch.convert, target="pt2", size=size),
    }
    source = network.scaled_for_fp16() if precision == "fp16" else network
    with _work_folder(folder) as work:
        converted = _convert(makers[target], source, work / name, target)
        results = sorted(work.iterdir(), key=lambda path: (path.suffix == ".bin", path.name))
        _check_targets(folder, [path.name for path in results], name, target, layout, overwrite)
        report = verify.verify(network, converted, target, precision, size, [folder / path.name for path in results])
        del converted  # a runtime may keep its file open
        for path in results:
            with files.replacing(folder / path.name, overwrite) as temporary:
                shutil.move(path, temporary)
        return report


@contextmanager
def _work_folder(folder: Path) -> Iterator[Path]:
    """Make a temporary folder inside `folder`, and remove what is empty or temporary at the end.

    Raises:
        OutputError: it cannot be made.
    """
    existed = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".export-", dir=folder))
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror})") from error
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if not existed:
            with suppress(OSError):
                folder.rmdir()  # fails unless it is empty: the export failed


def _convert(maker: Callable[[Network, Path], Converted], network: Network, stem: Path, target: Target) -> Converted:
    """Run a converter, and turn its errors into ours."""
    try:
        return maker(network, stem)
    except ImportError as error:
        extra, install = _WHERE.get(target, ("export", ""))
        purpose = f"--to {target}, which makes the file or proves it,"
        raise MissingExtraError(str(error.name), extra, purpose, install) from error
    except DscloraError:
        raise
    except Exception as error:  # converters have no common type of error
        raise EngineError(f"{stem.name}: --to {target} cannot convert it: {error}") from error


def _check_targets(folder: Path, names: list[str], stem: str, target: Target, layout: Layout, overwrite: bool) -> None:
    """Check that no file would be replaced without leave, nor a file that another target shares.

    Raises:
        OutputError: says which.
    """
    for name in names:
        if (folder / name).exists() and not overwrite:
            raise OutputError(f"{folder / name}: exists already; choose another folder or pass --overwrite")
    if target == "ncnn" and (folder / f"{stem}.xml").exists() and layout == "upscayl":
        raise OutputError(
            f"{folder}: holds an OpenVINO model whose {stem}.bin this would replace; choose another folder"
        )
    if target == "openvino" and (folder / f"{stem}.param").exists():
        raise OutputError(f"{folder}: holds an ncnn model whose {stem}.bin this would replace; choose another folder")


def check(
    network: Network,
    target: Target,
    precision: Precision,
    size: tuple[int, int] | None,
    layout: Layout,
    ranges: Mapping[str, Range] | None,
) -> None:
    """Check that an export is possible, before any file is made; arguments as `export`'s.

    Raises:
        UsageError: says what is possible.
    """
    if target not in TARGETS or precision not in PRECISIONS:
        raise UsageError(
            f"{target!r} in {precision!r} is not known; choose one of {', '.join(TARGETS)}, "
            f"in {' or '.join(PRECISIONS)}"
        )
    if target not in PRECISIONS[precision]:
        raise UsageError(f"--to {target} has no {precision}; choose {', '.join(PRECISIONS[precision])}")
    if target == "spandrel" and network.architecture not in to_spandrel.ARCHITECTURES:
        raise UsageError(f"--to spandrel takes a SPAN; {network.name} is of the kind {network.architecture!r}")
    if precision == "int8" and network.architecture not in INT8_ARCHITECTURES:
        raise UsageError(f"int8 is for SPAN; {network.name} is of the kind {network.architecture!r}")
    if precision == "int8" and not ranges:
        raise UsageError("int8 needs the ranges of an adapter that `dsclora quantize` made: name it with --adapter")
    if size is not None and target not in FIXED_SIZE:
        raise UsageError(f"--to {target} takes pictures of any size; --size is for {', '.join(FIXED_SIZE)}")
    if size is not None:
        check_size(network, *size)
    if layout != "plain" and target != "ncnn":
        raise UsageError(f"--layout {layout} is for --to ncnn")
    if not network.name.strip("."):
        raise UsageError(f"{network.name!r} cannot be the name of a file; choose one with --name")
