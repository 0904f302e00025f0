"""Exit codes, JSON and files of every verb, rightly and wrongly used."""

from pathlib import Path

import pyvips
from unchanged_record import Record, find_pictures

VERBS = (
    "upscale", "evaluate", "pretrain", "adapt", "merge", "extract", "export", "quantize", "profile", "import",
    "inspect", "models", "doctor",
)  # fmt: skip

RIGHT = """
merge                | merge span-x4 span-x4-docs:0.8 -o merged.safetensors --json
merge two            | merge span-x4 span-x4-docs:0.3 span-x4-noise -o two.safetensors --json
extract              | extract span-x4 merged.safetensors --rank 4 -o extracted.safetensors --json
upscale merged       | upscale {photo} -m merged.safetensors -o merged.png --json
upscale extracted    | upscale {photo} -a extracted.safetensors -o extracted.png --json
inspect merged       | inspect merged.safetensors --json
inspect extracted    | inspect extracted.safetensors --json
inspect text         | inspect span-x4-docs
evaluate x4          | evaluate {bench}/Set5 --json --threads 1
evaluate x2          | evaluate {bench}/Set5 -m span-x2 --json --threads 1
evaluate x3          | evaluate {bench}/Set5 -m span-x3 --json --threads 1
evaluate wide rgb    | evaluate {bench}/Set5 -m span-x4-wide --protocol ntire-rgb --json --threads 1
evaluate openvino    | evaluate {bench}/Set5 --engine openvino --json --threads 1
evaluate made lr     | evaluate {bench}/Set5/HR -a span-x4-photo --json --threads 1
evaluate sheets      | evaluate {bench}/Set5 --csv scores.csv --grid grid.png --threads 1
profile              | profile --runs 1 --threads 1 --json
profile two          | profile -m span-x4 -m span-x2 --size 64x64 --size 48x32 --runs 2 --threads 1 --json
profile adapted      | profile -a span-x2-docs --size 64x64 --runs 1 --threads 1 --json
profile foreign      | profile -m {weights}/span_ch26_ntire2024.pth --size 64x64 --runs 1 --threads 1 --json
profile table        | profile --size 64x64 --runs 1 --threads 1
profile onnx         | profile -m {exported} --size 64x64 --runs 1 --threads 1 --json
profile challenge    | profile {bench}/Set5 --preset ntire2025 --baseline {baseline} --runs 1 --threads 1 --json
profile submission   | profile --size 32x32 --runs 1 --submission sub --team 7 --name Trial --json
models               | models --json
models text          | models
doctor text          | doctor
upscale one          | upscale extracted.png
upscale again        | upscale extracted.png
upscale skip         | upscale {photo} -o merged.png --if-exists skip --json
upscale rename       | upscale {photo} -o merged.png --if-exists rename --json
upscale overwrite    | upscale {photo} -o merged.png --if-exists overwrite --json
upscale suited x2    | upscale {photo} -s 2 -o suited.png --json
upscale folder       | upscale {mixed} -o mixed --json
upscale some exist   | upscale {mixed} -o mixed --if-exists skip --json
version              | --version
"""
"""Calls that follow each other in one folder: a name, and the arguments."""

