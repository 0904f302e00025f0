"""Enlarge the sample photograph and show the result beside bicubic: what `make demo` runs."""

import sys
import time
from pathlib import Path

import numpy as np

from dsclora import zoo
from dsclora.engines.choice import open_engine
from dsclora.errors import DscloraError
from dsclora.inference import jobs, upscale
from dsclora.pictures import comparison
from dsclora.pictures.read import read_rgb8
from dsclora.pictures.resize import imresize

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "samples" / "cat.png"
OUT = ROOT / "demo"
DETAIL = 56  # side of the detail in input pixels; 4 times as many in the output, shown 4 times enlarged


def main() -> None:
    begin = time.perf_counter()
    engine = open_engine(zoo.load(zoo.DEFAULT))
    large = OUT / "cat_x4.png"
    result = upscale.upscale_file(engine, jobs.Job(SAMPLE, large), jobs.Options(if_exists="overwrite"))
    seconds = time.perf_counter() - begin

    lr, sr = read_rgb8(SAMPLE), read_rgb8(large)
    bicubic = imresize(lr, engine.scale)
    half = [imresize(picture, 0.5) for picture in (bicubic, sr)]
    zoomed = [np.kron(p, np.ones((4, 4, 1), np.uint8)) for p in comparison.details(lr, [sr], DETAIL)]
    sheet = OUT / "comparison.png"
    labels = ["bicubic (top: at half size, below: a detail at 4:1)", f"dsclora, {zoo.DEFAULT}"]
    comparison.write_grid(sheet, [half, zoomed], labels, overwrite=True)
    print(f"{SAMPLE.relative_to(ROOT)}, {result.input_size} -> {result.output_size} in {seconds:.2f} s ({engine.name})")
    print(f"result:     {large}")
    print(f"comparison: {sheet}")


if __name__ == "__main__":
    try:
        main()
    except DscloraError as error:
        sys.exit(f"error: {error}")
