"""What an adaptation did, as one HTML page without any other file: figures, and before/after sliders."""

import base64
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyvips

from dsclora import files
from dsclora.pictures.arrays import Uint8
from dsclora.pictures.comparison import details

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 { font-size: 1.5rem } .good { color: #17692f } .bad { color: #a32020 }
table { border-collapse: collapse; margin: 1rem 0 }
td, th { padding: .3rem .9rem; border-bottom: 1px solid #ddd; text-align: right }
td:first-child, th:first-child { text-align: left }
figure { display: inline-block; margin: 0 1rem 1.5rem 0; vertical-align: top }
.slider { position: relative; overflow: hidden; line-height: 0 }
.slider img { display: block; image-rendering: pixelated }
.slider .after { position: absolute; inset: 0; clip-path: inset(0 0 0 var(--at, 50%)) }
.slider .line { position: absolute; top: 0; bottom: 0; left: var(--at, 50%); width: 2px }
.slider .line { background: #d33; box-shadow: 0 0 0 1px #fff; pointer-events: none }
.slider b { position: absolute; top: .4rem; font: .75rem/1.4 system-ui; padding: 0 .4rem }
.slider b { background: #fffd; pointer-events: none }
.slider b.left { left: .4rem } .slider b.right { right: .4rem }
.original { display: block; margin-top: .5rem }
.slider input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: ew-resize }
figcaption { font-size: .85rem; color: #555; max-width: 24rem }
pre { background: #f6f6f6; padding: 1rem; overflow: auto; font-size: .8rem }
"""


def write(
    path: Path,
    name: str,
    result: dict[str, Any],
    training: dict[str, Any],
    pictures: Sequence[tuple[str, float, float]],
    samples: Sequence[tuple[str, Uint8, Uint8, Uint8, Uint8]],
    overwrite: bool = False,
) -> None:
    """Write the page.

    Args:
        path: target.
        name: of the adapter.
        result: what `adapt.judge` put into the adapter's header.
        training: the rest of that header.
        pictures: held-out pictures: name, PSNR before and after.
        samples: name, LR, before, after, HR of some of them; a detail of each is shown.
        overwrite: replace an existing file.

    Raises:
        OutputError: the target exists and `overwrite` is false, or cannot be written.
    """
    held, general = result["held_out"], result["general"]
    rows = [("held-out pictures", held)] + ([("general pictures", general)] if general else [])
    low, high = held["interval"]
    interval = f"{held['confidence']:.0%} interval"
    verdict = (
        f'<p class="good">Accepted: on pictures it was not trained on, it beats the base by {held["gain"]:+.3f} dB '
        f"({interval} {low:+.3f} to {high:+.3f}).</p>"
        if result["accepted"]
        else f'<p class="bad">Rejected: on pictures it was not trained on, the gain of {held["gain"]:+.3f} dB is not '
        f"beyond doubt ({interval} {low:+.3f} to {high:+.3f}).</p>"
    )
    body = [
        f"<h1>{html.escape(name)}</h1>",
        verdict,
        f"<table><tr><th>PSNR, classic-y<th>pictures<th>base<th>adapted<th>change<th>{interval}</tr>",
        *(
            f"<tr><td>{label}<td>{c['pictures']}<td>{c['before']:.3f}<td>{c['after']:.3f}<td>{c['gain']:+.3f}"
            f"<td>{c['interval'][0]:+.3f} to {c['interval'][1]:+.3f}</tr>"
            for label, c in rows
        ),
        "</table>",
        "<h2>Before and after</h2><p>Details of held-out pictures; left of the line the base, right of it adapted.</p>",
        *(_slider(*sample) for sample in samples),
        "<h2>Picture by picture</h2><table><tr><th>picture<th>base<th>adapted<th>change</tr>",
        *(
            f"<tr><td>{html.escape(picture)}<td>{before:.3f}<td>{after:.3f}<td>{after - before:+.3f}</tr>"
            for picture, before, after in pictures
        ),
        "</table>",
        f"<h2>How it was made</h2><pre>{html.escape(_pretty(training))}</pre>",
    ]
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(name)}</title><style>{_STYLE}</style>{''.join(body)}</html>"
    )
    with files.replacing(path, overwrite) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")  # names may be of any bytes


def _slider(name: str, lr: Uint8, before: Uint8, after: Uint8, hr: Uint8) -> str:
    _, base, adapted, original = details(lr, [before, after, hr], side=96)
    height, width = base.shape[:2]
    return (
        f'<figure><div class="slider" style="width:{width}px;height:{height}px">'
        f'<img class="before" alt="base" src="{_inline(base)}">'
        f'<img class="after" alt="adapted" src="{_inline(adapted)}">'
        '<b class="left">base</b><b class="right">adapted</b><span class="line"></span>'
        '<input type="range" min="0" max="100" value="50" aria-label="before and after" '
        "oninput=\"this.parentNode.style.setProperty('--at', this.value + '%')\"></div>"
        f'<img class="original" alt="original" src="{_inline(original)}" width="{width}" height="{height}">'
        f"<figcaption>{html.escape(name)}; the original is below</figcaption></figure>"
    )


def _inline(picture: Uint8) -> str:
    image = pyvips.Image.new_from_array(np.ascontiguousarray(picture), interpretation="srgb")
    return "data:image/webp;base64," + base64.b64encode(image.webpsave_buffer(lossless=True)).decode()


def _pretty(training: dict[str, Any]) -> str:
    return json.dumps({k: v for k, v in training.items() if k != "result"}, indent=1, default=str)
