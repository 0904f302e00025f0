"""`dsclora export`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dsclora.cli.arguments import load_model, parse_adapters, parse_box
from dsclora.cli.console import print_json, say
from dsclora.cli.options import AdapterOption, JsonOption, ModelOption, VerboseOption
from dsclora.errors import DscloraError, UsageError


def export(
    to: Annotated[
        list[str],
        typer.Option(
            "--to",
            metavar="TARGET",
            help="onnx, openvino, ncnn, spandrel (chaiNNer, ComfyUI), torchscript or pt2; may be repeated.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")],
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
        Literal["plain", "upscayl"], typer.Option("--layout", help="Of ncnn: the blob names that Upscayl asks for.")
    ] = "plain",
    name: Annotated[str | None, typer.Option("--name", help="Of the files. Default: the model's.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Write a model, adapters merged in, as another runtime's file, and prove that it makes the same pictures there.

    Example: dsclora export --model span-x4 --to onnx -o exported/

    Example: dsclora export --adapter span-x4-docs --to ncnn --layout upscayl --precision fp16 -o upscayl/
    """
    from dsclora.exports import base
    from dsclora.exports import export as verb

    added = parse_adapters(adapter or [])
    content = load_model(model, added)
    content = replace(content, name=name or content.name)
    ranged = [one for one, _ in added if one.ranges]
    if precision == "int8" and len(ranged) > 1:
        raise UsageError(f"{ranged[0].name} and {ranged[1].name} both have ranges for int8; which are meant?")
    targets = [target for target in base.TARGETS if target in to]
    if unknown := sorted(set(to) - set(targets)):
        raise UsageError(f"--to {unknown[0]}: choose from {', '.join(base.TARGETS)}")
    box = parse_box(size, "--size")
    if layout != "plain" and "ncnn" not in targets:
        raise UsageError(f"--layout {layout} is for --to ncnn")
    if layout == "upscayl" and "openvino" in targets:
        raise UsageError("OpenVINO's and Upscayl's files have a name in common: export them to two folders")
    given: dict[str, Any] = {"precision": precision, "size": box and (box[1], box[0])}
    given["ranges"] = ranged[0].ranges if ranged else None
    laid_out = {target: layout if target == "ncnn" else "plain" for target in targets}
    for target in targets:
        verb.check(content, target, layout=laid_out[target], **given)
    reports, failures = [], []
    for target in targets:
        try:
            report = verb.export(content, target, output, layout=laid_out[target], overwrite=overwrite, **given)
        except DscloraError as error:
            failures.append(str(error))
            say(f"error: {error}")
            continue
        reports.append(report)
        if not as_json:
            lowest, worst = min(c.psnr for c in report.compared), max(c.worst for c in report.compared)
            print(", ".join(str(path) for path in report.files))
            print(
                f"  {report.runtime}: {len(report.compared)} pictures, {lowest:.1f} dB or more, {worst:.3f} levels off"
            )
            height, width = report.size
            print(
                f"  {report.milliseconds:.0f} ms for {width}x{height}, "
                f"{report.reference_milliseconds:.0f} ms by the engine of `dsclora upscale`"
            )
            for note in report.notes:
                print(f"  {note}")
    if as_json:
        print_json({"model": content.name, "exported": [r.as_json() for r in reports], "failed": failures})
    raise typer.Exit(1 if failures else 0)
