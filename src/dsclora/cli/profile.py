"""`dsclora profile`."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dsclora.cli.arguments import load_model, parse_adapters, parse_box
from dsclora.cli.console import or_none, print_json, say
from dsclora.cli.options import (
    AdapterOption,
    DeviceOption,
    EngineOption,
    JsonOption,
    PrecisionOption,
    ThreadsOption,
    VerboseOption,
)
from dsclora.errors import UsageError


def profile(
    images: Annotated[
        Path | None, typer.Argument(metavar="[IMAGES]", help="With --preset: folder with HR/ and LRx4/.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="A bundled model's name or a file: ours, anybody's SPAN, ONNX; may be repeated. Default: span-x4.",
        ),
    ] = None,
    adapter: AdapterOption = None,
    size: Annotated[
        list[str] | None,
        typer.Option("--size", metavar="WxH", help="Of the input; may be repeated. Default: 256x256."),
    ] = None,
    runs: Annotated[int, typer.Option("--runs", min=1, help="Of each, in turn. With --preset: of each picture.")] = 10,
    preset: Annotated[
        Literal["ntire2025", "ntire2026"] | None,
        typer.Option("--preset", help="The challenge's protocol, table and score."),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option("--baseline", help="The challenge's baseline: EFDN (ONNX) or SPAN of 28 channels.")
    ] = None,
    submission: Annotated[
        Path | None, typer.Option("--submission", help="Write a submission in the challenge's layout there.")
    ] = None,
    team: Annotated[int, typer.Option("--team", min=0, max=99, help="Of the submission.")] = 0,
    name: Annotated[str, typer.Option("--name", help="Of the submission's method.")] = "DSCLoRA",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing submission.")] = False,
    engine: EngineOption = "auto",
    precision: PrecisionOption = "fp32",
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Say what networks cost: parameters, multiply-adds, activations, convs, memory and latency, side by side.

    Example: dsclora profile --model span-x4 --model span-x4-wide --size 256x256 --size 640x360

    Example: dsclora profile DIV2K_valid/ --preset ntire2026 --baseline span_ch28.pth --model span-x4
    """
    from dsclora.cli.console import Meter
    from dsclora.engines import Setting
    from dsclora.measure import latency as verb
    from dsclora.measure import ntire, ntire_submission
    from dsclora.measure.cost import Subject, count_cost, load_subject
    from dsclora.pictures.pairs import find_pairs

    if (preset is None) != (images is None) or (preset is None) != (baseline is None):
        raise UsageError("--preset, --baseline and a folder of pictures go together")
    if preset is not None and size:
        raise UsageError("--size: with --preset the pictures have theirs, and costs are counted at 256x256")
    if adapter and len(model or []) > 1:
        raise UsageError("--adapter: of several models it is not clear which; merge it into one (dsclora merge)")
    if adapter:
        content = load_model(model[0] if model else None, parse_adapters(adapter))
        subjects = [Subject(content.name, content, content.scale)]
    else:
        subjects = [load_subject(each) for each in model or ["span-x4"]]
    first = subjects[0].network
    base = [load_subject(baseline)] if baseline else []
    names = [subject.name for subject in base + subjects]
    if len(set(names)) < len(names):
        raise UsageError(f"two networks are called {max(names, key=names.count)}; rename a file")
    setting = verb.settled(Setting(engine, precision, device, threads), base + subjects)

    if submission is not None:
        if isinstance(first, bytes):
            raise UsageError(f"--submission writes a SPAN; {subjects[0].name} is an ONNX file")
        for path in ntire_submission.submit(first, submission, team, name, overwrite):
            say(f"{path}: written")
    spelled = {"engine": setting.engine, "precision": precision, "device": device, "threads": threads or "all"}
    if preset is not None:
        assert images is not None
        rules = ntire.PRESETS[preset]
        pairs = find_pairs(images, ntire.SCALE)
        with Meter(len(pairs), "picture") as meter:
            entries = ntire.compete(
                rules, base[0], subjects, pairs, setting, runs, lambda done: meter.at(done, done, pairs[done - 1].name)
            )
        if as_json:
            rows = [
                asdict(entry)
                | {"psnr": or_none(entry.psnr), "peak_mb": or_none(entry.peak_mb), "latency_ms": entry.runtime}
                | asdict(entry.cost)
                for entry in entries
            ]
            print_json(
                {"preset": preset, "baseline": rules.baseline, "pictures": len(pairs), **spelled, "models": rows}
            )
        else:
            _print_challenge(rules, entries)
            print(f"{len(pairs)} pictures, {runs} runs each; " + ", ".join(f"{k} {v}" for k, v in spelled.items()))
        return
    sizes = []
    for text in size or ["256x256"]:
        box = parse_box(text, "--size")
        assert box is not None
        sizes.append((box[1], box[0]))
    costs = {(each.name, size): count_cost(each, *size) for each in subjects for size in sizes}
    latencies = verb.measure(subjects, sizes, setting, runs)
    rows = []
    for height, width in sizes:
        for subject in subjects:
            took, cost = latencies[subject.name, (height, width)], costs[subject.name, (height, width)]
            rows.append(
                {
                    "name": subject.name,
                    "scale": subject.scale,
                    "width": width,
                    "height": height,
                    **asdict(cost),
                    "flops": 2 * cost.macs,
                    "latency_ms": took.milliseconds,
                    "latency_ms_p10": took.low,
                    "latency_ms_p90": took.high,
                    "peak_mb": or_none(took.peak_mb),
                }
            )
    if as_json:
        print_json({**rows[0], **spelled, "runs": runs, "models": rows})
        return
    print(f"{'network':<24} {'input':>9} {'parameters':>11} {'G MACs':>8} {'M act.':>8} {'convs':>5} "
          f"{'ms':>8} {'p10-p90':>15} {'MB':>6}")  # fmt: skip
    for row in rows:
        box_text = f"{row['width']}x{row['height']}"
        spread = f"{row['latency_ms_p10']:.1f}-{row['latency_ms_p90']:.1f}"
        print(
            f"{row['name']:<24} {box_text:>9} {row['parameters']:>11,} {row['macs'] / 1e9:8.3f} "
            f"{row['activations'] / 1e6:8.2f} {row['convs']:5} {row['latency_ms']:8.1f} {spread:>15} "
            f"{row['peak_mb'] or math.nan:6.0f}"
        )
    print("MACs as fvcore counts them (one per multiply-add, convs without biases; FLOPs are twice that)")
    print(
        f"activations: what convs put out; ms: median of {runs}; " + ", ".join(f"{k} {v}" for k, v in spelled.items())
    )


