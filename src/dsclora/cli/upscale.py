"""`dsclora upscale`."""

import signal
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dsclora.cli.arguments import load_model, parse_adapters, parse_box
from dsclora.cli.console import print_json, say
from dsclora.cli.interruption import ending_signals
from dsclora.cli.options import (
    AdapterOption,
    DeviceOption,
    EngineOption,
    JsonOption,
    ModelOption,
    PrecisionOption,
    ThreadsOption,
    VerboseOption,
)
from dsclora.errors import UsageError


def upscale(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Files, folders or patterns.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File or folder. Default: beside the input, NAME_x4.")
    ] = None,
    scale: Annotated[float | None, typer.Option("--scale", "-s", help="Factor, up to the model's.")] = None,
    fit: Annotated[str | None, typer.Option("--fit", metavar="WxH", help="Largest size inside this box.")] = None,
    long_side: Annotated[int | None, typer.Option("--long-side", help="Length of the longer side.")] = None,
    model: ModelOption = None,
    adapter: AdapterOption = None,
    format: Annotated[
        str | None, typer.Option("--format", "-f", help="png, jpg, webp, avif or tif. Default: the input's.")
    ] = None,
    quality: Annotated[int | None, typer.Option("--quality", "-q", help="1..100, for lossy formats.")] = None,
    if_exists: Annotated[
        Literal["error", "skip", "overwrite", "rename"],
        typer.Option("--if-exists", help="skip resumes an interrupted folder."),
    ] = "error",
    strip_metadata: Annotated[
        bool, typer.Option("--strip-metadata", help="Leave out EXIF, XMP, IPTC; the colour profile stays.")
    ] = False,
    border: Annotated[
        Literal["reflect", "zero"], typer.Option("--border", help="zero: the network's own behaviour.")
    ] = "reflect",
    tile: Annotated[
        int | None, typer.Option("--tile", "-t", help="Window side; smaller takes less memory. Default: the engine's.")
    ] = None,
    max_megapixels: Annotated[float, typer.Option("--max-megapixels", help="Refuse larger inputs.")] = 1000,
    engine: EngineOption = "auto",
    precision: PrecisionOption = "fp32",
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Enlarge pictures.

    Example: dsclora upscale photo.jpg -o large.png

    Example: dsclora upscale holiday/ -o holiday-large/ --if-exists skip
    """
    from dsclora.cli.console import Meter
    from dsclora.engines.choice import open_engines
    from dsclora.inference import jobs
    from dsclora.inference import upscale as verb
    from dsclora.pictures.write import SAVERS

    if not 0 < max_megapixels < float("inf"):
        raise UsageError(f"--max-megapixels must be positive, got {max_megapixels}")
    options = jobs.Options(
        scale=scale,
        fit=parse_box(fit, "--fit"),
        long_side=long_side,
        border=border,
        tile=tile,
        quality=quality,
        strip_metadata=strip_metadata,
        if_exists=if_exists,
        max_pixels=int(max_megapixels * 1e6),
    )
    suffix = None if format is None else "." + format.lower().lstrip(".")
    if suffix is not None and suffix not in SAVERS:
        raise UsageError(f"--format {format}: choose one of {', '.join(s.lstrip('.') for s in SAVERS)}")
    added = parse_adapters(adapter or [])
    content = load_model(model, added, scale)
    for one, _ in added:
        if one.ranges:
            say(
                f"{one.name} is for networks in int8, and this one runs in floating point: the picture changes, but "
                "not for the better; see `dsclora export --precision int8`"
            )
    if scale is not None and scale > content.scale:
        raise UsageError(f"--scale {scale:g} is more than {content.name}'s factor, {content.scale}")
    planned, results = jobs.plan_jobs(inputs, output, options, content.scale, suffix)
    for result in results:
        say(f"error: {result.error}" if result.status == "failed" else result.notices[0])
    engines = open_engines(content, len(planned), engine, precision, device, threads)
    if verbose:
        say(f"{content.name} (x{content.scale}, {content.parameters:,} parameters) on {engines[0].name}")
    interrupted, stop = False, _Stop()
    parts: dict[int, tuple[float, float]] = {}  # of each picture: the share that is done, and Mpixels
    sums, counting = [0.0, 0.0], threading.Lock()  # of these
    with Meter(len(planned), "Mpixel") as meter:

        def report(number: int, done: int, total: int) -> None:
            stop.check()
            now = (done / total, done / 1e6)
            with counting:
                before = parts.get(number, (0.0, 0.0))
                parts[number] = now
                sums[:] = (s + b - a for s, a, b in zip(sums, before, now, strict=True))
            meter.at(sums[0], sums[1], f"{number + 1}/{len(planned)} {planned[number].source.name}")

        try:
            for result in verb.upscale_files(engines, planned, options, report):
                results.append(result)
                for notice in result.notices:
                    meter.say(notice)
                meter.say(_line(result))
        except KeyboardInterrupt:
            interrupted = True  # what is done is still reported
    count = {status: sum(r.status == status for r in results) for status in ("done", "skipped", "failed")}
    if as_json:
        rows = [asdict(r) for r in results]
        print_json({"model": content.name, "scale": content.scale, "engine": engines[0].name, **count, "results": rows})
    elif len(results) > 1:
        say(", ".join(f"{n} {status}" for status, n in count.items() if n))
    raise typer.Exit(130 if interrupted else 1 if count["failed"] else 0)


class _Stop:
    """Remembers an interruption until it can be raised: inside a callback of libvips it would be lost."""

    def __init__(self) -> None:
        self._asked = False
        for number in (signal.SIGINT, *ending_signals()):
            signal.signal(number, self._ask)

    def _ask(self, number: int, _: object) -> None:
        self._asked = True
        signal.signal(number, signal.default_int_handler)  # the second time, at once

    def check(self) -> None:
        if self._asked:
            raise KeyboardInterrupt


def _line(result: Any) -> str:
    if result.status == "failed":
        return f"error: {result.error}"
    if result.status == "skipped":
        return f"{result.source}: skipped, {result.target} exists"
    sizes = " -> ".join(f"{w}x{h}" for w, h in (result.input_size, result.output_size))
    return f"{result.source} -> {result.target}  {sizes}  {result.seconds:.2f} s"
