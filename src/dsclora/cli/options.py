"""Options that several verbs share, and the two that all have."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dsclora.cli import console

BASE_HELP = "A bundled model's name or a model file."

AdapterOption = Annotated[
    list[str] | None,
    typer.Option(
        "--adapter",
        "-a",
        metavar="NAME|FILE[:STRENGTH]",
        help="Adapter to add to the model, and how strongly (1: as trained); may be repeated. Default: none.",
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        "-n",
        metavar="NAME|FILE",
        help="A bundled model's name or a model file; an adapter's name takes it with its base. "
        "Default: span-x4, or what suits --scale or --adapter.",
    ),
]
BaseOption = Annotated[str, typer.Option("--base", "-b", metavar="NAME|FILE", help=BASE_HELP)]
BaseArgument = Annotated[str, typer.Argument(metavar="BASE", help=BASE_HELP)]
EngineOption = Annotated[
    Literal["auto", "native", "openvino", "onnxruntime", "torch"],
    typer.Option("--engine", help="Runtime; auto takes the fastest one here, see `dsclora doctor`."),
]
PrecisionOption = Annotated[
    Literal["fp32", "bf16"],
    typer.Option("--precision", help="bf16 costs about 0.01 dB, for an engine and a processor that have it."),
]
DeviceOption = Annotated[Literal["cpu", "cuda", "mps"], typer.Option("--device", help="cuda and mps need PyTorch.")]
TrainDeviceOption = Annotated[
    Literal["cpu", "cuda"], typer.Option("--device", help="Device to train on; under torchrun, one GPU a process.")
]


def _threads(text: str) -> int:
    """Read a number of threads; of realesrgan-ncnn's LOAD:PROC:SAVE the middle one counts."""
    parts = text.split(":")
    number = parts[1] if len(parts) == 3 else text
    if not number.isdecimal() or not 1 <= int(number) <= 1024:
        raise typer.BadParameter(f"{text!r} is not a number of threads from 1 to 1024, such as 2, or 1:2:2")
    return int(number)


ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads",
        "-j",
        metavar="N",
        parser=_threads,
        help="Threads of the engine, 1 to 1024; of LOAD:PROC:SAVE, as realesrgan-ncnn takes it, PROC counts. "
        "Default: all cores.",
    ),
]
TrainThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads",
        "-j",
        min=1,
        max=1024,
        help="Threads of PyTorch. Default: all cores; under torchrun, one a process.",
    ),
]
SizeOption = Annotated[
    list[str] | None,
    typer.Option("--size", metavar="WxH", help="Size of the input; may be repeated. Default: 256x256."),
]
OutputFileOption = Annotated[Path, typer.Option("--output", "-o", help="File to write.")]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace existing files. Default: refuse, and write nothing.")
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on after an interruption; on a CPU, bit for bit.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Say more, and show tracebacks.")]


def with_shared_options(verb: Callable[..., None], prepare: Callable[[], None] | None = None) -> Callable[..., None]:
    """Add --json and --verbose to a verb, for `console` to keep.

    Args:
        verb: a function that Typer can read.
        prepare: called before it.
    """

    @functools.wraps(verb)
    def run(*args: Any, as_json: bool, verbose: bool, **options: Any) -> None:
        console.apply(as_json, verbose)
        if prepare is not None:
            prepare()
        verb(*args, **options)

    shared = {"as_json": JsonOption, "verbose": VerboseOption}
    signature = inspect.signature(verb)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in shared.items()
    ]
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *added])  # type: ignore[attr-defined]
    run.__annotations__ = {**verb.__annotations__, **shared}
    return run