def _print_challenge(rules: Any, entries: list[Any]) -> None:
    """The challenge's table, gates and score."""
    print(f"{'network':<24} {'PSNR':>8} {'ms':>8} {'M param.':>8} {'G MACs':>8} {'M act.':>8} {'convs':>5} {'MB':>6}  "
          f"{'runtime':>8} {'MACs':>6} {'param.':>6} {'final':>7}")  # fmt: skip
    for entry in entries:
        scores, cost = entry.scores, entry.cost
        print(
            f"{entry.name:<24} {entry.psnr:8.3f} {entry.runtime:8.2f} {cost.parameters / 1e6:8.3f} "
            f"{cost.macs / 1e9:8.2f} {cost.activations / 1e6:8.2f} {cost.convs:5} {entry.peak_mb:6.0f}  "
            f"{scores['runtime']:8.3f} {scores['macs']:6.3f} {scores['parameters']:6.3f} {scores['final']:7.3f}"
        )
    weights = ", ".join(f"{weight:g} {key}" for key, weight in rules.weights.items())
    print(f"the first row is the baseline, {rules.baseline} by the rules")
    print(f"score: {weights}, each exp(2 x value / baseline's)")
    print(f"the gates, {rules.valid:.2f} dB on DIV2K_LSDIR valid and {rules.test:.2f} on test, are for those pictures")
