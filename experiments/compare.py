"""What candidates change on folders of pictures: PSNR, and the gain over a base with its interval.

    python experiments/compare.py BASE CANDIDATE... --on FOLDER... [--strengths 0.25 0.5 0.75] [--sizes 0.5 1]
        [--bicubic] [--json]

A candidate is an adapter of the base or a model of its size: a bundled one's name, or a file. With strengths, each is
measured at them too: a model at strength s is base + s * (model - base). With sizes, every original is first resized by
them, as by `sizes` in a recipe. Gains are paired, over pictures; intervals are `adapt.Change`'s, at 95 %.
"""

import argparse
import itertools
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dsclora import zoo
from dsclora.engines.choice import open_engine
from dsclora.measure import evaluate
from dsclora.networks import adapter, span
from dsclora.pictures import metrics
from dsclora.pictures.pairs import find_pairs
from dsclora.pictures.resize import imresize
from dsclora.training import grouping
from dsclora.training.gate import Change


@dataclass(frozen=True)
class Row:
    """A candidate on a folder."""

    candidate: str
    strength: float
    folder: str
    size: float
    psnr: float
    ssim: float
    gain: float
    interval: tuple[float, float]


def at(base: span.SpanNetwork, name: str, strength: float) -> span.SpanNetwork:
    """The base with so much of a candidate."""
    if name in zoo.adapter_names() or (name not in zoo.names() and adapter.is_adapter(Path(name))):
        return adapter.merge(base, [(zoo.load_adapter(name), strength)])
    tuned = zoo.load(name)
    if strength == 1:
        return tuned
    return replace(
        base, weights={k: b + np.float32(strength) * (tuned.weights[k] - b) for k, b in base.weights.items()}
    )


def crops(names: list[str]) -> list[int]:
    """Of each picture a number that is the same for crops of one, told by names unless most of them are alike."""
    groups = grouping.group(names, [np.zeros(0, np.uint64)] * len(names))
    return list(range(len(names))) if grouping.are_alike(groups, 1) else grouping.numbered(groups, len(names))


def scores(model: span.SpanNetwork | None, scale: int, folder: Path, size: float) -> list[evaluate.Score]:
    """Of every picture, classic-y, by a model or (None) by bicubic; one that cannot be measured is an error."""
    engine = open_engine(model) if model is not None else None
    return evaluate.scores(
        lambda lr: evaluate.as_published(engine, lr) if engine is not None else imresize(lr, scale),
        find_pairs(folder, scale),
        scale,
        metrics.protocol("classic-y", scale),
        size,
    )


def main() -> None:
    """Print the table, one line per candidate, strength and folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("base")
    parser.add_argument("candidates", nargs="*")
    parser.add_argument("--on", nargs="+", required=True, type=Path)
    parser.add_argument("--strengths", nargs="*", type=float, default=[])
    parser.add_argument("--sizes", nargs="+", type=float, default=[1.0], help="of the originals")
    parser.add_argument("--bicubic", action="store_true", help="a row for bicubic interpolation too")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    given = parser.parse_intermixed_args()
    base = zoo.load(given.base)
    variants: list[tuple[str, float, span.SpanNetwork | None]] = [("base", 0.0, base)]
    if given.bicubic:
        variants.append(("bicubic", 0.0, None))
    for name in given.candidates:
        variants.extend((name, strength, at(base, name, strength)) for strength in [*given.strengths, 1.0])
    for folder, size in itertools.product(given.on, given.sizes):
        before: list[float] = []
        for name, strength, model in variants:
            found = scores(model, base.scale, folder, size)
            psnr, ssim = evaluate.mean(found)
            after, names = [s.psnr for s in found], [s.name for s in found]
            before = before or after
            change = Change(0.95, names, before, after, crops(names))
            row = Row(name, strength, str(folder), size, psnr, ssim, change.gain, change.interval)
            low, high = row.interval
            if given.json:
                print(json.dumps(vars(row)), flush=True)
            else:
                print(
                    f"{Path(name).stem:24} {strength:4.2f}  {row.folder[-24:]:24} {size:4.2f}  {psnr:7.3f} dB  "
                    f"{ssim:.4f}  {row.gain:+.3f} ({low:+.3f} to {high:+.3f})",
                    flush=True,
                )


if __name__ == "__main__":
    main()
