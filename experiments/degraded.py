"""Test pictures for an adapter of a degradation: a folder's originals, reduced and degraded as a recipe says.

    python experiments/degraded.py RECIPE FOLDER OUT [--scale 4] [--at 0 0.5 1]

Writes OUT/AT/HR and OUT/AT/LRx4 for `compare.py` and `dsclora evaluate`: every strength in the recipe is taken at the
same place between its ends, 0 the first and 1 the second, and every step is taken.
"""

import argparse
from pathlib import Path

import numpy as np
import pyvips

from dsclora.pictures.degrade import degrade, without_chance
from dsclora.pictures.pairs import find_pairs, read_pair
from dsclora.training.recipes import load_adapt


def main() -> None:
    """Write the folders."""
    parser = argparse.ArgumentParser()
    parser.add_argument("recipe", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--at", nargs="+", type=float, default=[0.0, 0.5, 1.0])
    given = parser.parse_args()
    chain = load_adapt(given.recipe).degrade
    for at in given.at:
        steps = without_chance(chain, at)
        folders = given.out / f"{at:g}" / "HR", given.out / f"{at:g}" / f"LRx{given.scale}"
        for number, pair in enumerate(find_pairs(given.folder, given.scale)):
            _, hr = read_pair(pair, given.scale)
            lr = degrade(hr, given.scale, steps, np.random.default_rng((7, number)))
            for folder, picture in zip(folders, (hr, lr), strict=True):
                (folder / pair.name).parent.mkdir(parents=True, exist_ok=True)
                pyvips.Image.new_from_array(np.ascontiguousarray(picture)).write_to_file(f"{folder / pair.name}.png")
        print(given.out / f"{at:g}", *(f"{step.kind} {step.strength[0]:g}" for step in steps))


if __name__ == "__main__":
    main()
