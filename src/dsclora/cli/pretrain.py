"""`dsclora pretrain`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsclora.cli.console import Meter, is_verbose, print_json, say, wants_json
from dsclora.cli.options import ResumeOption, TrainDeviceOption, TrainThreadsOption

if TYPE_CHECKING:
    from dsclora.training.run import Progress


def pretrain(
    ctx: typer.Context,
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A bundled recipe's name, such as span-x4 or quick, or a TOML file.")
    ],
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

    Example: dsclora pretrain span-x4 --train photos/ --valid held-out/

    On several processes or hosts: torchrun --nproc-per-node 2 -m -- dsclora pretrain ...
    """
    from dsclora.cli.training import start_training

    quiet = start_training(ctx, device, threads)
    from dsclora.training.pretrain import pretrain_files
    from dsclora.training.recipes import load_pretrain

    loaded = load_pretrain(recipe)
    with Meter(sum(stage.iterations for stage in loaded.stages), "iteration", quiet=quiet) as meter:
        first: list[int] = []

        def report(p: "Progress") -> None:
            first.append(p.step)
            meter.at(p.step, p.step - first[0], f"{p.step}/{p.steps} loss {p.loss:.5f} best {p.best:.3f} dB")
            if p.score is not None or is_verbose():
                score = f"  validation {p.score:.4f} dB (best {p.best:.4f})" if p.score is not None else ""
                say(
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
    if wants_json():
        print_json({"model": outcome.path, "psnr": outcome.psnr, "sha256": outcome.model.sha256})
    else:
        say(f"{outcome.path}: {outcome.psnr:.4f} dB on {valid} (classic-y), {outcome.model.parameters:,} parameters")
