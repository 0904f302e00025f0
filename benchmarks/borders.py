"""What `enlarge` costs over the native engine alone: the reflected border and the copies.

python benchmarks/borders.py [--sizes 320x180 256x256 640x360 1280x720] [--threads 1] [--rounds 15] [--model span-x4]

Sizes are WIDTHxHEIGHT of the input. Both run in turn in one process; times are processor time, which other processes
disturb least. The ratio is of the two minima, and the median of the rounds' own ratios.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from dsclora import zoo
from dsclora.engines import Setting
from dsclora.engines.choice import open_engine
from dsclora.inference.strips import enlarge
from engines import picture


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["320x180", "256x256", "640x360", "1280x720"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--model", default="span-x4")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = [measure(size, arguments) for size in arguments.sizes]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    print("| input | engine, ms | enlarge, ms | ratio of minima | median ratio |\n|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['size']} | {row['engine_ms']:.1f} | {row['enlarge_ms']:.1f} | {row['ratio']:.3f} "
            f"| {row['median_ratio']:.3f} |"
        )


def measure(size: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the times of the engine and of `enlarge` at a size."""
    width, height = map(int, size.split("x"))
    batch = picture(height, width)
    pixels = np.ascontiguousarray(batch[0].transpose(1, 2, 0))
    engine, border = (
        open_engine(zoo.load(arguments.model), Setting("native", threads=arguments.threads)) for _ in range(2)
    )
    times = []
    for number in range(arguments.rounds + 1):
        pair = (seconds(lambda: engine(batch)), seconds(lambda: enlarge(border, pixels)))
        if number:  # the first round takes the memory
            times.append(pair)
    alone, whole = np.array(times).T
    return {
        "size": size,
        "engine_ms": round(1e3 * float(alone.min()), 3),
        "enlarge_ms": round(1e3 * float(whole.min()), 3),
        "ratio": round(float(whole.min() / alone.min()), 4),
        "median_ratio": round(float(np.median(whole / alone)), 4),
    }


def seconds(run: Callable[[], object]) -> float:
    """Return the processor time of a run."""
    begin = time.process_time()
    run()
    return time.process_time() - begin


if __name__ == "__main__":
    main()
