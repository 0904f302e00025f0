"""The report of an adaptation, as one HTML page without any other file: figures, and before/after sliders."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
from jinja2 import Environment, PackageLoader, StrictUndefined

from dsclora import files
from dsclora.pictures.arrays import Uint8
from dsclora.pictures.comparison import details
from dsclora.training.gate import Sample


def write(
    path: Path,
    name: str,
    result: dict[str, Any],
    training: dict[str, Any],
    pictures: Sequence[tuple[str, float, float]],
    samples: Sequence[Sample],
    overwrite: bool = False,
) -> None:
    """Write the report page.

    Args:
        path: the target.
        name: the adapter's name.
        result: the result of `gate.judge` in the adapter's header.
        training: the rest of that header.
        pictures: held-out pictures: name, PSNR before and after.
        samples: some of them; a detail of each is shown.
        overwrite: replace an existing file.

    Raises:
        OutputError: the target exists and `overwrite` is false, or cannot be written.
    """
    environment = Environment(loader=PackageLoader("dsclora.training", ""), autoescape=True, undefined=StrictUndefined)
    environment.filters["span"] = _span
    page = environment.get_template("report.html.jinja").render(
        name=name,
        result=result,
        training=json.dumps({k: v for k, v in training.items() if k != "result"}, indent=1, default=str),
        pictures=pictures,
        samples=[_sample(*sample) for sample in samples],
    )
    with files.replacing(path, overwrite) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")  # names may be of any bytes


def _span(interval: Sequence[float | None]) -> str:
    """Format the ends of an interval, dB; None where it has no end."""
    return " to ".join("unknown" if end is None else f"{end:+.3f}" for end in interval)


def _sample(name: str, lr: Uint8, before: Uint8, after: Uint8, hr: Uint8) -> dict[str, Any]:
    """Return a detail of a picture, as the template shows it."""
    _, base, adapted, original = details(lr, [before, after, hr], side=96)
    images = {key: _inline(image) for key, image in (("base", base), ("adapted", adapted), ("original", original))}
    return {"name": name, "height": base.shape[0], "width": base.shape[1], **images}


def _inline(picture: Uint8) -> str:
    image = pyvips.Image.new_from_array(np.ascontiguousarray(picture), interpretation="srgb")
    return "data:image/webp;base64," + base64.b64encode(image.webpsave_buffer(lossless=True)).decode()
