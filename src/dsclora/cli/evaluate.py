"""`dsclora evaluate`: PSNR and SSIM over a folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dsclora.cli.arguments import load_network
from dsclora.cli.console import Meter, or_none, print_json, printable, say, wants_json
from dsclora.cli.options import (
    AdapterOption,
    DeviceOption,
    EngineOption,
    ModelOption,
    OverwriteOption,
    PrecisionOption,
    ThreadsOption,
)
from dsclora.errors import DscloraError, UsageError

if TYPE_CHECKING:
    from dsclora.measure.evaluate import Score
    from dsclora.networks import Network


def evaluate(
    images: Annotated[
        Path, typer.Argument(metavar="IMAGES", help="Folder with HR/ (and LRx4/ ...), or of HR pictures.")
    ],
    model: ModelOption = None,
    adapter: AdapterOption = None,
    protocol: Annotated[
        Literal["classic-y", "ntire-rgb"], typer.Option("--protocol", help="How the figures are computed.")
    ] = "classic-y",
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write the rows there too. Default: nowhere.")
    ] = None,
    grid: Annotated[
        Path | None,
        typer.Option(
            "--grid",
            metavar="FILE",
            help="Write a PNG: bicubic, model and original of every detail. Default: none.",
        ),
    ] = None,
    overwrite: OverwriteOption = False,
    engine: EngineOption = "auto",
    precision: PrecisionOption = "fp32",
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
) -> None:
    """Measure PSNR and SSIM over a folder.

    Example: dsclora evaluate Set5 --model span-x4 --protocol classic-y
    """
    from dsclora.engines import Setting
    from dsclora.engines.choice import open_engine
    from dsclora.measure import evaluate as verb
    from dsclora.pictures import comparison, metrics
    from dsclora.pictures.pairs import find_pairs

    for path in (csv, grid):
        if path is not None and path.exists() and not overwrite:
            raise UsageError(f"{path}: exists already; choose another name or pass --overwrite")
    if csv is not None and csv == grid:
        raise UsageError(f"--csv and --grid are both {csv}; name two files")
    network, _ = load_network(model, adapter)
    running = open_engine(network, Setting(engine, precision, device, threads))
    rules = metrics.protocol(protocol, network.scale)
    pairs = find_pairs(images, network.scale)
    scores: list[Score] = []
    failures: list[str] = []
    details = []
    with Meter(len(pairs), "picture") as meter:
        for item in verb.evaluate(lambda lr: verb.as_published(running, lr), pairs, network.scale, rules):
            if isinstance(item, verb.Failure):
                failures.append(item.error)
                say(f"error: {item.error}")
                continue
            scores.append(item.score)
            if grid is not None:
                details.append(comparison.details(item.lr, [item.sr, item.hr]))
            meter.at(len(scores) + len(failures), len(scores), item.score.name)
    if not scores:
        raise DscloraError(f"{images}: no picture could be measured")
    lr_from = "given" if pairs[0].lr is not None else "MATLAB-exact bicubic of HR"
    _print(network, scores, failures, rules.describe() | {"lr": lr_from, "engine": running.name})
    if csv is not None:  # after the figures are printed: this file may not be writable
        verb.write_csv(csv, scores, overwrite)
    if grid is not None:
        comparison.write_grid(grid, details, ["bicubic", network.name, "original"], overwrite)
    raise typer.Exit(1 if failures else 0)


def _print(network: "Network", scores: "list[Score]", failures: list[str], protocol: dict[str, Any]) -> None:
    from dsclora.measure.evaluate import mean

    psnr, ssim = mean(scores)
    if wants_json():
        facts = {"name": network.name, "scale": network.scale, "sha256": network.sha256}
        print_json(
            {
                "protocol": protocol,
                "model": facts | {"parameters": network.parameters},
                "mean": {"psnr": or_none(psnr), "ssim": or_none(ssim)},
                "images": [{"name": s.name, "psnr": or_none(s.psnr), "ssim": or_none(s.ssim)} for s in scores],
                "failed": failures,
            }
        )
        return
    for s in scores:
        print(f"{printable(s.name):<40} {s.psnr:8.4f} dB  {s.ssim:.5f}")
    print(f"{f'mean of {len(scores)}':<40} {psnr:8.4f} dB  {ssim:.5f}")
    print(f"{printable(network.name)}; " + "; ".join(f"{k}: {v}" for k, v in protocol.items()))
