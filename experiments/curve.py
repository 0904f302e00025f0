"""What an adaptation gains against what it forgets, one curve over strengths per adapter.

    python experiments/compare.py BASE ADAPTER... --on DOMAIN/test Set14 --strengths 0.25 0.5 0.75 --json > rows.jsonl
    python experiments/curve.py rows.jsonl --forgotten Set14 [--labels LABEL...] -o curve.svg

Needs matplotlib (the extra `[dev]` has it).
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure


def main() -> None:
    """Draw the rows: gain on the folder adapted to, over the change on the other one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", type=Path)
    parser.add_argument("--forgotten", default="Set14", help="name of the folder on the horizontal axis")
    parser.add_argument("--labels", nargs="*", default=[], help="of the candidates, in order")
    parser.add_argument("--title", default="")
    parser.add_argument("-o", "--output", required=True, type=Path)
    given = parser.parse_args()
    gains: dict[str, dict[float, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for line in given.rows.read_text().splitlines():
        row = json.loads(line)
        kept = "x" if Path(row["folder"]).name == given.forgotten else "y"
        gains[row["candidate"]][row["strength"]][kept] = row["gain"]
    gains.pop("base", None)
    mpl.rcParams["svg.hashsalt"] = given.output.name  # the same rows give the same file
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(0, color="#bbb", linewidth=0.8)
    axes.axvline(0, color="#bbb", linewidth=0.8)
    for label, points in zip(given.labels or gains, gains.values(), strict=True):
        strengths = sorted(points)
        x, y = ([0.0, *(points[s][axis] for s in strengths)] for axis in "xy")
        axes.plot(x, y, "o-", markersize=4, label=label)
        for strength, a, b in zip(strengths, x[1:], y[1:], strict=True):
            axes.annotate(f"{strength:g}", (a, b), xytext=(4, -9), textcoords="offset points", fontsize=7, color="#555")
    axes.set_xlabel(f"change on {given.forgotten}, dB")
    axes.set_ylabel("gain on pictures of the domain, dB")
    axes.set_title(given.title)
    axes.legend(loc="best", fontsize=8)
    figure.savefig(given.output, metadata={"Date": None})


if __name__ == "__main__":
    main()
