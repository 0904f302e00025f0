"""`dsclora quantize`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsclora.cli.console import Meter, print_json, say, wants_json
from dsclora.cli.options import BaseOption, OverwriteOption, ResumeOption, TrainThreadsOption

if TYPE_CHECKING:
    from dsclora.training.run import Progress


def quantize(
    ctx: typer.Context,
    images: Annotated[
        Path, typer.Argument(metavar="IMAGES", help="Folder of HR pictures, such as the model will see.")
    ],
    valid: Annotated[Path, typer.Option("--valid", help="Folder of HR pictures to choose the best weights on.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Adapter file to write.")],
    base: BaseOption = "span-x4",
    recipe: Annotated[
        Path | None, typer.Option("--recipe", help="TOML file. Default: the bundled recipe, zoo/int8.toml.")
    ] = None,
    iterations: Annotated[
        int | None, typer.Option("--iterations", min=1, help="Steps of training. Default: the recipe's.")
    ] = None,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    threads: TrainThreadsOption = None,
) -> None:
    """Train an adapter for int8.

    It keeps the picture where `dsclora export --precision int8` rounds the network.

    Example: dsclora quantize photos/ --valid held-out/ -o span-x4-int8.safetensors
    """
    from dsclora.cli.training import start_training

    start_training(ctx, "cpu", threads)
    from dsclora.training.quantize import quantize_files

    with Meter(1, "run") as meter:

        def report(p: "Progress") -> None:
            meter.at(p.step / p.steps, p.step / p.steps, f"{p.step}/{p.steps} loss {p.loss:.5f}")
            if p.score is not None:
                say(f"{p.step}/{p.steps}  {p.score:.4f} dB in int8 (best {p.best:.4f})")

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
    if wants_json():
        print_json({"output": output, "psnr": figures})
    else:
        print(
            f"{output}: int8 {outcome.trained - outcome.base:+.4f} dB from floating point ({outcome.base:.4f}); "
            f"without training {outcome.calibrated - outcome.base:+.4f}"
        )
