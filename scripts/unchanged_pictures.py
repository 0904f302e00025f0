"""What every model and adapter makes of pictures by every engine, and every exported file."""

import shutil
from pathlib import Path
from typing import Any

import pyvips
from unchanged_record import Record, find_pictures

ENGINES = ("native", "openvino", "onnxruntime", "torch")

OPTIONS: dict[str, tuple[str, ...]] = {
    "scale": ("--scale", "2.5"),
    "fit": ("--fit", "150x130"),
    "long-side": ("--long-side", "199"),
    "two-threads": ("--threads", "2"),
    "openvino-tile": ("--engine", "openvino", "--tile", "64"),
    "openvino-zero": ("--engine", "openvino", "--border", "zero"),
    "openvino-bf16": ("--engine", "openvino", "--precision", "bf16"),
    "torch-bf16": ("--engine", "torch", "--precision", "bf16"),
    "half-strength": ("--adapter", "span-x4-photo:0.5"),
    "two-adapters": ("--adapter", "span-x4-photo:0.7", "--adapter", "span-x4-noise:-0.2"),
    "jpg": ("--format", "jpg", "--quality", "80"),
    "webp": ("--format", "webp"),
    "avif": ("--format", "avif"),
    "tif": ("--format", "tif", "--strip-metadata"),
}
"""Ways to call `upscale` with the default model, beside the plain one."""

EXPORTS: dict[str, tuple[str, ...]] = {
    "fp32": ("--to", "onnx", "--to", "openvino"),
    "fp16": ("--to", "onnx", "--to", "openvino", "--precision", "fp16"),
    "int8": ("--to", "onnx", "--to", "openvino", "--precision", "int8", "--adapter", "span-x4-int8"),
    "fixed": ("--to", "onnx", "--to", "openvino", "--size", "64x48", "--name", "fixed"),
    "adapted": ("--to", "onnx", "--adapter", "span-x2-docs"),
    "x3": ("--to", "onnx", "--model", "span-x3"),
    "wide": ("--to", "onnx", "--model", "span-x4-wide"),
    "ncnn": ("--to", "ncnn", "--precision", "fp16"),
    "upscayl": ("--to", "ncnn", "--layout", "upscayl"),
    "spandrel": ("--to", "spandrel"),
    "torch": ("--to", "torchscript", "--to", "pt2"),
}


def record_pictures(record: Record, bench: Path, train: Path) -> None:
    """Record the pixels that every bundled model and adapter makes, by every engine and in every way."""
    listed = record.call("pictures", "models", "models", "--json")
    inputs = record.folder / "inputs"
    for scale in sorted({model["scale"] for model in listed["models"]}):
        _prepare(bench, scale, inputs)
    large = pyvips.Image.new_from_file(str(find_pictures(train)[0]))
    (inputs / "large").mkdir()
    large.crop(0, 0, min(700, large.width), min(555, large.height)).write_to_file(str(inputs / "large" / "large.png"))
    for model in listed["models"]:
        _by_engines(record, inputs / f"x{model['scale']}", model["name"], "--model", model["name"])
        for option, value in (("--tile", "64"), ("--border", "zero")):
            name, scale = model["name"], model["scale"]
            way = ("--model", name, "--engine", "native", option, value)
            _upscale(record, inputs / f"x{scale}", f"{name} native{option}", *way)
    for adapter in listed["adapters"]:
        base = ("--model", adapter["training"]["base"], "--adapter", adapter["name"])
        _by_engines(record, inputs / f"x{adapter['scale']}-few", adapter["name"], *base)
    for name, options in OPTIONS.items():
        _upscale(record, inputs / "x4-few", f"way {name}", *options)
    for engine in ("native", "openvino"):
        _upscale(record, inputs / "large", f"large {engine}", "--engine", engine)
    record.call("pictures", "formats", "upscale", inputs / "formats", "-o", "out", "-m", "span-x2", "--threads", "1")


def record_exports(record: Record) -> None:
    """Record the files that a model is exported as."""
    for name, way in EXPORTS.items():
        record.call("exports", name, "export", *way, "-o", "out", "--json")


