"""`dsclora adapt`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsclora.cli.console import Meter, is_verbose, print_json, say, wants_json
from dsclora.cli.options import BaseOption, OverwriteOption, ResumeOption, TrainDeviceOption, TrainThreadsOption

if TYPE_CHECKING:
    from dsclora.networks.adaptation import Adaptation
    from dsclora.training.run import Progress


def adapt(
    ctx: typer.Context,
    images: Annotated[
        Path, typer.Argument(metavar="IMAGES", help="Folder of HR pictures, or with HR/ and LRx4/ (or LRx2/, LRx3/).")
    ],
    base: BaseOption = "span-x4",
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher",
            metavar="NAME|FILE",
            help="A stronger model of this scale or a larger one, any width, to distil from. "
            "Default: with --guard and a bundled base span-x4-wide, else none.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Adapter file to write. Default: IMAGES.safetensors.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="NAME|FILE",
            help="A bundled recipe (docs, jpeg, noise, blur, comic or photo) or a TOML file. Default: zoo/adapt.toml.",
        ),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", help="Scale the recipe to this time. Default: as long as it takes.")
    ] = None,
    iterations: Annotated[
        int | None,
        typer.Option("--iterations", min=1, help="Scale the recipe to this many steps. Default: the recipe's."),
    ] = None,
    valid: Annotated[
        Path | None, typer.Option("--valid", help="Pictures to judge by. Default: a part of IMAGES, held out.")
    ] = None,
    guard: Annotated[
        Path | None,
        typer.Option(
            "--guard", help="Pictures of other kinds, mixed in so that they are not forgotten. Default: none."
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--start", metavar="NAME|FILE", help="Go on from this adapter of the same base. Default: from nothing."
        ),
    ] = None,
    overwrite: OverwriteOption = False,
    resume: ResumeOption = False,
    device: TrainDeviceOption = "cpu",
    threads: TrainThreadsOption = None,
) -> None:
    """Adapt a base model to your pictures.

    It is saved only if it beats the base on pictures held out.

    Exit code 3: it does not; the attempt is kept as NAME.rejected.safetensors, its report as NAME.rejected.html.

    Example: dsclora adapt scans/ --minutes 10 -o scans.safetensors

    On several processes or hosts: torchrun --nproc-per-node 2 -m -- dsclora adapt ... (whose exit code is 0 or 1 alone)
    """
    from dsclora.cli.training import start_training

    quiet = start_training(ctx, device, threads)
    from dsclora.training.adapt import adapt_files

    with Meter(1, "run", quiet=quiet) as meter:

        def report(p: "Progress") -> None:
            meter.at(p.step / p.steps, p.step / p.steps, f"{p.step}/{p.steps} best {p.best:.3f} dB")
            if p.score is not None or is_verbose():
                score = f"  held-out {p.score:.4f} dB (best {p.best:.4f})" if p.score is not None else ""
                left = f"  left {p.seconds_left / 60:.1f} min" if p.step else "  the base"
                say(f"{p.step}/{p.steps}{left}{score}")

        adaptation = adapt_files(
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
    if wants_json():
        facts = {"adapter": adaptation.path, "report": adaptation.report, "parameters": adaptation.adapter.parameters}
        print_json({**facts, **adaptation.result})
    else:
        _say_result(adaptation, base, output or Path(f"{images.resolve().name}.safetensors"))
    raise typer.Exit(0 if adaptation.accepted else 3)


def _say_result(adaptation: "Adaptation", base: str, target: Path) -> None:
    """Say what an adapter changes on held-out and on other pictures, and where it is."""
    result = adaptation.result
    for label, change in (("held-out", result["held_out"]), ("general", result["general"])):
        if change:
            low, high = change["interval"]
            say(
                f"{label} pictures ({change['pictures']}): {change['before']:.3f} -> {change['after']:.3f} dB, "
                f"{change['gain']:+.3f} ({change['confidence']:.0%} interval {low:+.3f} to {high:+.3f})"
            )
    path, report = adaptation.path, adaptation.report
    if adaptation.accepted:
        say(f"{path}: {adaptation.adapter.parameters:,} numbers; report: {report}")
        say(f"use it: dsclora upscale PICTURE --model {base} --adapter {path}")
    else:
        say(f"no gain beyond doubt over {base}: not saved as {target}; kept as {path}; report: {report}")
