"""The command line: one command per verb, no logic. Results go to stdout, everything else to stderr."""

import errno
import io
import json
import logging
import math
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import dsclora
from dsclora.cli.console import printable
from dsclora.errors import DscloraError, RecipeError, UsageError

if TYPE_CHECKING:
    from dsclora.cli.console import Meter

app = typer.Typer(
    name="dsclora",
    help="Enlarge pictures with lightweight super-resolution networks; train, measure and ship them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


AdapterOption = Annotated[
    list[str] | None,
    typer.Option("--adapter", "-a", metavar="FILE[:STRENGTH]", help="Adapter to add to the model; may be repeated."),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="A bundled model's name or a model file. Default: span-x4, or what suits --scale or --adapter.",
    ),
]
EngineOption = Annotated[
    Literal["auto", "native", "openvino", "onnxruntime", "torch"],
    typer.Option("--engine", help="Runtime; see `dsclora doctor`."),
]
PrecisionOption = Annotated[
    Literal["fp32", "bf16"],
    typer.Option("--precision", help="bf16 costs about 0.01 dB, for an engine and a processor that have it."),
]
DeviceOption = Annotated[Literal["cpu", "cuda", "mps"], typer.Option("--device", help="cuda and mps need PyTorch.")]
TrainDeviceOption = Annotated[
    Literal["cpu", "cuda"], typer.Option("--device", help="To train on; under torchrun, one GPU a process.")
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, max=1024, help="Of the engine; all cores by default.")
]
TrainThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, max=1024, help="Of PyTorch; all cores by default, under torchrun one a process."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Say more; show tracebacks.")]


def main() -> None:
    """Entry point: errors become one line and an exit code (0 done, 1 failed, 2 wrong usage, 130 interrupted)."""
    for name in ("stdout", "stderr"):  # closed by the caller
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 (for the whole run)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that its encoding lacks must not lose what was measured
        sys.stdout.reconfigure(errors="backslashreplace")
    for number in _ends():
        signal.signal(number, signal.default_int_handler)  # cleans up like an interruption by hand
    logging.getLogger("pyvips").setLevel(logging.CRITICAL)  # what libvips warns of is told in our own errors
    try:
        app()
    except SystemExit as done:
        if done.code == 130:
            _say("interrupted; finished files are kept, run again with --if-exists skip or --resume to go on")
        # under torchrun: gloo's threads were seen to abort while Python ends, and torchrun then stops the first
        # process, which still judges and writes
        if os.environ.get("RANK", "0") != "0":
            os._exit(int(done.code or 0))
        raise
    except Exception as error:  # noqa: BLE001 (the last resort: no traceback unless asked for)
        if {"-v", "--verbose"} & set(sys.argv):
            traceback.print_exc()
        if isinstance(error, DscloraError):
            _say(f"error: {error}")
            sys.exit(2 if isinstance(error, (UsageError, RecipeError)) else 1)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            _say(f"error: {error.filename or 'output'}: cannot be written ({error.strerror})")
            sys.exit(1)
        if isinstance(error, MemoryError):
            _say(f"error: out of memory ({error or 'no more is given'}); close other programs, or give it less at once")
            sys.exit(1)
        _say(f"internal error: {type(error).__name__}: {error}; run again with -v and report it with the output")
        sys.exit(1)


def _ends() -> list[signal.Signals]:
    """What asks a process to end: but not what its caller has it ignore, as `nohup` does."""
    known = (getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP"))  # Windows has no SIGHUP
    return [number for number in known if number is not None and signal.getsignal(number) is not signal.SIG_IGN]


def _say(text: str) -> None:
    print(f"dsclora: {printable(text)}", file=sys.stderr)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str, allow_nan=False))


