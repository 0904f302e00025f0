"""`dsclora pretrain`."""

from pathlib import Path
from typing import Annotated

import typer

from dsclora.cli.console import Meter, is_verbose, print_json, say, wants_json
from dsclora.cli.options import ResumeOption, TrainDeviceOption, TrainThreadsOption
from dsclora.errors import needs_extra


def pretrain(
    ctx: typer.Context,
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="TOML file; see recipes/ in the repository.")],
    train: Annotated[Path, typer.Option("--train", help="Folder of HR pictures to train on.")],
    valid: Annotated[Path, typer.Option("--valid", help="Folder of HR pictures to choose the best weights on.")],
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher",
            metavar="NAME|FILE",
            help="A larger model of this scale or above, for pixel distillation. Default: none.",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--start",
            metavar="NAME|FILE",
            help="Begin with this model's weights: of the same width, any scale. Default: random ones.",
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder. Default: runs/RECIPE.")] = None,
    resume: ResumeOption = False,
    device: TrainDeviceOption = "cpu",
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the network by torch.compile: a little faster, in a long run.")
    ] = False,
    threads: TrainThreadsOption = None,
) -> None:
    """Train a base model.

    It begins from scratch, or from another model's weights.

    Example: dsclora pretrain recipes/span-x4.toml --train photos/ --valid held-out/

    On several processes or hosts: torchrun --nproc-per-node 2 -m -- dsclora pretrain ...
    """
    with needs_extra("train", "training"):
        import torch

        from dsclora import zoo
        from dsclora.training import loop, patches, processes, recipes
        from dsclora.training import pretrain as verb
    as_json, verbose = wants_json(), is_verbose()
    loaded = recipes.load_pretrain(recipe)
    if threads is not None:
        torch.set_num_threads(threads)
    own = ctx.with_resource(processes.joined(device))
    folder = output or Path("runs") / recipe.stem
    with Meter(sum(stage.iterations for stage in loaded.stages), "iteration", quiet=processes.rank() > 0) as meter:
        first: list[int] = []

        def report(p: loop.Progress) -> None:
            first.append(p.step)
            meter.at(p.step, p.step - first[0], f"{p.step}/{p.steps} loss {p.loss:.5f} best {p.best:.3f} dB")
            if p.score is not None or verbose:
                score = f"  validation {p.score:.4f} dB (best {p.best:.4f})" if p.score is not None else ""
                meter.say(
                    f"{p.step}/{p.steps}  loss {p.loss:.6f}  rate {p.learning_rate:.2e}  "
                    f"{p.seconds_per_step:.3f} s/iteration  left {p.seconds_left / 60:.0f} min{score}"
                )

        outcome = verb.pretrain(
            loaded,
            train,
            valid,
            folder,
            zoo.load(teacher) if teacher else None,
            start=zoo.load(start) if start else None,
            resume=resume,
            device=own,
            compile=compile,
            report=report,
            say=meter.say,
        )
    if processes.rank() > 0:
        return
    patches.discard(folder / "pictures")
    if as_json:
        print_json({"model": outcome.path, "psnr": outcome.psnr, "sha256": outcome.model.sha256})
    else:
        say(f"{outcome.path}: {outcome.psnr:.4f} dB on {valid} (classic-y), {outcome.model.parameters:,} parameters")
