"""What candidates change on folders of pictures: PSNR, and the gain over a base with its interval.

    python experiments/compare.py BASE CANDIDATE... --on FOLDER... [--strengths 0.25 0.5 0.75] [--json]

A candidate is an adapter of the base or a model of its scale. With strengths, every adapter is measured at each of them
too. Gains are paired, over pictures; the interval is `metrics.mean_interval`'s at 95 %.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dsclora import adapter, evaluate, metrics, weights, zoo
from dsclora.engines import open_engine
from dsclora.errors import ImageError
from dsclora.pairs import find_pairs


@dataclass(frozen=True)
class Row:
    """A candidate on a folder."""

    candidate: str
    strength: float
    folder: str
    psnr: float
    ssim: float
    gain: float
    interval: tuple[float, float]


def scores(model: weights.Model, folder: Path) -> list[evaluate.Score]:
    """Of every picture, classic-y; one that cannot be measured is an error."""
    engine = open_engine(model)
    measured = evaluate.evaluate(
        lambda lr: evaluate.as_published(engine, lr),
        find_pairs(folder, model.scale),
        model.scale,
        metrics.protocol("classic-y", model.scale),
    )
    found = []
    for one in measured:
        if isinstance(one, evaluate.Failure):
            raise ImageError(one.error)
        found.append(one.score)
    return found


def main() -> None:
    """Print the table, one line per candidate, strength and folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("base")
    parser.add_argument("candidates", nargs="*", type=Path)
    parser.add_argument("--on", nargs="+", required=True, type=Path)
    parser.add_argument("--strengths", nargs="*", type=float, default=[])
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    given = parser.parse_args()
    base = zoo.load(given.base)
    variants: list[tuple[str, float, weights.Model]] = [("base", 0.0, base)]
    for path in given.candidates:
        if adapter.is_adapter(path):
            update = adapter.read(path)
            merged = [(s, adapter.merge(base, [(update, s)])) for s in [*given.strengths, 1.0]]
            variants.extend((path.stem, strength, model) for strength, model in merged)
        else:
            variants.append((path.stem, 1.0, weights.read(path)))
    for folder in given.on:
        before: list[float] = []
        for name, strength, model in variants:
            found = scores(model, folder)
            psnr, ssim = evaluate.mean(found)
            before = before or [s.psnr for s in found]
            gains = [s.psnr - b for s, b in zip(found, before, strict=True)]
            row = Row(name, strength, folder.name, psnr, ssim, float(np.mean(gains)), metrics.mean_interval(gains))
            low, high = row.interval
            if given.json:
                print(json.dumps(vars(row)), flush=True)
            else:
                print(
                    f"{name:24} {strength:4.2f}  {row.folder:12} {psnr:7.3f} dB  {ssim:.4f}  "
                    f"{row.gain:+.3f} ({low:+.3f} to {high:+.3f})",
                    flush=True,
                )


if __name__ == "__main__":
    main()
