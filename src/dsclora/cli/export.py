"""`dsclora export`: a model as another runtime's file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dsclora.cli.arguments import load_network, parse_box
from dsclora.cli.console import print_json, say, wants_json
from dsclora.cli.options import AdapterOption, ModelOption, OverwriteOption
from dsclora.errors import DscloraError, UsageError, did_you_mean

if TYPE_CHECKING:
    from dsclora.exports.base import Report, Target


def export(
    to: Annotated[
        list[str],
        typer.Option(
            "--to",
            metavar="TARGET",
            help="onnx, openvino, ncnn, spandrel (chaiNNer, ComfyUI), torchscript or pt2; may be repeated.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder to write to.")],
    model: ModelOption = None,
    adapter: AdapterOption = None,
    precision: Annotated[
        Literal["fp32", "fp16", "int8"],
        typer.Option("--precision", help="fp16: onnx, openvino, ncnn; int8: onnx, openvino, by an adapter for it."),
    ] = "fp32",
    size: Annotated[
        str | None, typer.Option("--size", metavar="WxH", help="The one size of input to take. Default: any.")
    ] = None,
    layout: Annotated[
        Literal["plain", "upscayl"],
        typer.Option("--layout", help="Names in ncnn's files: upscayl for those that Upscayl asks for."),
    ] = "plain",
    name: Annotated[str | None, typer.Option("--name", help="Name of the files. Default: the model's.")] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write a model for another runtime.

    Adapters are merged in. A file is kept only if that runtime makes the same pictures of it.

    Example: dsclora export --model span-x4 --to onnx -o exported/

    Example: dsclora export --adapter span-x4-docs --to ncnn --layout upscayl --precision fp16 -o upscayl/
    """
    from dsclora.exports import export as verb

    network, added = load_network(model, adapter)
    if name:
        network = network.with_weights(network.weights, name=name)
    ranged = [each for each in added if each.ranges]
    if precision == "int8" and len(ranged) > 1:
        raise UsageError(f"{ranged[0].name} and {ranged[1].name} both have ranges for int8; name only one of them")
    targets = _targets(to, layout)
    box = None if size is None else parse_box(size, "--size")
    options: dict[str, Any] = {"precision": precision, "size": box and (box[1], box[0])}
    options["ranges"] = ranged[0].ranges if ranged else None
    layouts: dict[Target, Any] = {target: layout if target == "ncnn" else "plain" for target in targets}
    for target in targets:
        verb.check(network, target, layout=layouts[target], **options)
    reports, failures = [], []
    for target in targets:
        try:
            report = verb.export(network, target, output, layout=layouts[target], overwrite=overwrite, **options)
        except DscloraError as error:
            failures.append(str(error))
            say(f"error: {error}")
            continue
        reports.append(report)
        if not wants_json():
            _print(report)
    if wants_json():
        print_json({"model": network.name, "exported": [r.as_json() for r in reports], "failed": failures})
    raise typer.Exit(1 if failures else 0)


def _targets(to: list[str], layout: str) -> "list[Target]":
    from dsclora.exports.base import TARGETS

    targets = [target for target in TARGETS if target in to]
    if unknown := sorted(set(to) - set(targets)):
        raise UsageError(f"--to {unknown[0]}: choose from {', '.join(TARGETS)}{did_you_mean(unknown[0], TARGETS)}")
    if layout != "plain" and "ncnn" not in targets:
        raise UsageError(f"--layout {layout} is for --to ncnn")
    if layout == "upscayl" and "openvino" in targets:
        raise UsageError("OpenVINO's and Upscayl's files have a name in common: export them to two folders")
    return targets


def _print(report: "Report") -> None:
    lowest, worst = min(c.psnr for c in report.compared), max(c.worst for c in report.compared)
    print(", ".join(str(path) for path in report.files))
    print(f"  {report.runtime}: {len(report.compared)} pictures, {lowest:.1f} dB or more, {worst:.3f} levels off")
    height, width = report.size
    print(
        f"  {report.milliseconds:.0f} ms for {width}x{height}, "
        f"{report.reference_milliseconds:.0f} ms by the engine of `dsclora upscale`"
    )
    for note in report.notes:
        print(f"  {note}")
