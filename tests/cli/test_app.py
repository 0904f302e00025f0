"""The command line as a user meets it: output, exit codes, one-line errors, and no torch."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import pyvips
import torch
from safetensors.numpy import save_file

import dsclora
from dsclora import zoo
from dsclora.engines.choice import choose
from dsclora.networks import span, span_torch
from helpers import ROOT, dsclora_, parsed, photo, random_model, save


def test_help_names_every_verb_and_shows_examples() -> None:
    text = dsclora_("--help").stdout
    verbs = ("upscale", "evaluate", "profile", "export", "pretrain", "adapt", "merge", "extract", "quantize", "import",
             "inspect", "models", "doctor")  # fmt: skip
    assert all(verb in text for verb in verbs)
    for verb in verbs:
        assert f"Example: dsclora {verb}" in " ".join(dsclora_(verb, "--help").stdout.split())
    assert dsclora_("--version").stdout.strip() == f"dsclora {dsclora.__version__}"


def test_torch_is_never_imported_by_the_light_half(tmp_path: Path) -> None:
    source = save(tmp_path / "in.png", photo(16, 16))
    code = (
        "import sys; sys.modules['torch'] = None\n"  # importing it now fails
        f"sys.argv = ['dsclora', 'upscale', {str(source)!r}]\n"
        "from dsclora.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "in_x4.png").exists()


def test_training_without_torch_is_one_line(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "sys.argv = ['dsclora', 'pretrain', 'r.toml', '--train', '.', '--valid', '.']\n"
        "from dsclora.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'dsclora[train]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_upscale_a_picture(tmp_path: Path) -> None:
    source = save(tmp_path / "in.png", photo(30, 40))
    done = dsclora_("upscale", source, "-o", tmp_path / "out.webp", "--json", "--scale", 2)
    report = parsed(done)
    assert (report["done"], report["skipped"], report["failed"]) == (1, 0, 0)
    assert report["results"][0]["output_size"] == [80, 60]
    made = pyvips.Image.new_from_file(str(tmp_path / "out.webp"))
    assert (made.width, made.height) == (80, 60)
    assert report["engine"].split()[0] in ("native", "OpenVINO")


def test_upscale_is_better_than_bicubic(tmp_path: Path) -> None:
    from dsclora.pictures import metrics
    from dsclora.pictures.read import read_rgb8
    from dsclora.pictures.resize import imresize

    hr = read_rgb8(ROOT / "samples" / "cat.png")[:300, :448]
    save(tmp_path / "lr.png", imresize(hr, 0.25))
    dsclora_("upscale", tmp_path / "lr.png", "-o", tmp_path / "sr.png")
    protocol = metrics.protocol("classic-y", 4)
    ours = protocol.score(read_rgb8(tmp_path / "sr.png"), hr)[0]
    assert ours > protocol.score(imresize(imresize(hr, 0.25), 4), hr)[0] + 0.5


def test_a_folder_with_everything_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "büro ☃"
    save(folder / "good.png", photo(12, 14))
    save(folder / "sub" / "-dash.jpg", photo(12, 14))
    save(folder / "clear.png", photo(12, 14, 4))
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("no")
    (folder / "half.png").write_bytes((folder / "good.png").read_bytes()[:200])
    (folder / "notes.txt").write_text("left alone")
    done = dsclora_("upscale", folder, "-o", tmp_path / "out", code=1)
    assert sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")) == [
        "clear.png",
        "good.png",
        "sub/-dash.jpg",
    ]
    errors = [line for line in done.stderr.splitlines() if "error:" in line]
    assert len(errors) == 3
    assert all(any(name in line for line in errors) for name in ("empty.png", "text.jpg", "half.png"))
    assert "3 done, 3 failed" in done.stderr
    again = dsclora_("upscale", folder, "-o", tmp_path / "out", "--if-exists", "skip", code=1)
    assert "3 skipped, 3 failed" in again.stderr


def test_a_name_with_a_leading_dash(tmp_path: Path) -> None:
    save(tmp_path / "-x.png", photo(9, 9))
    dsclora_("upscale", "--", "-x.png", cwd=tmp_path)
    assert (tmp_path / "-x_x4.png").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["upscale", "in.png", "--scale", "9"], 2, "more than span-x4's factor, 4"),
        (["upscale", "in.png", "--fit", "big"], 2, "WIDTHxHEIGHT"),
        (["upscale", "in.png", "--scale", "2", "--long-side", "9"], 2, "exclude each other"),
        (["upscale", "in.png", "--long-side", "9999"], 1, "in.png.*4 at most"),
        (["upscale", "in.png", "--format", "bmp"], 2, "choose one of jpg"),
        (["upscale", "in.png", "-o", "out.bmp"], 1, "cannot write .bmp"),
        (["upscale", "none.png"], 1, "none.png: no such file"),
        (["upscale", "in.png", "--model", "span-x9"], 1, "no bundled model is called 'span-x9'"),
        (["upscale", "in.png", "--model", "bad.safetensors"], 1, "bad.safetensors: not a readable"),
        (["upscale", "in.png", "--device", "cuda"], 1, "sees no cuda device"),
        (["upscale", "in.png", "--max-megapixels", "0.0001"], 1, "--max-megapixels"),
        (["upscale", "in.png", "--border", "wrap"], 2, "border"),
        (["evaluate", "nothing"], 1, "nothing: not a folder"),
        (["evaluate", "."], 1, "no picture could be measured"),
        (["inspect", "in.png"], 1, "in.png: not a readable safetensors"),
        (["import", "none.pth", "-o", "x.safetensors"], 1, "none.pth.*No such file"),
        (["pretrain", "none.toml", "--train", ".", "--valid", "."], 2, "none.toml: cannot be read"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(tmp_path: Path, arguments: list[str], code: int, reason: str) -> None:
    save(tmp_path / "in.png", photo(12, 14))
    (tmp_path / "bad.safetensors").write_bytes(b"\x00" * 50)
    if arguments[0] == "evaluate":
        (tmp_path / "in.png").write_bytes(b"no picture")
    before = sorted(tmp_path.rglob("*"))
    done = dsclora_(*arguments, cwd=tmp_path, code=code)
    assert re.search(reason, done.stderr), done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_import_inspect_models(tmp_path: Path) -> None:
    model = random_model(3, 7)
    save_file(dict(model.weights), tmp_path / "foreign.safetensors")
    report = parsed(
        dsclora_("import", "foreign.safetensors", "-o", "ours.safetensors", "--license", "MIT", "--json", cwd=tmp_path)
    )
    assert (report["scale"], report["channels"], report["sha256"]) == (3, 7, model.sha256)
    assert span.read(tmp_path / "ours.safetensors").license == "MIT"
    again = dsclora_("import", "foreign.safetensors", "-o", "ours.safetensors", cwd=tmp_path, code=1)
    assert "exists already" in again.stderr
    assert parsed(dsclora_("inspect", "ours.safetensors", "--json", cwd=tmp_path))["training"] == {
        "imported_from": "foreign.safetensors"
    }
    assert [name for name in zoo.adapter_names() if not zoo.purpose(name).startswith("for ")] == ["span-x4-int8"]
    listed = parsed(dsclora_("models", "--json"))
    assert listed["default"] == zoo.DEFAULT
    assert [row["name"] for row in listed["adapters"]] == zoo.adapter_names()
    assert "network         SPAN x4, 26 channels\n" in dsclora_("inspect", "span-x4").stdout


def test_an_adapter_for_int8_is_no_remedy(tmp_path: Path) -> None:
    save(tmp_path / "in.png", photo(16, 16))
    said = dsclora_("upscale", "in.png", "--adapter", "span-x4-int8", cwd=tmp_path)
    assert "span-x4-int8 is for networks in int8" in said.stderr
    assert (tmp_path / "in_x4.png").exists()


def test_doctor() -> None:
    report = parsed(dsclora_("doctor", "--json"))
    assert [r["engine"] for r in report["runtimes"] if r["used"]] == [choose().name]
    assert "openvino" in dsclora_("doctor").stdout
    assert report["cpu_trains_in"] == span_torch.settled("auto", torch.device("cpu"))
    assert f"; on the CPU in {report['cpu_trains_in']}" in dsclora_("doctor").stdout


def test_evaluate(tmp_path: Path) -> None:
    for n in range(2):
        save(tmp_path / "bench" / "HR" / f"{n}.png", photo(64, 80, seed=n))
    arguments = ["evaluate", tmp_path / "bench", "--csv", tmp_path / "a.csv", "--grid", tmp_path / "a.png"]
    report = parsed(dsclora_(*arguments, "--json"))
    assert set(report) == {"protocol", "model", "mean", "images", "failed"}
    assert report["protocol"]["border"] == 4
    assert report["protocol"]["lr"] == "MATLAB-exact bicubic of HR"
    assert [i["name"] for i in report["images"]] == ["0", "1"]
    assert report["mean"]["psnr"] == pytest.approx(np.mean([i["psnr"] for i in report["images"]]))
    assert pyvips.Image.new_from_file(str(tmp_path / "a.png")).height > 128
    assert "exists already" in dsclora_(*arguments, code=2).stderr
    assert "name two files" in dsclora_(*arguments[:4], "--grid", tmp_path / "a.csv", "--overwrite", code=2).stderr
    text = dsclora_(*arguments, "--overwrite", "--protocol", "ntire-rgb").stdout
    assert "mean of 2" in text
    assert "channels: rgb" in text


def test_pretrain_end_to_end(tmp_path: Path) -> None:
    save(tmp_path / "train" / "a.png", photo(48, 48))
    save(tmp_path / "valid" / "b.png", photo(32, 32, seed=1))
    (tmp_path / "tiny.toml").write_text(
        "[network]\nscale = 2\nchannels = 4\n[[stage]]\niterations = 4\nbatch = 1\npatch = 16\n"
    )
    arguments = ["pretrain", "tiny.toml", "--train", "train", "--valid", "valid"]
    report = parsed(dsclora_(*arguments, "--json", "--threads", 1, cwd=tmp_path))
    made = tmp_path / report["model"]
    assert not (made.parent / "pictures").exists()
    assert made == tmp_path / "runs" / "tiny" / "model.safetensors"
    dsclora_("upscale", "valid/b.png", "-m", made, "-o", "big.png", cwd=tmp_path)
    assert pyvips.Image.new_from_file(str(tmp_path / "big.png")).width == 64
    assert "--resume or choose another folder" in dsclora_(*arguments, cwd=tmp_path, code=1).stderr
    precious = made.parent / "pictures" / "mine.png"
    save(precious, photo(8, 8))
    dsclora_(*arguments, "--resume", cwd=tmp_path)
    assert [path.name for path in precious.parent.iterdir()] == ["mine.png"], "the store alone is removed"


def test_too_little_memory_is_one_line(tmp_path: Path) -> None:
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, -1))\n"
        f"sys.argv = 'dsclora export --to onnx --size 100000x100000 -o {tmp_path}/out'.split()\n"
        "from dsclora.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith("dsclora: error: out of memory (Unable to allocate")
    assert list(tmp_path.rglob("*.onnx")) == []


def test_an_encoding_without_a_name_loses_nothing(tmp_path: Path) -> None:
    save(tmp_path / "in" / "日本.png", photo(24, 24))
    command = [sys.executable, "-m", "dsclora.cli", "evaluate", "in", "--csv", "rows.csv"]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert rb"\u65e5\u672c" in done.stdout
    assert "日本" in (tmp_path / "rows.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_keeps_what_is_whole(tmp_path: Path, number: signal.Signals) -> None:
    for n in range(60):
        save(tmp_path / "in" / f"{n:02}.png", photo(120, 120, seed=n))
    command = [sys.executable, "-m", "dsclora.cli", "upscale", "in", "-o", "out", "--json"]
    ours = signal.signal(number, signal.SIG_DFL)  # or under nohup it is ignored, rightly
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(number, ours)
    while process.poll() is None and not list(tmp_path.glob("out/*.png")):
        time.sleep(0.01)
    process.send_signal(number)
    out, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "--if-exists skip" in errors
    made = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert 0 < len(made) < 60
    assert [Path(r["target"]).name for r in json.loads(out)["results"]] == made
    dsclora_("upscale", "in", "-o", "out", "--if-exists", "skip", cwd=tmp_path)
    assert len(list((tmp_path / "out").iterdir())) == 60
