"""The tables and plots of the documentation, measured anew: docs/benchmarks.md and docs/images/psnr-*.svg.

python benchmarks/report.py --bench data/bench --weights official-weights/ [--rounds 9]

Engines: every one of `engines.py` that is installed. Quality: the bundled x4 models and the official ones in the folder
of weights, on Set5, Set14 and BSD100, beside bicubic. The machine should do nothing else.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from matplotlib import pyplot

from dsclora import doctor, evaluate, metrics, profile, weights, zoo
from dsclora.engines import open_engine
from dsclora.evaluate import Measured
from dsclora.pairs import find_pairs
from dsclora.resize import imresize
from dsclora.weights import Model

ROOT = Path(__file__).resolve().parent.parent
SETS = ("Set5", "Set14", "BSD100")
SIZES = ("256x256", "640x360")
OFFICIAL = {
    "span_ch26_ntire2024.pth": "SPAN, 26 channels, NTIRE 2024",
    "dscf_ch26_ntire2025.pth": "DSCLoRA, NTIRE 2025 winner",
    "span_ch28_ntire2024.pth": "SPAN, 28 channels, NTIRE 2024",
    "span_x4_ch48.safetensors": "SPAN, 48 channels",
    "span_x4_ch52.safetensors": "SPAN, 52 channels",
}
SCALE = 4


def main() -> None:
    """Measure, and write the page and the plots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    command = [sys.executable, "benchmarks/engines.py", "--json", "--rounds", str(arguments.rounds), "--sizes", *SIZES]
    speed = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    models = {name: (zoo.load(name), True) for name in zoo.names() if zoo.load(name).scale == SCALE}
    for file, name in OFFICIAL.items():
        if (arguments.weights / file).exists():
            models[name] = (weights.import_file(arguments.weights / file), False)
    quality = [bicubic(arguments.bench)]
    for name, (model, ours) in models.items():
        subject = profile.Subject(name, model, SCALE)
        latency = profile.measure([subject], [(256, 256)], profile.Setting("native", threads=1), arguments.rounds)
        row = {"name": name, "ours": ours, "parameters": model.parameters}
        row["ms"] = latency[name, (256, 256)].milliseconds
        quality.append(row | scores(arguments.bench, model))
    lines = ["# Benchmarks", "", *heading(), "", *engines_table(speed), "", *quality_table(quality)]
    (ROOT / "docs" / "benchmarks.md").write_text("\n".join([*lines, ""]), encoding="utf-8")
    plot(quality, "ms", "milliseconds for 256 x 256, one thread", "psnr-latency")
    plot(quality, "parameters", "parameters", "psnr-parameters")


def scores(bench: Path, model: Model) -> dict[str, tuple[float, float]]:
    """PSNR and SSIM by set."""
    engine = open_engine(model)
    return {name: measured(bench / name, lambda lr: evaluate.as_published(engine, lr)) for name in SETS}


def bicubic(bench: Path) -> dict[str, Any]:
    """The row of MATLAB's."""
    made = {name: measured(bench / name, lambda lr: imresize(lr, SCALE)) for name in SETS}
    return {"name": "bicubic (MATLAB's)", "ours": False, "parameters": 0, "ms": 0.0} | made


def measured(folder: Path, run: Any) -> tuple[float, float]:
    """Means over a folder."""
    protocol = metrics.protocol("classic-y", SCALE)
    results = evaluate.evaluate(run, find_pairs(folder, SCALE), SCALE, protocol)
    return evaluate.mean([item.score for item in results if isinstance(item, Measured)])


def heading() -> list[str]:
    """When, where and by what."""
    versions = ", ".join(
        f"{package} {metadata.version(package)}"
        for package in ("openvino", "onnxruntime", "torch", "ncnn", "MNN", "spandrel")
        if any(d.metadata["Name"].lower() == package.lower() for d in metadata.distributions())
    )
    facts = doctor.examine()
    return [
        f"Measured on {time.strftime('%Y-%m-%d')} by `python benchmarks/report.py`, {facts['cpu']['name']}, "
        f"{facts['cores']} cores, {platform.system()}; {versions}.",
    ]


def engines_table(rows: list[dict[str, Any]]) -> list[str]:
    """Speed, memory and accuracy of every engine, fastest first."""
    lines = ["## Engines", "", "`span-x4`, one thread pinned, bytes in and out, medians of runs in turn.", ""]
    for size in SIZES:
        width, height = map(int, size.split("x"))
        of_size = sorted(
            (r for r in rows if (r["width"], r["height"]) == (width, height)), key=lambda r: r["median_ms"]
        )
        eager = next(r["median_ms"] for r in of_size if r["engine"] == "torch-nchw")
        lines += [
            f"| {width} x {height} | ms | x PyTorch eager | peak MB | PSNR to fp32, dB |",
            "|---|---|---|---|---|",
        ]
        for row in of_size:
            exact = "-" if row["psnr_vs_fp32"] is None else f"{row['psnr_vs_fp32']:.0f}"
            figures = f"{row['median_ms']:.1f} | {eager / row['median_ms']:.2f} | {row['peak_mb']:.0f} | {exact}"
            lines.append(f"| {row['engine']}, {row['precision']} | {figures} |")
        lines.append("")
    return lines


def quality_table(rows: list[dict[str, Any]]) -> list[str]:
    """Ours in bold."""
    lines = [
        "## Quality",
        "",
        "x4, `classic-y`, PSNR in dB / SSIM; milliseconds for 256 x 256 by the native kernel.",
        "",
    ]
    lines += ["| | parameters | ms | Set5 | Set14 | BSD100 |", "|---|---|---|---|---|---|"]
    for row in rows:
        cells = [f"{row[name][0]:.3f} / {row[name][1]:.4f}" for name in SETS]
        name = f"**`{row['name']}`**" if row["ours"] else row["name"]
        numbers = f"{row['parameters']:,} | {row['ms']:.1f}" if row["parameters"] else "- | -"
        lines.append(f"| {name} | {numbers} | {' | '.join(cells)} |")
    plots = [f"![PSNR over {what}](images/psnr-{what}.svg)" for what in ("latency", "parameters")]
    return [*lines, "", *plots]


def plot(rows: list[dict[str, Any]], key: str, label: str, name: str) -> None:
    """PSNR on Set14 over a cost, as SVG."""
    pyplot.rcParams["svg.hashsalt"] = "dsclora"  # the same file for the same figures
    figure, axes = pyplot.subplots(figsize=(7, 4.2))
    for row in rows:
        if row["parameters"]:
            colour, side, x = ("tab:red", "right", -6) if row["ours"] else ("tab:gray", "left", 6)
            point = row[key], row["Set14"][0]
            axes.scatter(*point, color=colour)
            y = 3 if row["name"].startswith("DSCLoRA") else -6  # it lies on the network that it was made of
            axes.annotate(row["name"], point, (x, y), textcoords="offset points", fontsize=8, ha=side)
    axes.set_xlabel(label)
    axes.set_ylabel("PSNR-Y on Set14, dB")
    axes.margins(x=0.35, y=0.15)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(ROOT / "docs" / "images" / f"{name}.svg", metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    main()
