"""Cold start: `dsclora upscale` of a 256 x 256 picture as a whole process, against `python -c "import torch"`.

    python scripts/cold.py [--runs 9] [--torch-python PYTHON]

Runs the two in turn and prints the median of each and of the ratio, run by run. Give a Python that has torch with
--torch-python, so that the light half is measured in an environment without it.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyvips

SAMPLE = Path(__file__).resolve().parent.parent / "samples" / "cat.png"


def seconds(command: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--torch-python", default=sys.executable)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.png", Path(folder) / "out.png"
        pyvips.Image.new_from_file(str(SAMPLE)).crop(0, 0, 256, 256).write_to_file(str(source))
        ours = [
            sys.executable,
            "-m",
            "dsclora.cli",
            "upscale",
            str(source),
            "-o",
            str(target),
            "--if-exists",
            "overwrite",
        ]
        theirs = [arguments.torch_python, "-c", "import torch"]
        seconds(ours), seconds(theirs)  # file caches
        pairs = [(seconds(ours), seconds(theirs)) for _ in range(arguments.runs)]
    ratio = statistics.median(a / b for a, b in pairs)
    print(
        f"dsclora upscale 256x256 -> 1024x1024: {statistics.median(a for a, _ in pairs):.2f} s (median of {len(pairs)})"
    )
    print(f"import torch: {statistics.median(b for _, b in pairs):.2f} s; ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
