"""The measurements of `dsclora profile`, and its tables."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsclora.cli.console import Meter, or_none, print_json, wants_json
from dsclora.cli.tables import print_table

if TYPE_CHECKING:
    from dsclora.engines import Setting
    from dsclora.measure.ntire import Entry, Preset
    from dsclora.networks import Network


def compare(
    subjects: "list[Network]",
    sizes: list[tuple[int, int]],
    setting: "Setting",
    runs: int,
    spelled: dict[str, Any],
) -> None:
    """Count and measure networks at sizes (height, width), and print the table or JSON; `spelled` is the setting."""
    from dsclora.measure import latency as verb
    from dsclora.measure.cost import count_cost

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
    if wants_json():
        print_json({**rows[0], **spelled, "runs": runs, "models": rows})
        return
    _print_costs(rows)
    print("MACs as fvcore counts them (one per multiply-add, convs without biases; FLOPs are twice that)")
    print(f"activations: outputs of convs; ms: median of {runs}; " + ", ".join(f"{k} {v}" for k, v in spelled.items()))


def challenge(
    preset: str,
    baseline: "Network",
    subjects: "list[Network]",
    images: Path,
    setting: "Setting",
    runs: int,
    spelled: dict[str, Any],
) -> None:
    """Measure networks by a challenge's protocol, and print its table or JSON; `spelled` is the setting."""
    from dsclora.measure import ntire
    from dsclora.pictures.pairs import find_pairs

    rules = ntire.PRESETS[preset]
    pairs = find_pairs(images, ntire.SCALE)
    with Meter(len(pairs), "picture") as meter:
        entries = ntire.compete(
            rules, baseline, subjects, pairs, setting, runs, lambda done: meter.at(done, done, pairs[done - 1].name)
        )
    if wants_json():
        rows = [
            asdict(entry)
            | {"psnr": or_none(entry.psnr), "peak_mb": or_none(entry.peak_mb), "latency_ms": entry.runtime}
            | asdict(entry.cost)
            for entry in entries
        ]
        print_json({"preset": preset, "baseline": rules.baseline, "pictures": len(pairs), **spelled, "models": rows})
        return
    _print_challenge(rules, entries)
    print(f"{len(pairs)} pictures, {runs} runs each; " + ", ".join(f"{k} {v}" for k, v in spelled.items()))


def _print_costs(rows: "Sequence[Mapping[str, Any]]") -> None:
    """Print what networks cost, a row each."""
    print_table(
        ["network", ">input", ">parameters", ">G MACs", ">M act.", ">convs", ">ms", ">p10-p90", ">MB"],
        [
            [
                row["name"],
                f"{row['width']}x{row['height']}",
                f"{row['parameters']:,}",
                f"{row['macs'] / 1e9:.3f}",
                f"{row['activations'] / 1e6:.2f}",
                f"{row['convs']}",
                f"{row['latency_ms']:.1f}",
                f"{row['latency_ms_p10']:.1f}-{row['latency_ms_p90']:.1f}",
                f"{row['peak_mb'] or math.nan:.0f}",
            ]
            for row in rows
        ],
    )


def _print_challenge(rules: "Preset", entries: "Sequence[Entry]") -> None:
    """Print the challenge's table, gates and score."""
    print_table(
        [
            "network",
            ">PSNR",
            ">ms",
            ">M param.",
            ">G MACs",
            ">M act.",
            ">convs",
            ">MB",
            ">runtime",
            ">MACs",
            ">param.",
            ">final",
        ],
        [
            [
                entry.name,
                f"{entry.psnr:.3f}",
                f"{entry.runtime:.2f}",
                f"{entry.cost.parameters / 1e6:.3f}",
                f"{entry.cost.macs / 1e9:.2f}",
                f"{entry.cost.activations / 1e6:.2f}",
                f"{entry.cost.convs}",
                f"{entry.peak_mb:.0f}",
                *(f"{entry.scores[key]:.3f}" for key in ("runtime", "macs", "parameters", "final")),
            ]
            for entry in entries
        ],
    )
    weights = ", ".join(f"{weight:g} {key}" for key, weight in rules.weights.items())
    print(f"the first row is the baseline, {rules.baseline} by the rules")
    print(f"score: {weights}, each exp(2 x value / baseline's)")
    print(f"the gates, {rules.valid:.2f} dB on DIV2K_LSDIR valid and {rules.test:.2f} on test, are for those pictures")