def record_bundled(record: Record) -> None:
    """Record what is said of every bundled file, and that it loads."""
    listed = record.call("bundled", "models", "models", "--json")
    for entry in [*listed["models"], *listed["adapters"]]:
        record.call("bundled", entry["name"], "inspect", entry["name"], "--json")


def _by_engines(record: Record, pictures: Path, name: str, *options: str) -> None:
    for engine in ENGINES:
        _upscale(record, pictures, f"{name} {engine}", *options, "--engine", engine)


def _upscale(record: Record, pictures: Path, name: str, *options: str) -> None:
    # one thread: sums of several may come in another order
    threads = [] if "--threads" in options else ["--threads", "1"]
    kind = [] if "--format" in options else ["--format", "png"]
    record.call("pictures", name, "upscale", pictures, "-o", "out", *options, *threads, *kind, "--json")


def _prepare(bench: Path, scale: int, inputs: Path) -> None:
    """Make the folders of inputs for a factor: a benchmark, a part of another and variants of one picture."""
    many, few = inputs / f"x{scale}", inputs / f"x{scale}-few"
    for folder in (many, few):
        folder.mkdir(parents=True)
    five = find_pictures(bench / "Set5" / f"LRx{scale}")
    for path in five:
        shutil.copy(path, many / f"set5-{path.name}")
    for path in find_pictures(bench / "Set14" / f"LRx{scale}")[::4]:
        shutil.copy(path, many / f"set14-{path.name}")
    source = pyvips.Image.new_from_file(str(five[0]))
    for name, image in variants(source).items():
        image.write_to_file(str(many / f"{name}.png"))
    for name in (f"set5-{five[1].name}", f"set5-{five[4].name}", "odd.png", "alpha.png", "deep.png"):
        shutil.copy(many / name, few / name)
    if not (inputs / "formats").exists():
        (inputs / "formats").mkdir()
        _formats(source.crop(20, 20, 60, 44), inputs / "formats")


def variants(source: Any) -> dict[str, Any]:
    """Return variants of an RGB picture of 8 bits, 80 x 80 pixels or more: odd sizes, grey, 16 bits, alpha."""
    small = source.crop(8, 4, 74, 58)
    place = pyvips.Image.xyz(small.width, small.height)
    low = (place[0] * 37 + place[1] * 101) % 256
    deep = (small * 256 + low).cast("ushort")
    alpha = (place[0] * 3).cast("uchar")
    grey = small.colourspace("b-w")
    return {
        "odd": source.crop(3, 5, 61, 47),
        "tiny": source.crop(10, 10, 3, 2),
        "pixel": source.crop(30, 30, 1, 1),
        "strip": source.crop(0, 40, source.width, 5),
        "grey": grey,
        "grey-alpha": grey.bandjoin(alpha).copy(interpretation="b-w"),
        "alpha": small.bandjoin(alpha).copy(interpretation="srgb"),
        "deep": deep.copy(interpretation="rgb16"),
        "deep-grey": deep[1].copy(interpretation="grey16"),
        "deep-alpha": deep.bandjoin((place[0] * 800).cast("ushort")).copy(interpretation="rgb16"),
    }


def _formats(image: Any, folder: Path) -> None:
    """Write a picture in the formats, depths and colour spaces that are read."""
    turned = image.copy()
    turned.set_type(pyvips.GValue.gint_type, "orientation", 6)
    turned.write_to_file(str(folder / "turned.jpg"), Q=90)
    image.colourspace("b-w").write_to_file(str(folder / "grey.jpg"), Q=85)
    image.icc_transform("p3", input_profile="srgb").write_to_file(str(folder / "p3.png"))
    image.icc_transform("cmyk", input_profile="srgb").write_to_file(str(folder / "cmyk.jpg"), Q=92)
    image.write_to_file(str(folder / "palette.png"), palette=True)
    (image.colourspace("b-w") > 100).write_to_file(str(folder / "onebit.png"), bitdepth=1)
    image.write_to_file(str(folder / "lossless.webp"), lossless=True)
    image.write_to_file(str(folder / "small.tif"), compression="lzw")
    (image / 255).cast("float").copy(interpretation="scrgb").write_to_file(str(folder / "float.tif"))
