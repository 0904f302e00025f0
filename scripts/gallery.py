"""Before and after of all that is bundled: docs/images/*.webp and docs/gallery.md, from CC0 and public-domain pictures.

python scripts/gallery.py
"""

import tempfile
from pathlib import Path

import numpy as np
import pyvips

from dsclora import zoo
from dsclora.engines import Engine
from dsclora.engines.choice import open_engine
from dsclora.inference.strips import enlarge
from dsclora.networks import adapter
from dsclora.pictures import comparison
from dsclora.pictures.arrays import Uint8
from dsclora.pictures.degrade import degrade, without_chance
from dsclora.pictures.read import find_pictures, read_rgb8
from dsclora.pictures.resize import imresize
from dsclora.training.recipes import load_adapt

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
PHOTOGRAPHS = ("coffee", "astronaut")  # of zoo/general
SIDE = 192  # of a detail, in pixels of the result
SAID = {
    "blur": "blur of a sigma of {:g} pixels of the original",
    "noise": "noise of {:g} levels of 255",
    "jpeg": "JPEG of quality {:.0f}",
}


def main() -> None:
    """Make them all anew."""
    page = [
        "# Gallery",
        "",
        "Details, pixel by pixel, of pictures that are CC0 or in the public domain, by `python scripts/gallery.py`.",
        "",
    ]
    for name in zoo.names():
        engine = open_engine(zoo.load(name))
        rows = []
        for hr in photographs(engine.scale):
            lr = imresize(hr, 1 / engine.scale)
            rows.append(comparison.details(lr, [made(engine, lr), hr], SIDE // engine.scale))
        show(name, rows, ["bicubic", name, "original"])
        page += section(name, "Photographs reduced by bicubic.")
    for name in zoo.adapter_names():
        added = zoo.load_adapter(name)
        if added.ranges:
            continue  # for int8: it is to change nothing
        base = zoo.load(str(added.training["base"]))
        engines = [open_engine(base), open_engine(adapter.merge(base, [(added, 1.0)]))]
        recipe = ROOT / "recipes" / "adapters" / f"{name}.toml"
        chain = without_chance(load_adapt(recipe).degrade)
        if chain:
            said = ", ".join(SAID[step.kind].format(step.strength[0]) for step in chain if step.kind in SAID)
            rows = []
            for hr in photographs(base.scale):
                lr = degrade(hr, base.scale, chain, np.random.default_rng(0))
                rows.append(comparison.details(lr, [*(made(engine, lr) for engine in engines), hr], SIDE // base.scale))
            show(name, rows, ["bicubic", base.name, name, "original"])
            page += section(name, f"Photographs reduced, with {said}.")
        else:
            lr = read_rgb8(ROOT / "samples" / "page.png")
            show(
                name,
                [comparison.details(lr, [made(engine, lr) for engine in engines], 88)],
                ["bicubic", base.name, name],
            )
            page += section(name, "A page of text.")
    (ROOT / "docs" / "gallery.md").write_text("\n".join(page), encoding="utf-8")
    front()


def front() -> None:
    """The two pictures of README."""
    lr = read_rgb8(ROOT / "samples" / "cat.png")
    sr = made(open_engine(zoo.load(zoo.DEFAULT)), lr)
    whole = [imresize(picture, 0.5) for picture in (imresize(lr, 4), sr)]
    zoomed = [np.kron(p, np.ones((4, 4, 1), np.uint8)) for p in comparison.details(lr, [sr], 56)]
    show(
        "comparison",
        [whole, zoomed],
        ["bicubic (top: at half size, below: a detail at 4:1)", f"dsclora, {zoo.DEFAULT}"],
    )
    lr = read_rgb8(ROOT / "samples" / "page.png")
    base, added = zoo.load("span-x4"), zoo.load_adapter("span-x4-docs")
    engines = [open_engine(base), open_engine(adapter.merge(base, [(added, 1.0)]))]
    column = [[picture[:228, :720]] for picture in (imresize(lr, 4), *(made(engine, lr) for engine in engines))]
    show("documents", column, ["bicubic, span-x4, span-x4 with span-x4-docs"])


def photographs(scale: int) -> list[Uint8]:
    """Each divisible by the scale."""
    found = []
    for path in find_pictures(zoo.general_pictures()):
        if path.stem in PHOTOGRAPHS:
            hr = read_rgb8(path)
            height, width = (side - side % scale for side in hr.shape[:2])
            found.append(hr[:height, :width])
    return found


def made(engine: Engine, lr: Uint8) -> Uint8:
    """What a network makes of a picture."""
    return enlarge(engine, lr).astype(np.uint8)


def section(name: str, text: str) -> list[str]:
    """Of the page."""
    return [f"## {name}", "", text, "", f"![{name}: before and after](images/{name}.webp)", ""]


def show(name: str, rows: list[list[Uint8]], labels: list[str]) -> None:
    """Write a sheet as WebP."""
    with tempfile.TemporaryDirectory() as folder:
        comparison.write_grid(Path(folder) / "sheet.png", rows, labels)
        sheet = pyvips.Image.new_from_file(f"{folder}/sheet.png")
        sheet.write_to_file(str(IMAGES / f"{name}.webp"), Q=88, effort=6)


if __name__ == "__main__":
    main()