def _version(value: bool) -> None:
    if value:
        print(f"dsclora {dsclora.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


@app.command()
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
    from dsclora.engines import Setting
    from dsclora.engines.choice import open_engines
    from dsclora.inference import jobs
    from dsclora.inference import upscale as verb
    from dsclora.pictures.write import SAVERS

    if not 0 < max_megapixels < float("inf"):
        raise UsageError(f"--max-megapixels must be positive, got {max_megapixels}")
    options = jobs.Options(
        scale=scale,
        fit=_box(fit, "--fit"),
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
    added = _adapters(adapter or [])
    content = _load_adapted(model, added, scale)
    for one, _ in added:
        if one.ranges:
            _say(
                f"{one.name} is for networks in int8, and this one runs in floating point: the picture changes, but "
                "not for the better; see `dsclora export --precision int8`"
            )
    if scale is not None and scale > content.scale:
        raise UsageError(f"--scale {scale:g} is more than {content.name}'s factor, {content.scale}")
    planned, results = jobs.plan_jobs(inputs, output, options, content.scale, suffix)
    for result in results:
        _say(f"error: {result.error}" if result.status == "failed" else result.notices[0])
    engines = open_engines(content, len(planned), Setting(engine, precision, device, threads))
    if verbose:
        _say(f"{content.name} (x{content.scale}, {content.parameters:,} parameters) on {engines[0].name}")
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
        _print_json(
            {"model": content.name, "scale": content.scale, "engine": engines[0].name, **count, "results": rows}
        )
    elif len(results) > 1:
        _say(", ".join(f"{n} {status}" for status, n in count.items() if n))
    raise typer.Exit(130 if interrupted else 1 if count["failed"] else 0)


class _Stop:
    """Remembers an interruption until it can be raised: inside a callback of libvips it would be lost."""

    def __init__(self) -> None:
        self._asked = False
        for number in (signal.SIGINT, *_ends()):
            signal.signal(number, self._ask)

    def _ask(self, number: int, _: object) -> None:
        self._asked = True
        signal.signal(number, signal.default_int_handler)  # the second time, at once

    def check(self) -> None:
        if self._asked:
            raise KeyboardInterrupt


def _box(text: str | None, option: str) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        width, height = (int(part) for part in text.lower().split("x"))
        if min(width, height) < 1:
            raise ValueError
    except ValueError as error:
        raise UsageError(f"{option} takes WIDTHxHEIGHT, such as 1920x1080, not {text!r}") from error
    return width, height


def _line(result: Any) -> str:
    if result.status == "failed":
        return f"error: {result.error}"
    if result.status == "skipped":
        return f"{result.source}: skipped, {result.target} exists"
    sizes = " -> ".join(f"{w}x{h}" for w, h in (result.input_size, result.output_size))
    return f"{result.source} -> {result.target}  {sizes}  {result.seconds:.2f} s"


@app.command()
def evaluate(
    images: Annotated[
        Path, typer.Argument(metavar="IMAGES", help="Folder with HR/ (and LRx4/ ...), or of HR pictures.")
    ],
    model: ModelOption = None,
    adapter: AdapterOption = None,
    protocol: Annotated[
        Literal["classic-y", "ntire-rgb"], typer.Option("--protocol", help="How the figures are computed.")
    ] = "classic-y",
    csv: Annotated[Path | None, typer.Option("--csv", help="Write the rows there too.")] = None,
    grid: Annotated[
        Path | None, typer.Option("--grid", help="Write a PNG: bicubic, model and original of every detail.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing --csv and --grid files.")] = False,
    engine: EngineOption = "auto",
    precision: PrecisionOption = "fp32",
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Measure PSNR and SSIM over a folder.

    Example: dsclora evaluate Set5 --model span-x4 --protocol classic-y
    """
    from dsclora.cli.console import Meter
    from dsclora.engines import Setting
    from dsclora.engines.choice import open_engine
    from dsclora.measure import evaluate as verb
    from dsclora.pictures import comparison, metrics
    from dsclora.pictures.pairs import find_pairs

    for path in (csv, grid):
        if path is not None and path.exists() and not overwrite:
            raise UsageError(f"{path}: exists already; choose another name or pass --overwrite")
    if csv is not None and csv == grid:
        raise UsageError(f"--csv and --grid are both {csv}; name two files")
    content = _load_adapted(model, _adapters(adapter or []))
    running = open_engine(content, Setting(engine, precision, device, threads))
    chosen = metrics.protocol(protocol, content.scale)
    pairs = find_pairs(images, content.scale)
    scores: list[verb.Score] = []
    failures: list[str] = []
    details = []
    with Meter(len(pairs), "picture") as meter:
        for item in verb.evaluate(lambda lr: verb.as_published(running, lr), pairs, content.scale, chosen):
            if isinstance(item, verb.Failure):
                failures.append(item.error)
                meter.say(f"error: {item.error}")
                continue
            scores.append(item.score)
            if grid is not None:
                details.append(comparison.details(item.lr, [item.sr, item.hr]))
            meter.at(len(scores) + len(failures), len(scores), item.score.name)
    if not scores:
        raise DscloraError(f"{images}: no picture could be measured")
    psnr, ssim = verb.mean(scores)
    lr_from = "given" if pairs[0].lr is not None else "MATLAB-exact bicubic of HR"
    spelled = chosen.describe() | {"lr": lr_from, "engine": running.name}
    if as_json:
        facts = {"name": content.name, "scale": content.scale, "sha256": content.sha256}
        _print_json(
            {
                "protocol": spelled,
                "model": facts | {"parameters": content.parameters},
                "mean": {"psnr": _or_none(psnr), "ssim": _or_none(ssim)},
                "images": [{"name": s.name, "psnr": _or_none(s.psnr), "ssim": _or_none(s.ssim)} for s in scores],
                "failed": failures,
            }
        )
    else:
        for s in scores:
            print(f"{printable(s.name):<40} {s.psnr:8.4f} dB  {s.ssim:.5f}")
        print(f"{f'mean of {len(scores)}':<40} {psnr:8.4f} dB  {ssim:.5f}")
        print(f"{printable(content.name)}; " + "; ".join(f"{k}: {v}" for k, v in spelled.items()))
    if csv is not None:  # what is measured has been told, should they not be writable
        verb.write_csv(csv, scores, overwrite)
    if grid is not None:
        comparison.write_grid(grid, details, ["bicubic", content.name, "original"], overwrite)
    raise typer.Exit(1 if failures else 0)


def _or_none(value: float) -> float | None:
    """JSON has no infinity (the PSNR of equal pictures) and no NaN (the SSIM of tiny ones)."""
    return value if abs(value) < float("inf") else None


@app.command()
def pretrain(
    ctx: typer.Context,
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A bundled recipe's name, such as span-x4 or quick, or a TOML file.")
    ],
    train: Annotated[Path, typer.Option("--train", help="Folder of HR pictures to train on.")],
    valid: Annotated[Path, typer.Option("--valid", help="Folder of HR pictures to choose the best weights on.")],
    teacher: Annotated[
        str | None, typer.Option("--teacher", help="A larger model of this scale or above, for pixel distillation.")
    ] = None,
    start: Annotated[
        str | None, typer.Option("--start", help="Begin with this model's weights: of the same width, any scale.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder. Default: runs/RECIPE.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on after an interruption; on a CPU, bit for bit.")
    ] = False,
    device: TrainDeviceOption = "cpu",
    compile: Annotated[
        bool, typer.Option("--compile", help="By torch.compile: a little faster, in a long run.")
    ] = False,
    threads: TrainThreadsOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Train a base model, from scratch or from another model's weights.

    Example: dsclora pretrain span-x4 --train photos/ --valid held-out/

    On several processes or hosts: torchrun --nproc-per-node 2 -m -- dsclora pretrain ...
    """
    from dsclora.cli.console import Meter
    from dsclora.training import recipes
    from dsclora.training.pretrain import pretrain_files
    from dsclora.training.run import Progress

    loaded = recipes.load_pretrain(recipe)
    _, quiet = _start_training(ctx, device, threads)
    with (
        Meter(sum(stage.iterations for stage in loaded.stages), "iteration", quiet=quiet) as meter,
        _notices(meter),
    ):
        first: list[int] = []

        def report(p: Progress) -> None:
            first.append(p.step)
            meter.at(p.step, p.step - first[0], f"{p.step}/{p.steps} loss {p.loss:.5f} best {p.best:.3f} dB")
            if p.score is not None or verbose:
                score = f"  validation {p.score:.4f} dB (best {p.best:.4f})" if p.score is not None else ""
                meter.say(
                    f"{p.step}/{p.steps}  loss {p.loss:.6f}  rate {p.learning_rate:.2e}  "
                    f"{p.seconds_per_step:.3f} s/iteration  left {p.seconds_left / 60:.0f} min{score}"
                )

        outcome = pretrain_files(
            loaded,
            train=train,
            valid=valid,
            output=output or Path("runs") / Path(recipe).stem,
            teacher=teacher,
            start=start,
            resume=resume,
            device=device,
            compile=compile,
            report=report,
        )
    if quiet:
        return
    if as_json:
        _print_json({"model": outcome.path, "psnr": outcome.psnr, "sha256": outcome.model.sha256})
    else:
        _say(f"{outcome.path}: {outcome.psnr:.4f} dB on {valid} (classic-y), {outcome.model.parameters:,} parameters")


def _start_training(ctx: typer.Context, device: str, threads: int | None) -> tuple[Any, bool]:
    """Set PyTorch's threads and join the processes of `torchrun`: this process's device, and whether another speaks."""
    import torch

    import dsclora.training  # noqa: F401 (says what is missing of the extra)
    from dsclora.training import processes

    if threads is not None:
        torch.set_num_threads(threads)
    joined = ctx.with_resource(processes.joined(device))
    return joined, processes.rank() > 0


@contextmanager
def _notices(meter: "Meter") -> Iterator[None]:
    """Print what the package logs above a bar."""

    class Above(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            meter.say(record.getMessage())

    logger, handler = logging.getLogger("dsclora"), Above()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


@app.command()
def adapt(
    ctx: typer.Context,
    images: Annotated[
        Path, typer.Argument(metavar="IMAGES", help="Folder of HR pictures, or with HR/ and LRx4/ (or LRx2/, LRx3/).")
    ],
    base: Annotated[str, typer.Option("--base", "-b", help="A bundled model's name or a model file.")] = "span-x4",
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher",
            help="A stronger model of this scale or a larger one, any width, to distil from. "
            "Default: with --guard and a bundled base, span-x4-wide.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Adapter file to write. Default: IMAGES.safetensors.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", help="A TOML file, or a bundled recipe: docs, jpeg, noise, blur, comic or photo."),
    ] = None,
    minutes: Annotated[float | None, typer.Option("--minutes", help="Scale the recipe to this time.")] = None,
    iterations: Annotated[int | None, typer.Option("--iterations", min=1, help="Scale it to this many steps.")] = None,
    valid: Annotated[
        Path | None, typer.Option("--valid", help="Judge on these pictures instead of holding out a part of IMAGES.")
    ] = None,
    guard: Annotated[
        Path | None, typer.Option("--guard", help="Pictures of other kinds, mixed in so that they are not forgotten.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--start", help="Go on from this adapter of the same base: a bundled one's name or a file."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on after an interruption; on a CPU, bit for bit.")
    ] = False,
    device: TrainDeviceOption = "cpu",
    threads: TrainThreadsOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Adapt a base model to your pictures; saved only if it beats the base on pictures held out.

    Exit code 3: it does not; the attempt is kept as NAME.rejected.safetensors, its report as NAME.rejected.html.

    Example: dsclora adapt scans/ --minutes 10 -o scans.safetensors

    On several processes or hosts: torchrun --nproc-per-node 2 -m -- dsclora adapt ... (whose exit code is 0 or 1 alone)
    """
    from dsclora.cli.console import Meter
    from dsclora.training.adapt import adapt_files
    from dsclora.training.run import Progress

    _, quiet = _start_training(ctx, device, threads)
    with Meter(1, "run", quiet=quiet) as meter, _notices(meter):

        def report(p: Progress) -> None:
            meter.at(p.step / p.steps, p.step / p.steps, f"{p.step}/{p.steps} best {p.best:.3f} dB")
            if p.score is not None or verbose:
                score = f"  held-out {p.score:.4f} dB (best {p.best:.4f})" if p.score is not None else ""
                left = f"  left {p.seconds_left / 60:.1f} min" if p.step else "  the base"
                meter.say(f"{p.step}/{p.steps}{left}{score}")

        done = adapt_files(
            images,
            base=base,
            output=output,
            teacher=teacher,
            guard=guard,
            valid=valid,
            recipe=recipe,
            start=start,
            minutes=minutes,
            iterations=iterations,
            resume=resume,
            overwrite=overwrite,
            device=device,
            report=report,
        )
    if quiet:
        return
    if as_json:
        facts = {"adapter": done.path, "report": done.report, "parameters": done.adapter.parameters}
        _print_json({**facts, **done.result})
    else:
        _say_changes(done.result)
        if done.accepted:
            _say(f"{done.path}: {done.adapter.parameters:,} numbers; report: {done.report}")
            _say(f"use it: dsclora upscale PICTURE --model {base} --adapter {done.path}")
        else:
            target = output or Path(f"{images.resolve().name}.safetensors")
            _say(f"no gain beyond doubt over {base}: not saved as {target}; kept as {done.path}; report: {done.report}")
    raise typer.Exit(0 if done.accepted else 3)


def _say_changes(result: dict[str, Any]) -> None:
    """Say what an adapter changes on held-out pictures, and on others where there are any."""
    for label, change in (("held-out", result["held_out"]), ("general", result["general"])):
        if change:
            low, high = change["interval"]
            _say(
                f"{label} pictures ({change['pictures']}): {change['before']:.3f} -> {change['after']:.3f} dB, "
                f"{change['gain']:+.3f} ({change['confidence']:.0%} interval {low:+.3f} to {high:+.3f})"
            )


@app.command()
def merge(
    base: Annotated[str, typer.Argument(metavar="BASE", help="A bundled model's name or a model file.")],
    adapters: Annotated[list[str], typer.Argument(metavar="ADAPTER...", help="Adapter files, FILE or FILE:STRENGTH.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Model file to write.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Add adapters to a base for good: a model file of the same size and speed.

    Example: dsclora merge span-x4 scans.safetensors:0.8 -o span-x4-scans.safetensors
    """
    from dsclora.networks import span

    content = _load_adapted(base, _adapters(adapters))
    span.write(output, content, overwrite)
    if as_json:
        _print_json({"output": output, **span.describe(content)})
    else:
        _say(f"{output}: {content.name}, {content.parameters:,} parameters")


@app.command()
def extract(
    base: Annotated[str, typer.Argument(metavar="BASE", help="A bundled model's name or a model file.")],
    tuned: Annotated[str, typer.Argument(metavar="TUNED", help="A model file that was trained on from BASE.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Adapter file to write.")],
    rank: Annotated[int, typer.Option("--rank", min=1, help="Of every conv, in loralib's sense.")] = 8,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Make a low-rank adapter of what distinguishes two models, and say what it leaves out.

    Example: dsclora extract span-x4 fine-tuned.safetensors --rank 8 -o tuned.safetensors
    """
    from dsclora import zoo
    from dsclora.networks import adapter

    made, remainder = adapter.extract(zoo.load(base), zoo.load(tuned), rank)
    adapter.write(output, made, overwrite)
    if as_json:
        _print_json({"output": output, "lost": remainder.total, "convs": remainder.convs, **adapter.describe(made)})
    else:
        for conv, lost in remainder.convs.items():
            print(f"{conv:<24} rank {made.updates[conv].rank:<3} {lost:6.1%} of the change lost")
        _say(f"{output}: {made.parameters:,} numbers; {remainder.total:.1%} of the change lost, biases included")


@app.command()
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

    added = _adapters(adapter or [])
    content = _load_adapted(model, added)
    content = replace(content, name=name or content.name)
    ranged = [one for one, _ in added if one.ranges]
    if precision == "int8" and len(ranged) > 1:
        raise UsageError(f"{ranged[0].name} and {ranged[1].name} both have ranges for int8; which are meant?")
    targets = [target for target in base.TARGETS if target in to]
    if unknown := sorted(set(to) - set(targets)):
        raise UsageError(f"--to {unknown[0]}: choose from {', '.join(base.TARGETS)}")
    box = _box(size, "--size")
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
            _say(f"error: {error}")
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
        _print_json({"model": content.name, "exported": [r.as_json() for r in reports], "failed": failures})
    raise typer.Exit(1 if failures else 0)


@app.command()
def quantize(
    ctx: typer.Context,
    images: Annotated[
        Path, typer.Argument(metavar="IMAGES", help="Folder of HR pictures, such as the model will see.")
    ],
    valid: Annotated[Path, typer.Option("--valid", help="Folder of HR pictures to choose the best weights on.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Adapter file to write.")],
    base: Annotated[str, typer.Option("--base", "-b", help="A bundled model's name or a model file.")] = "span-x4",
    recipe: Annotated[
        Path | None, typer.Option("--recipe", help="TOML file instead of the bundled recipe, zoo/int8.toml.")
    ] = None,
    iterations: Annotated[int | None, typer.Option("--iterations", min=1, help="Instead of the recipe's.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after an interruption.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    threads: TrainThreadsOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Train an adapter that keeps the picture in int8, for `dsclora export --precision int8`.

    Example: dsclora quantize photos/ --valid held-out/ -o span-x4-int8.safetensors
    """
    from dsclora.cli.console import Meter
    from dsclora.training.quantize import quantize_files
    from dsclora.training.run import Progress

    _start_training(ctx, "cpu", threads)
    with Meter(1, "run") as meter, _notices(meter):

        def report(p: Progress) -> None:
            meter.at(p.step / p.steps, p.step / p.steps, f"{p.step}/{p.steps} loss {p.loss:.5f}")
            if p.score is not None:
                meter.say(f"{p.step}/{p.steps}  {p.score:.4f} dB in int8 (best {p.best:.4f})")

        outcome = quantize_files(
            images,
            valid=valid,
            output=output,
            base=base,
            recipe=recipe,
            iterations=iterations,
            resume=resume,
            overwrite=overwrite,
            report=report,
        )
    figures = {"float": outcome.base, "calibrated": outcome.calibrated, "trained": outcome.trained}
    if as_json:
        _print_json({"output": output, "psnr": figures})
    else:
        print(f"{output}: int8 {outcome.trained - outcome.base:+.4f} dB from floating point ({outcome.base:.4f}); "
              f"without training {outcome.calibrated - outcome.base:+.4f}")  # fmt: skip


@app.command()
def profile(
    images: Annotated[
        Path | None, typer.Argument(metavar="[IMAGES]", help="With --preset: folder with HR/ and LRx4/.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="A bundled model's name or a file: ours, anybody's SPAN, ONNX; may be repeated. Default: span-x4.",
        ),
    ] = None,
    adapter: AdapterOption = None,
    size: Annotated[
        list[str] | None,
        typer.Option("--size", metavar="WxH", help="Of the input; may be repeated. Default: 256x256."),
    ] = None,
    runs: Annotated[int, typer.Option("--runs", min=1, help="Of each, in turn. With --preset: of each picture.")] = 10,
    preset: Annotated[
        Literal["ntire2025", "ntire2026"] | None,
        typer.Option("--preset", help="The challenge's protocol, table and score."),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option("--baseline", help="The challenge's baseline: EFDN (ONNX) or SPAN of 28 channels.")
    ] = None,
    submission: Annotated[
        Path | None, typer.Option("--submission", help="Write a submission in the challenge's layout there.")
    ] = None,
    team: Annotated[int, typer.Option("--team", min=0, max=99, help="Of the submission.")] = 0,
    name: Annotated[str, typer.Option("--name", help="Of the submission's method.")] = "DSCLoRA",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing submission.")] = False,
    engine: EngineOption = "auto",
    precision: PrecisionOption = "fp32",
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Say what networks cost: parameters, multiply-adds, activations, convs, memory and latency, side by side.

    Example: dsclora profile --model span-x4 --model span-x4-wide --size 256x256 --size 640x360

    Example: dsclora profile DIV2K_valid/ --preset ntire2026 --baseline span_ch28.pth --model span-x4
    """
    from dsclora import zoo
    from dsclora.cli.console import Meter
    from dsclora.engines import Setting
    from dsclora.measure import latency as verb
    from dsclora.measure import ntire, ntire_submission
    from dsclora.measure.cost import count_cost
    from dsclora.pictures.pairs import find_pairs

    if (preset is None) != (images is None) or (preset is None) != (baseline is None):
        raise UsageError("--preset, --baseline and a folder of pictures go together")
    if preset is not None and size:
        raise UsageError("--size: with --preset the pictures have theirs, and costs are counted at 256x256")
    if adapter and len(model or []) > 1:
        raise UsageError("--adapter: of several models it is not clear which; merge it into one (dsclora merge)")
    if adapter:
        subjects = [_load_adapted(model[0] if model else None, _adapters(adapter))]
    else:
        subjects = [zoo.open_network(each) for each in model or ["span-x4"]]
    base = [zoo.open_network(baseline)] if baseline else []
    names = [subject.name for subject in base + subjects]
    if len(set(names)) < len(names):
        raise UsageError(f"two networks are called {max(names, key=names.count)}; rename a file")
    setting = verb.resolve_runtime(Setting(engine, precision, device, threads), base + subjects)

    if submission is not None:
        for path in ntire_submission.submit(subjects[0], submission, team, name, overwrite):
            _say(f"{path}: written")
    spelled = {"engine": setting.engine, "precision": precision, "device": device, "threads": threads or "all"}
    if preset is not None:
        assert images is not None
        rules = ntire.PRESETS[preset]
        pairs = find_pairs(images, ntire.SCALE)
        with Meter(len(pairs), "picture") as meter:
            entries = ntire.compete(
                rules, base[0], subjects, pairs, setting, runs, lambda done: meter.at(done, done, pairs[done - 1].name)
            )
        if as_json:
            rows = [
                asdict(entry)
                | {"psnr": _or_none(entry.psnr), "peak_mb": _or_none(entry.peak_mb), "latency_ms": entry.runtime}
                | asdict(entry.cost)
                for entry in entries
            ]
            _print_json(
                {"preset": preset, "baseline": rules.baseline, "pictures": len(pairs), **spelled, "models": rows}
            )
        else:
            _print_challenge(rules, entries)
            print(f"{len(pairs)} pictures, {runs} runs each; " + ", ".join(f"{k} {v}" for k, v in spelled.items()))
        return
    sizes = []
    for text in size or ["256x256"]:
        box = _box(text, "--size")
        assert box is not None
        sizes.append((box[1], box[0]))
    costs = {(each.name, size): count_cost(each, *size) for each in subjects for size in sizes}
    latencies = verb.measure(subjects, sizes, setting, runs)
    rows = []
    for height, width in sizes:
        for subject in subjects:
            took, cost = latencies[subject.name, (height, width)], costs[subject.name, (height, width)]
            rows.append(
                {
                    "name": subject.name,
                    "scale": subject.scale,
                    "width": width,
                    "height": height,
                    **asdict(cost),
                    "flops": 2 * cost.macs,
                    "latency_ms": took.milliseconds,
                    "latency_ms_p10": took.low,
                    "latency_ms_p90": took.high,
                    "peak_mb": _or_none(took.peak_mb),
                }
            )
    if as_json:
        _print_json({**rows[0], **spelled, "runs": runs, "models": rows})
        return
    print(f"{'network':<24} {'input':>9} {'parameters':>11} {'G MACs':>8} {'M act.':>8} {'convs':>5} "
          f"{'ms':>8} {'p10-p90':>15} {'MB':>6}")  # fmt: skip
    for row in rows:
        box_text = f"{row['width']}x{row['height']}"
        spread = f"{row['latency_ms_p10']:.1f}-{row['latency_ms_p90']:.1f}"
        print(
            f"{row['name']:<24} {box_text:>9} {row['parameters']:>11,} {row['macs'] / 1e9:8.3f} "
            f"{row['activations'] / 1e6:8.2f} {row['convs']:5} {row['latency_ms']:8.1f} {spread:>15} "
            f"{row['peak_mb'] or math.nan:6.0f}"
        )
    print("MACs as fvcore counts them (one per multiply-add, convs without biases; FLOPs are twice that)")
    print(
        f"activations: what convs put out; ms: median of {runs}; " + ", ".join(f"{k} {v}" for k, v in spelled.items())
    )


def _print_challenge(rules: Any, entries: list[Any]) -> None:
    """The challenge's table, gates and score."""
    print(f"{'network':<24} {'PSNR':>8} {'ms':>8} {'M param.':>8} {'G MACs':>8} {'M act.':>8} {'convs':>5} {'MB':>6}  "
          f"{'runtime':>8} {'MACs':>6} {'param.':>6} {'final':>7}")  # fmt: skip
    for entry in entries:
        scores, cost = entry.scores, entry.cost
        print(
            f"{entry.name:<24} {entry.psnr:8.3f} {entry.runtime:8.2f} {cost.parameters / 1e6:8.3f} "
            f"{cost.macs / 1e9:8.2f} {cost.activations / 1e6:8.2f} {cost.convs:5} {entry.peak_mb:6.0f}  "
            f"{scores['runtime']:8.3f} {scores['macs']:6.3f} {scores['parameters']:6.3f} {scores['final']:7.3f}"
        )
    weights = ", ".join(f"{weight:g} {key}" for key, weight in rules.weights.items())
    print(f"the first row is the baseline, {rules.baseline} by the rules")
    print(f"score: {weights}, each exp(2 x value / baseline's)")
    print(f"the gates, {rules.valid:.2f} dB on DIV2K_LSDIR valid and {rules.test:.2f} on test, are for those pictures")


def _load_adapted(model: str | None, added: list[tuple[Any, float]], factor: float | None = None) -> Any:
    """A base (by default the one for the adapters or the factor) with adapters added."""
    from dsclora import zoo
    from dsclora.networks import adapter

    content = zoo.load(model or zoo.best_bundled(factor, added[0][0] if added else None))
    return adapter.merge(content, added) if added else content


def _adapters(texts: list[str]) -> list[tuple[Any, float]]:
    """Adapters, `FILE` or `FILE:STRENGTH`, with their strengths."""
    from dsclora import zoo

    parsed = []
    for text in texts:
        name, strength = text, 1.0
        head, colon, tail = text.rpartition(":")
        if colon and not Path(text).exists():
            try:
                name, strength = head, float(tail)
            except ValueError as error:
                raise UsageError(f"an adapter is FILE or FILE:STRENGTH, not {text!r}") from error
            if not abs(strength) <= 100:
                raise UsageError(f"{text}: a strength of {strength:g} makes no sense; 1 is as trained")
        parsed.append((zoo.load_adapter(name), strength))
    return parsed


@app.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help=".safetensors or .pth of any SPAN.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Model file to write.")],
    license: Annotated[str, typer.Option("--license", help="Of the weights; written into the file.")] = "unknown",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Convert other people's SPAN weights: plain or training form, any width and scale.

    Example: dsclora import span_ch26.pth -o span_ch26.safetensors --license MIT
    """
    from dsclora.networks import span, span_import

    content = span_import.import_file(file, license)
    span.write(output, content, overwrite)
    if as_json:
        _print_json({"output": output, **span.describe(content)})
    else:
        _say(
            f"{file} -> {output}  SPAN x{content.scale}, {content.channels} channels, {content.parameters:,} parameters"
        )


@app.command()
def inspect(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A model or adapter file, or a bundled one's name.")],
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Say what a weights file holds.

    Example: dsclora inspect span-x4
    """
    from dsclora import networks, zoo
    from dsclora.networks import adapter

    if file in zoo.names():
        facts = networks.describe(zoo.load(file))
    elif file in zoo.adapter_names() or adapter.is_adapter(file):
        facts = adapter.describe(zoo.load_adapter(file))
    else:
        facts = networks.describe(networks.open_file(file))
    if as_json:
        _print_json(facts)
    else:
        for key, value in facts.items():
            print(f"{key:<14} {printable(json.dumps(value) if isinstance(value, dict) else str(value))}")


@app.command()
def models(as_json: JsonOption = False, verbose: VerboseOption = False) -> None:
    """List the bundled models, and the adapters of them.

    Example: dsclora models
    """
    from dsclora import zoo
    from dsclora.networks import adapter, span

    rows = [span.describe(zoo.load(name)) for name in zoo.names()]
    adapters = [adapter.describe(zoo.load_adapter(name)) for name in zoo.adapter_names()]
    if as_json:
        _print_json({"default": zoo.DEFAULT, "models": rows, "adapters": adapters})
        return
    for row in rows:
        mark = " (default)" if row["name"] == zoo.DEFAULT else ""
        print(f"{row['name']}{mark}: x{row['scale']}, {row['channels']} channels, {row['parameters']:,} parameters")
    for row in adapters:
        if row["int8"]:
            print(f"{row['name']}: adapter of {row['training']['base']}, for `dsclora export --precision int8`")
            continue
        gain = row["training"]["result"]["held_out"]["gain"]
        print(f"{row['name']}: adapter of {row['training']['base']} {zoo.purpose(row['name'])}, {gain:+.2f} dB")
    print("gains: on pictures held out, of which some are clean; what an adapter costs on clean ones is in its card,")
    print(zoo.adapters())


@app.command()
def doctor(as_json: JsonOption = False, verbose: VerboseOption = False) -> None:
    """Say what is on this machine, what is used of it, and why.

    Example: dsclora doctor
    """
    from dsclora.measure.doctor import examine

    facts = examine()
    if as_json:
        _print_json(facts)
        return
    for key in ("dsclora", "python", "platform", "libvips", "cores"):
        print(f"{key:<10} {facts[key]}")
    print(f"{'cpu':<10} {facts['cpu']['name']} ({' '.join(facts['cpu']['features']) or 'no known extensions'})")
    for row in facts["runtimes"]:
        state = f"{row['version']} on {', '.join(row['devices'])}" if row["installed"] else f"no: {row['install']}"
        if "kernels" in row:
            state += f" ({row['kernels'][0]})" if row["kernels"] else " (not usable on this processor)"
        print(f"{row['engine']:<12} {state}{'  <- used' if row['used'] else ''}")
    print(f"{'why':<10} {facts['why']}")
    training = ", ".join(f"{k} {v or 'not installed'}" for k, v in facts["training"].items())
    precision = f"; on the CPU in {facts['cpu_trains_in']}" if facts["cpu_trains_in"] else ""
    print(f"{'training':<10} {training}{precision}")
    print(f"{'models':<10} {', '.join(facts['models'])}")


if __name__ == "__main__":
    main()
