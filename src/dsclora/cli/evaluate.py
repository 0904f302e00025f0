"""`dsclora evaluate`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from dsclora.cli.arguments import load_model, parse_adapters
from dsclora.cli.console import or_none, print_json, printable
from dsclora.cli.options import (
    AdapterOption,
    DeviceOption,
    EngineOption,
    JsonOption,
    ModelOption,
    PrecisionOption,
    ThreadsOption,
    VerboseOption,
)
from dsclora.errors import DscloraError, UsageError


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
    from dsclora.engines.choice import open_engine
    from dsclora.measure import evaluate as verb
    from dsclora.pictures import comparison, metrics
    from dsclora.pictures.pairs import find_pairs

    for path in (csv, grid):
        if path is not None and path.exists() and not overwrite:
            raise UsageError(f"{path}: exists already; choose another name or pass --overwrite")
    if csv is not None and csv == grid:
        raise UsageError(f"--csv and --grid are both {csv}; name two files")
    content = load_model(model, parse_adapters(adapter or []))
    running = open_engine(content, engine, precision, device, threads)
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
        print_json(
            {
                "protocol": spelled,
                "model": facts | {"parameters": content.parameters},
                "mean": {"psnr": or_none(psnr), "ssim": or_none(ssim)},
                "images": [{"name": s.name, "psnr": or_none(s.psnr), "ssim": or_none(s.ssim)} for s in scores],
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
