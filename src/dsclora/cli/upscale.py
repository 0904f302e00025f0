"""`dsclora upscale`: files to files."""

import threading
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dsclora.cli.arguments import load_network, parse_box
from dsclora.cli.console import LOG, Meter, print_json, say, wants_json
from dsclora.cli.interruption import Interruption
from dsclora.cli.options import (
    AdapterOption,
    DeviceOption,
    EngineOption,
    ModelOption,
    PrecisionOption,
    ThreadsOption,
)
from dsclora.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dsclora.engines import Engine
    from dsclora.inference.jobs import Job, Options, Result


def upscale(
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="INPUT...", help="Files, folders or patterns.", show_default=False)
    ] = None,
    more: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", metavar="INPUT", help="The same, as an option; may be repeated. Default: none."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File or folder. Default: beside the input, NAME_x4.")
    ] = None,
    scale: Annotated[
        float | None, typer.Option("--scale", "-s", help="Factor, up to the model's. Default: the model's.")
    ] = None,
    fit: Annotated[
        str | None, typer.Option("--fit", metavar="WxH", help="Largest size inside this box. Default: by --scale.")
    ] = None,
    long_side: Annotated[
        int | None, typer.Option("--long-side", help="Length of the longer side. Default: by --scale.")
    ] = None,
    model: ModelOption = None,
    adapter: AdapterOption = None,
    format: Annotated[
        str | None, typer.Option("--format", "-f", help="png, jpg, webp, avif or tif. Default: the input's.")
    ] = None,
    quality: Annotated[
        int | None, typer.Option("--quality", "-q", help="1 to 100, for lossy formats. Default: the format's.")
    ] = None,
    if_exists: Annotated[
        Literal["error", "skip", "overwrite", "rename"],
        typer.Option("--if-exists", help="What to do about a file that exists; skip resumes an interrupted folder."),
    ] = "error",
    strip_metadata: Annotated[
        bool, typer.Option("--strip-metadata", help="Leave out EXIF, XMP, IPTC; the colour profile stays.")
    ] = False,
    border: Annotated[
        Literal["reflect", "zero"],
        typer.Option("--border", help="What lies beyond the border; zero is the network's own behaviour."),
    ] = "reflect",
    tile: Annotated[
        int | None,
        typer.Option("--tile", "-t", help="Window side; smaller takes less memory. Default: the engine's."),
    ] = None,
    max_megapixels: Annotated[float, typer.Option("--max-megapixels", help="Refuse larger inputs.")] = 1000,
    engine: EngineOption = "auto",
    precision: PrecisionOption = "fp32",
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
) -> None:
    """Enlarge pictures.

    Example: dsclora upscale photo.jpg -o large.png

    Example: dsclora upscale holiday/ -o holiday-large/ --if-exists skip
    """
    from dsclora.engines import Setting
    from dsclora.engines.choice import open_engines
    from dsclora.inference import jobs
    from dsclora.pictures.write import suffix_of

    named = [*(inputs or []), *(more or [])]
    if not named:
        raise UsageError("no input is named; give a file, a folder or a pattern: dsclora upscale photo.jpg")
    if not 0 < max_megapixels < float("inf"):
        raise UsageError(f"--max-megapixels must be positive, got {max_megapixels}")
    options = jobs.Options(
        scale=scale,
        fit=None if fit is None else parse_box(fit, "--fit"),
        long_side=long_side,
        border=border,
        tile=tile,
        quality=quality,
        strip_metadata=strip_metadata,
        if_exists=if_exists,
        max_pixels=int(max_megapixels * 1e6),
    )
    suffix = None if format is None else suffix_of(format)
    network, added = load_network(model, adapter, scale)
    for each in added:
        if each.ranges:
            say(
                f"{each.name} is for networks in int8, and this one runs in floating point: the picture changes, but "
                "not for the better; see `dsclora export --precision int8`"
            )
    if scale is not None and scale > network.scale:
        raise UsageError(f"--scale {scale:g} is more than {network.name}'s factor, {network.scale}")
    planned, results = jobs.plan_jobs(named, output, options, network.scale, suffix)
    for result in results:
        say(f"error: {result.error}" if result.status == "failed" else result.notices[0])
    engines = open_engines(network, len(planned), Setting(engine, precision, device, threads))
    LOG.debug(f"{network.name} (x{network.scale}, {network.parameters:,} parameters) on {engines[0].name}")
    interrupted = _run(engines, planned, options, results)
    count = {status: sum(r.status == status for r in results) for status in ("done", "skipped", "failed")}
    if wants_json():
        facts = {"model": network.name, "scale": network.scale, "engine": engines[0].name}
        print_json({**facts, **count, "results": [asdict(r) for r in results]})
    elif len(results) > 1:
        say(", ".join(f"{n} {status}" for status, n in count.items() if n))
    raise typer.Exit(130 if interrupted else 1 if count["failed"] else 0)


def _run(engines: "Sequence[Engine]", planned: "list[Job]", options: "Options", results: "list[Result]") -> bool:
    """Do the jobs, append their results, and return whether it was interrupted."""
    from dsclora.inference.upscale import upscale_files

    interruption = Interruption()
    parts: dict[int, tuple[float, float]] = {}  # by picture: the share that is done, and Mpixels
    sums, counting = [0.0, 0.0], threading.Lock()  # the sums of these
    with Meter(len(planned), "Mpixel") as meter:

        def report(number: int, done: int, total: int) -> None:
            interruption.check()
            now = (done / total, done / 1e6)
            with counting:
                before = parts.get(number, (0.0, 0.0))
                parts[number] = now
                sums[:] = (s + b - a for s, a, b in zip(sums, before, now, strict=True))
            meter.at(sums[0], sums[1], f"{number + 1}/{len(planned)} {planned[number].source.name}")

        try:
            for result in upscale_files(engines, planned, options, report):
                results.append(result)
                for notice in result.notices:
                    say(notice)
                say(_line(result))
        except KeyboardInterrupt:
            return True  # finished pictures are still reported
    return False


def _line(result: "Result") -> str:
    if result.status == "failed":
        return f"error: {result.error}"
    if result.status == "skipped":
        return f"{result.source}: skipped, {result.target} exists"
    assert result.input_size is not None
    assert result.output_size is not None
    sizes = " -> ".join(f"{w}x{h}" for w, h in (result.input_size, result.output_size))
    return f"{result.source} -> {result.target}  {sizes}  {result.seconds:.2f} s"
