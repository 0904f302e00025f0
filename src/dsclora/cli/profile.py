"""`dsclora profile`: what networks cost, and the NTIRE challenge's table."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dsclora.cli.arguments import load_network, parse_box
from dsclora.cli.console import say
from dsclora.cli.options import (
    AdapterOption,
    DeviceOption,
    EngineOption,
    OverwriteOption,
    PrecisionOption,
    SizeOption,
    ThreadsOption,
)
from dsclora.errors import UsageError

if TYPE_CHECKING:
    from dsclora.networks import Network


def profile(
    images: Annotated[
        Path | None,
        typer.Argument(metavar="[IMAGES]", help="With --preset: folder with HR/ and LRx4/.", show_default=False),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            "-n",
            metavar="NAME|FILE",
            help="A bundled model's or adapter's name or a file: ours, anybody's SPAN, ONNX; may be repeated. "
            "Default: span-x4.",
        ),
    ] = None,
    adapter: AdapterOption = None,
    size: SizeOption = None,
    runs: Annotated[
        int, typer.Option("--runs", min=1, help="Runs of each, in turn; with --preset, of each picture.")
    ] = 10,
    preset: Annotated[
        Literal["ntire2025", "ntire2026"] | None,
        typer.Option("--preset", help="The challenge's protocol, table and score. Default: none."),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            metavar="FILE",
            help="The challenge's baseline: EFDN (ONNX) or SPAN of 28 channels. No default: --preset needs it.",
        ),
    ] = None,
    submission: Annotated[
        Path | None,
        typer.Option(
            "--submission", metavar="FOLDER", help="Write a submission in the challenge's layout there. Default: none."
        ),
    ] = None,
    team: Annotated[int, typer.Option("--team", min=0, max=99, help="Team's number in the submission.")] = 0,
    name: Annotated[str, typer.Option("--name", help="Method's name in the submission.")] = "DSCLoRA",
    overwrite: OverwriteOption = False,
    engine: EngineOption = "auto",
    precision: PrecisionOption = "fp32",
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
) -> None:
    """Say what networks cost, side by side.

    Parameters, multiply-adds, activations, convs, memory and latency.

    Example: dsclora profile --model span-x4 --model span-x4-wide --size 256x256 --size 640x360

    Example: dsclora profile DIV2K_valid/ --preset ntire2026 --baseline span_ch28.pth --model span-x4
    """
    from dsclora import zoo
    from dsclora.cli.profiling import challenge, compare
    from dsclora.engines import Setting
    from dsclora.measure import latency as verb
    from dsclora.measure import ntire_submission

    if (preset is None) != (images is None) or (preset is None) != (baseline is None):
        raise UsageError("--preset, --baseline and a folder of pictures go together")
    if preset is not None and size:
        raise UsageError("--size does not go with --preset, which runs whole pictures and counts costs at 256x256")
    networks = _networks(model or [], adapter)
    base = [zoo.open_network(baseline)] if baseline else []
    names = [network.name for network in base + networks]
    if len(set(names)) < len(names):
        raise UsageError(f"two networks are called {max(names, key=names.count)}; rename a file")
    setting = verb.resolve_runtime(Setting(engine, precision, device, threads), base + networks)
    if submission is not None:
        for path in ntire_submission.submit(networks[0], submission, team, name, overwrite):
            say(f"{path}: written")
    spelled = {"engine": setting.engine, "precision": precision, "device": device, "threads": threads or "all"}
    if preset is None:
        boxes = [parse_box(text, "--size") for text in size or ["256x256"]]
        compare(networks, [(height, width) for width, height in boxes], setting, runs, spelled)
    else:
        assert images is not None
        challenge(preset, base[0], networks, images, setting, runs, spelled)


def _networks(models: list[str], adapters: list[str] | None) -> "list[Network]":
    """Load the networks to compare; adapters go with one model alone."""
    from dsclora import zoo

    if adapters and len(models) > 1:
        raise UsageError("--adapter goes with one model; merge it into that one first (dsclora merge)")
    if adapters:
        return [load_network(models[0] if models else None, adapters)[0]]
    return [
        load_network(each, None)[0] if zoo.is_adapter_name(each) else zoo.open_network(each)
        for each in models or [zoo.DEFAULT]
    ]
