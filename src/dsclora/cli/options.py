"""Options that several verbs share."""

from typing import Annotated, Literal

import typer

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
