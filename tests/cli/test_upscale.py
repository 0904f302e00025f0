"""`dsclora upscale`, as a user meets it."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import pyvips

from dsclora.cli import quantize
from dsclora.pictures import metrics
from dsclora.pictures.read import SUPPORTED, read_rgb8
from dsclora.pictures.resize import imresize
from helpers import ROOT, dsclora_, parsed, photo, save


def test_upscale_a_picture(tmp_path: Path) -> None:
    source = save(tmp_path / "in.png", photo(30, 40))
    done = dsclora_("upscale", source, "-o", tmp_path / "out.webp", "--json", "--scale", 2)
    report = parsed(done)
    assert (report["done"], report["skipped"], report["failed"]) == (1, 0, 0)
    assert report["results"][0]["output_size"] == [80, 60]
    image = pyvips.Image.new_from_file(str(tmp_path / "out.webp"))
    assert (image.width, image.height) == (80, 60)
    assert report["engine"].split()[0] in ("native", "OpenVINO")


def test_upscale_is_better_than_bicubic(tmp_path: Path) -> None:
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


def test_an_adapter_for_int8_is_no_remedy(tmp_path: Path) -> None:
    save(tmp_path / "in.png", photo(16, 16))
    said = dsclora_("upscale", "in.png", "--adapter", "span-x4-int8", cwd=tmp_path)
    assert "span-x4-int8 is for networks in int8" in said.stderr
    assert (tmp_path / "in_x4.png").exists()


def test_as_realesrgan_users_type_it(tmp_path: Path) -> None:
    save(tmp_path / "in.png", photo(20, 24))
    words = [
        "upscale",
        "-i",
        "in.png",
        "-o",
        "out.webp",
        "-n",
        "span-x2",
        "-s",
        "2",
        "-t",
        "64",
        "-j",
        "1:2:2",
        "-f",
        "webp",
    ]
    report = parsed(dsclora_(*words, "--json", cwd=tmp_path))
    assert (report["model"], report["results"][0]["output_size"]) == ("span-x2", [48, 40])
    assert (tmp_path / "out.webp").exists()
    for threads in ("0", "1:2", "two", "1:2,2:2", "1025"):
        assert "not a number of threads" in dsclora_(*words, "-j", threads, cwd=tmp_path, code=2).stderr


def test_inputs_are_arguments_and_options_together(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        save(tmp_path / f"{name}.png", photo(9, 9))
    report = parsed(dsclora_("upscale", "a.png", "-i", "b.png", "-i", "c.png", "-o", "out", "--json", cwd=tmp_path))
    assert [Path(row["source"]).name for row in report["results"]] == ["a.png", "b.png", "c.png"]
    assert "no input is named" in dsclora_("upscale", cwd=tmp_path, code=2).stderr


def test_an_adapter_named_as_the_model_comes_with_its_base(tmp_path: Path) -> None:
    save(tmp_path / "in.png", photo(16, 16))
    named = parsed(dsclora_("upscale", "in.png", "-m", "span-x2-jpeg", "-o", "a.png", "--json", cwd=tmp_path))
    added = parsed(dsclora_("upscale", "in.png", "-a", "span-x2-jpeg", "-o", "b.png", "--json", cwd=tmp_path))
    assert named["model"] == added["model"] == "span-x2+span-x2-jpeg"
    assert (read_rgb8(tmp_path / "a.png") == read_rgb8(tmp_path / "b.png")).all()
    half = parsed(dsclora_("upscale", "in.png", "-m", "span-x2-jpeg:0.5", "-o", "c.png", "--json", cwd=tmp_path))
    assert half["model"] == "span-x2+span-x2-jpeg:0.5"


@pytest.mark.slow
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
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert 0 < len(names) < 60
    assert [Path(r["target"]).name for r in json.loads(out)["results"]] == names
    dsclora_("upscale", "in", "-o", "out", "--if-exists", "skip", cwd=tmp_path)
    assert len(list((tmp_path / "out").iterdir())) == 60


def test_every_supported_format_is_still_read_where_the_others_are_blocked(tmp_path: Path) -> None:
    suffixes = ["png", "jpg", "webp", "tif", "gif", "avif"]
    sources = [save(tmp_path / f"{suffix}.{suffix}", photo(20, 24)) for suffix in suffixes]
    sources.append(ROOT / "tests" / "data" / "grey.heic")
    report = parsed(dsclora_("upscale", *sources, "-o", tmp_path / "out", "--json"))
    assert (report["done"], report["failed"]) == (len(sources), 0)


def test_libvips_reads_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawing = tmp_path / "drawing.svg"
    drawing.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    assert pyvips.Image.new_from_file(str(drawing)).width == 9

    def look() -> None:
        with pytest.raises(pyvips.Error, match=r"unable to load|not a known"):
            pyvips.Image.new_from_file(str(drawing))
        assert pyvips.cache_get_max() == 0

    monkeypatch.setattr(quantize, "quantize", look)  # any verb that opens pictures
    dsclora_("quantize")
    errors = dsclora_("upscale", drawing, code=1).stderr
    reason = f"not a picture, damaged, or of no supported kind; supported are {SUPPORTED}"
    assert errors == f"dsclora: error: {drawing}: {reason}\n"
