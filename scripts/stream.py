"""Peak memory of enlarging a large picture: 12,000 x 9,000 by default, x4, 5.2 GB of pixels.

    python scripts/stream.py [--width W --height H] [--suffix .png]

Makes the input by repeating the sample photograph, runs `dsclora upscale` as a process, and prints its time and
peak resident memory.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyvips

SAMPLE = Path(__file__).resolve().parent.parent / "samples" / "cat.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=12_000)
    parser.add_argument("--height", type=int, default=9_000)
    parser.add_argument("--suffix", default=".png")
    arguments = parser.parse_args()
    w, h = arguments.width, arguments.height
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.png", Path(folder) / f"out{arguments.suffix}"
        sample = pyvips.Image.new_from_file(str(SAMPLE))
        tiled = sample.replicate(w // sample.width + 1, h // sample.height + 1).crop(0, 0, w, h)
        tiled.write_to_file(str(source), compression=1)
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-m", "dsclora.cli", "upscale", str(source), "-o", str(target)], check=True)
        seconds = time.perf_counter() - begin
        made = pyvips.Image.new_from_file(str(target))
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(
            f"{w} x {h} -> {made.width} x {made.height} {arguments.suffix}, {target.stat().st_size / 1e9:.2f} GB: "
            f"{seconds:.0f} s, peak {peak:.0f} MiB"
        )


if __name__ == "__main__":
    main()