WRONG = """
nothing              |
unknown verb         | enlarge {photo}
picture alone        | {photo}
unknown option       | upscale {photo} --scael 2
no input             | upscale
missing file         | upscale missing.png --json
not a picture        | upscale {text} --json
empty file           | upscale {empty} --json
truncated            | upscale {truncated} --json
empty folder         | upscale {nothing} -o out --json
unknown model        | upscale {photo} -m span-x5 -o o.png
unknown adapter      | upscale {photo} -a span-x4-foto -o o.png
wrong base           | upscale {photo} -m span-x2 -a span-x4-docs -o o.png
model as adapter     | upscale {photo} -a {weights}/span_x4_ch48.safetensors -o o.png
adapter as model     | upscale {photo} -m span-x4-docs -o o.png
broken model         | upscale {photo} -m {broken} -o o.png
strength             | upscale {photo} -a span-x4-docs:much -o o.png
large strength       | upscale {photo} -a span-x4-docs:1000 -o o.png
scale too large      | upscale {photo} -s 5 -o o.png
scale zero           | upscale {photo} -s 0 -o o.png
scale of model       | upscale {photo} -m span-x2 -s 3 -o o.png
two sizes            | upscale {photo} -s 2 --fit 10x10 -o o.png
box                  | upscale {photo} --fit ten -o o.png
format               | upscale {photo} -f bmp
suffix               | upscale {photo} -o o.bmp
quality              | upscale {photo} -q 101 -o o.jpg
tile                 | upscale {photo} -t 0 -o o.png
engine               | upscale {photo} --engine fast -o o.png
engine precision     | upscale {photo} --engine native --precision bf16 -o o.png
engine device        | upscale {photo} --engine openvino --device cuda -o o.png
no cuda              | upscale {photo} --device cuda -o o.png
too large            | upscale {photo} --max-megapixels 0.0001 -o o.png --json
no megapixels        | upscale {photo} --max-megapixels 0 -o o.png
two into one         | upscale {photo} {deep} -o o.png
onto itself          | upscale {photo} -o {photo} --if-exists overwrite
evaluate missing     | evaluate missing
evaluate broken      | evaluate {mixed}
evaluate odd names   | evaluate {odd}
evaluate one file    | evaluate {bench}/Set5 --csv same --grid same
evaluate exists      | evaluate {bench}/Set5 --csv {text}
merge wrong base     | merge span-x3 span-x4-docs -o o.safetensors
merge no output      | merge span-x4 span-x4-docs
merge exists         | merge span-x4 span-x4-docs -o {broken}
extract other width  | extract span-x4 span-x4-wide -o o.safetensors
extract rank         | extract span-x4 span-x4 --rank 0 -o o.safetensors
extract same         | extract span-x4 span-x4 -o o.safetensors --json
import text          | import {text} -o o.safetensors
import missing       | import missing.pth -o o.safetensors
import exists        | import {weights}/span_x4_ch48.safetensors -o {broken}
inspect missing      | inspect missing.safetensors
inspect broken       | inspect {broken} --json
export target        | export --to tflite -o out
export int8          | export --to onnx --precision int8 -o out
export layout        | export --to onnx --layout upscayl -o out
export int8 ncnn     | export --to ncnn --precision int8 -a span-x4-int8 -o out
export size          | export --to ncnn --size 64x64 -o out
export exists        | export --to onnx --name exported -o {exports}
export nothing       | export -o out
profile preset       | profile --preset ntire2025
profile preset size  | profile {bench}/Set5 --preset ntire2026 --baseline span-x4 --size 8x8
profile same name    | profile -m span-x4 -m span-x4
profile missing      | profile -m missing.onnx
profile box          | profile --size 0x0
pretrain no recipe   | pretrain missing.toml --train {mixed} --valid {mixed}
pretrain unknown key | pretrain {unknown} --train {mixed} --valid {mixed}
pretrain not toml    | pretrain {text} --train {mixed} --valid {mixed}
pretrain value       | pretrain {value} --train {mixed} --valid {mixed}
pretrain no teacher  | pretrain {distil} --train {mixed} --valid {mixed}
pretrain no pictures | pretrain {plain} --train {nothing} --valid {odd}/HR
pretrain small scale | pretrain {distil} --train {mixed} --valid {mixed} --teacher span-x2
pretrain width       | pretrain {plain} --train {mixed} --valid {mixed} --start span-x4-wide
adapt few pictures   | adapt {mixed} -o o.safetensors
adapt missing        | adapt missing -o o.safetensors
adapt suffix         | adapt {mixed} -o o.pt
adapt budget         | adapt {mixed} --minutes 1 --iterations 5
adapt minutes        | adapt {mixed} --minutes 0
adapt exists         | adapt {mixed} -o {broken}
adapt base           | adapt {mixed} --base span-x9
adapt small teacher  | adapt {mixed} --teacher span-x2
adapt wrong start    | adapt {mixed} --start span-x2-docs
adapt wrong recipe   | adapt {mixed} --recipe {plain}
quantize suffix      | quantize {mixed} --valid {mixed} -o o.pt
quantize exists      | quantize {mixed} --valid {mixed} -o {broken}
quantize no pictures | quantize {nothing} --valid {odd}/HR -o o.safetensors
quantize no valid    | quantize {mixed} -o o.safetensors
"""
"""Calls that are refused, or go wrong in part, each in a folder of its own."""

