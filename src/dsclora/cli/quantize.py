"""`dsclora quantize`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from dsclora.cli.console import Meter, print_json, wants_json
from dsclora.cli.options import BaseOption, OverwriteOption, ResumeOption, TrainThreadsOption
from dsclora.errors import UsageError, needs_extra


def quantize(
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
    with needs_extra("train", "training"):
        import torch

        from dsclora import zoo
        from dsclora.networks import adapter
        from dsclora.training import patches, recipes
        from dsclora.training import quantize as verb
    as_json = wants_json()
    if output.suffix != ".safetensors" or output.is_dir():
        raise UsageError(f"{output}: an adapter's file ends in .safetensors")
    if output.exists() and not overwrite:
        raise UsageError(f"{output}: exists already; choose another --output or pass --overwrite")
    loaded = recipes.load_adapt(recipe or zoo.int8_recipe())
    if iterations is not None:
        whole = sum(stage.iterations for stage in loaded.stages)
        loaded = loaded.model_copy(update={"stages": recipes.scaled(loaded.stages, iterations / whole)})
    if threads is not None:
        torch.set_num_threads(threads)
    steps = sum(stage.iterations for stage in loaded.stages)
    with Meter(steps, "iteration") as meter:

        def report(progress: Any) -> None:
            meter.at(progress.step, progress.step, f"loss {progress.loss:.5f}")
            if progress.score is not None:
                meter.say(f"{progress.step}/{steps}  {progress.score:.4f} dB in int8 (best {progress.best:.4f})")

        outcome = verb.quantize(
            loaded,
            zoo.load(base),
            images,
            valid,
            output.with_suffix(".run"),
            resume=resume,
            overwrite=overwrite,
            report=report,
            say=meter.say,
        )
    adapter.write(output, outcome.adapter, overwrite)
    patches.discard(output.with_suffix(".run") / "pictures")
    figures = {"float": outcome.base, "calibrated": outcome.calibrated, "trained": outcome.trained}
    if as_json:
        print_json({"output": output, "psnr": figures})
    else:
        print(f"{output}: int8 {outcome.trained - outcome.base:+.4f} dB from floating point ({outcome.base:.4f}); "
              f"without training {outcome.calibrated - outcome.base:+.4f}")  # fmt: skip
