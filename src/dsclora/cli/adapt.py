"""`dsclora adapt`."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from dsclora.cli.console import Meter, is_verbose, print_json, say, wants_json
from dsclora.cli.options import BaseOption, OverwriteOption, ResumeOption, TrainDeviceOption, TrainThreadsOption
from dsclora.errors import UsageError, needs_extra


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
        Path | None, typer.Option("--recipe", help="TOML file. Default: the bundled recipe, zoo/adapt.toml.")
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
    with needs_extra("train", "training"):
        import torch

        from dsclora import zoo
        from dsclora.networks import adapter
        from dsclora.training import adapt as verb
        from dsclora.training import patches, processes, recipes, report_page
        from dsclora.training.selection import find_sources
    as_json, verbose = wants_json(), is_verbose()
    begin = time.monotonic()
    if minutes is not None and iterations is not None:
        raise UsageError("--minutes and --iterations exclude each other")
    if minutes is not None and not 0 < minutes < 1e6:
        raise UsageError(f"--minutes must be positive, got {minutes}")
    target = output or Path(f"{images.resolve().name}.safetensors")
    if target.suffix != ".safetensors" or target.is_dir():
        raise UsageError(f"{target}: an adapter's file ends in .safetensors")
    rejected = target.with_suffix(".rejected.safetensors")
    for path in (target, target.with_suffix(".html"), rejected, rejected.with_suffix(".html")):
        if path.exists() and not overwrite:
            raise UsageError(f"{path}: exists already; choose another --output or pass --overwrite")
    loaded = recipes.load_adapt(recipe or zoo.adapt_recipe())
    if threads is not None:
        torch.set_num_threads(threads)
    own = ctx.with_resource(processes.joined(device))
    model = zoo.load(base)
    begun = zoo.load_adapter(start) if start else None
    teacher = teacher or (zoo.teacher_of(base) if guard is not None else None)
    teaching = zoo.load(teacher) if teacher else None
    folder = target.with_suffix(".run")
    verb.check(
        loaded, model, folder, teaching, guarded=guard is not None, start=begun, resume=resume, overwrite=overwrite
    )
    with Meter(1, "run", quiet=processes.rank() > 0) as meter:
        sources = find_sources(
            loaded, images, model.scale, valid, guard, None if guard else zoo.general_pictures(), meter.say
        )
        if minutes is not None:  # looking at the pictures counts
            left = minutes - (time.monotonic() - begin) / 60
            if left < 0.1:
                meter.say(
                    f"looking at the pictures took all of {minutes:g} minutes; what is trained now is not worth much"
                )
            minutes = max(0.1, left)

        def report(p: Any) -> None:
            meter.at(p.step / p.steps, p.step / p.steps, f"{p.step}/{p.steps} best {p.best:.3f} dB")
            if p.score is not None or verbose:
                score = f"  held-out {p.score:.4f} dB (best {p.best:.4f})" if p.score is not None else ""
                left = f"  left {p.seconds_left / 60:.1f} min" if p.step else "  the base"
                meter.say(f"{p.step}/{p.steps}{left}{score}")

        outcome = verb.adapt(
            loaded,
            model,
            sources,
            folder,
            teaching,
            minutes=minutes,
            iterations=iterations,
            start=begun,
            resume=resume,
            overwrite=overwrite,
            device=own,
            report=report,
            say=meter.say,
        )
    if processes.rank() > 0:
        return
    written = target if outcome.accepted else rejected
    shown = written.with_suffix(".html")
    adapter.write(written, outcome.adapter, overwrite)
    result = outcome.adapter.training["result"]
    rows = list(zip(outcome.change.names, outcome.change.before, outcome.change.after, strict=True))
    report_page.write(shown, target.stem, result, dict(outcome.adapter.training), rows, outcome.samples, overwrite)
    for store in ("pictures", "guard"):
        patches.discard(folder / store)
    if as_json:
        print_json({"adapter": written, "report": shown, "parameters": outcome.adapter.parameters, **result})
    else:
        held, general = result["held_out"], result["general"]
        for label, change in (("held-out", held), ("general", general)):
            if change:
                low, high = change["interval"]
                say(
                    f"{label} pictures ({change['pictures']}): {change['before']:.3f} -> {change['after']:.3f} dB, "
                    f"{change['gain']:+.3f} ({change['confidence']:.0%} interval {low:+.3f} to {high:+.3f})"
                )
        if outcome.accepted:
            say(f"{written}: {outcome.adapter.parameters:,} numbers; report: {shown}")
            say(f"use it: dsclora upscale PICTURE --model {base} --adapter {written}")
        else:
            say(f"no gain beyond doubt over {base}: not saved as {target}; kept as {written}; report: {shown}")
    raise typer.Exit(0 if outcome.accepted else 3)