_STAGE = "[[stage]]\niterations = 2\npatch = 32\n"
_FILES = {
    "text": ("text.png", b"This is no picture.\n"),
    "empty": ("empty.png", b""),
    "broken": ("broken.safetensors", b"\x10\x00\x00\x00\x00\x00\x00\x00not json"),
    "unknown": ("unknown.toml", f"colour = 1\n{_STAGE}".encode()),
    "value": ("value.toml", f"ema = 2.0\nseed = -1\n{_STAGE}".encode()),
    "distil": ("distil.toml", f"{_STAGE}teacher_weight = 1.0\n".encode()),
    "plain": ("plain.toml", f"{_STAGE}".encode()),
}


def record_usage(record: Record, bench: Path, weights: Path) -> None:
    """Record what calls answer, exit with and leave, with right and with wrong arguments."""
    places = _fixtures(record, bench) | {"bench": str(bench), "weights": str(weights)}
    places["baseline"] = str(weights / "span_ch28_ntire2024.pth")
    for name, arguments in _calls(RIGHT, places):
        record.call("usage", name, *arguments, room="right")
    for name, arguments in _calls(WRONG, places):
        record.call("wrong usage", name, *arguments)
    for verb in VERBS:
        record.call("usage", f"help {verb}", verb, "--help", room="help")
    for path in sorted(path for path in weights.rglob("*") if path.is_file()):
        record.call("usage", f"import {path.name}", "import", path, "-o", f"{path.stem}.safetensors", "--license", "X",
                    "--json", room="imports")  # fmt: skip
        record.call("usage", f"inspect {path.name}", "inspect", path, "--json", room="imports")
    record.call("usage", "doctor", "doctor", "--json", room="right")
    fact = record.facts["usage"]["doctor"]
    record.information["machine"] = fact.pop("values", None)  # of the machine, not of the program


def _calls(text: str, places: dict[str, str]) -> list[tuple[str, list[str]]]:
    calls = []
    for line in text.strip().splitlines():
        name, _, arguments = line.partition("|")
        calls.append((name.strip(), [part.format(**places) for part in arguments.split()]))
    return calls


def _fixtures(record: Record, bench: Path) -> dict[str, str]:
    """Make the files that calls are given, and return their paths by name."""
    folder = record.folder / "fixtures"
    for name in ("mixed", "nothing", "odd/HR", "odd/LRx4", "exports"):
        (folder / name).mkdir(parents=True)
    places = {name: str(folder / name) for name in ("mixed", "nothing", "odd", "exports")}
    for name, (file, content) in _FILES.items():
        (folder / file).write_bytes(content)
        places[name] = str(folder / file)
    first = find_pictures(bench / "Set5" / "LRx4")[0]
    image = pyvips.Image.new_from_file(str(first)).crop(10, 10, 50, 40)
    for name in ("photo.png", "mixed/one.png", "mixed/two.jpg", "odd/HR/a.png", "odd/LRx4/b.png"):
        image.write_to_file(str(folder / name))
    (image * 257).cast("ushort").copy(interpretation="rgb16").write_to_file(str(folder / "deep.png"))
    (folder / "mixed" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "truncated.png").write_bytes((folder / "photo.png").read_bytes()[:2000])
    (folder / "exports" / "exported.onnx").write_bytes(b"")
    for name in ("photo", "deep", "truncated"):
        places[name] = str(folder / f"{name}.png")
    # a network as anybody's ONNX file, for `profile`
    export = ("export", "--to", "onnx", "-m", "span-x2", "--name", "network", "-o", ".", "--json")
    record.call("usage", "export for profile", *export, room="exported")
    places["exported"] = str(record.room("usage", "exported") / "network.onnx")
    return places
