"""The benchmarks run, and print what they promise."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import report
from dsclora.engines.choice import bf16_on_cpu
from dsclora.networks import span
from helpers import ROOT, photo, random_model, save


@pytest.mark.slow
def test_training(tmp_path: Path) -> None:
    for n in range(3):
        save(tmp_path / "pictures" / f"{n}.png", photo(60, 70, seed=n))
    span.write(tmp_path / "teacher.safetensors", random_model(2, 8))
    (tmp_path / "recipe.toml").write_text(
        "[network]\nscale = 2\nchannels = 6\n[[stage]]\niterations = 9\nbatch = 2\npatch = 32\nteacher_weight = 1.0\n"
    )
    command = [sys.executable, str(ROOT / "benchmarks/training.py"), "pictures", "--recipe", "recipe.toml", "--json"]
    command += ["--teacher", "teacher.safetensors", "--rounds", "1", "--block", "2", "--workers", "1"]
    # the row `compiled` is not compiled, which takes most of a minute; that it can be is test_pretrain's
    environment = {**os.environ, "TORCHDYNAMO_DISABLE": "1"}
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True, env=environment)
    facts = json.loads(done.stdout)
    rows = {row["row"]: row for row in facts["rows"]}
    assert list(rows) == ["plain", "dsclora", "compiled", "constant"]
    assert rows["plain"]["ratio_to_plain"] == rows["constant"]["ratio_to_constant"] == 1
    assert all(row["patches_per_s"] > 0 and 0 <= row["data_share"] < 1 for row in rows.values())


def test_the_report_replaces_its_tables_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, place = tmp_path / "page.md", "before\n<!-- measured: {} -->\nold\n<!-- end -->\nafter\n"
    page.write_text(place.format("engines") + place.format("more"))
    monkeypatch.setattr(report, "PAGES", (page,))
    row: dict[str, Any] = {"height": 256, "width": 256, "peak_mb": 30.4, "psnr_vs_fp32": 138.9, "precision": "fp32"}
    rows = [row | {"engine": name, "median_ms": ms} for name, ms in (("torch-nchw", 150.0), ("native", 31.26))]
    rows[0]["psnr_vs_fp32"] = None
    rows += [row | {"width": 640, "height": 360, "median_ms": 4 * row["median_ms"]} for row in rows]
    report.write("engines", report.engines_table(rows))
    text = page.read_text()
    assert text.count("before") == text.count("after") == 2
    assert text.count("old") == 1
    assert "| **native, fp32** | 31.3 | 4.80 | 125 | 4.80 | 30 | 139 |" in text
    assert text.index("native, fp32") < text.index("| torch-nchw, fp32 | 150 | 1.00 | 600 | 1.00 | 30 | - |")
    with pytest.raises(SystemExit, match="has no place for the table 'quality'"):
        report.write("quality", [])
    for real in (ROOT / "README.md", ROOT / "docs" / "benchmarks.md"):
        assert set(re.findall("<!-- measured: (.*) -->", real.read_text())) == {"engines", "more", "quality"}


def test_a_picture_that_fails_is_not_left_out_of_a_mean(tmp_path: Path) -> None:
    for number in range(2):
        save(tmp_path / "HR" / f"{number}.png", photo(48, 64, seed=number))
    assert report.measured(tmp_path, 4, lambda lr: lr.repeat(4, 0).repeat(4, 1))[0] > 5
    (tmp_path / "HR" / "1.png").write_bytes(b"cut off")
    with pytest.raises(SystemExit, match=r"1\.png"):
        report.measured(tmp_path, 4, lambda lr: lr.repeat(4, 0).repeat(4, 1))


@pytest.mark.slow
def test_engines() -> None:
    command = [sys.executable, str(ROOT / "benchmarks/engines.py"), "--json", "--sizes", "40x30", "--rounds", "1"]
    command += ["--engines", "openvino", "openvino:bf16", "torch:nchw", "--core", "-1"]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    rows = json.loads(result.stdout)
    half = [("openvino", "bf16")] if bf16_on_cpu() else []
    assert [(r["engine"], r["precision"]) for r in rows] == [("openvino", "fp32"), *half, ("torch-nchw", "fp32")]
    assert ("openvino:bf16 is left out: this processor has no bf16" in result.stderr) == (not half)
    assert {(r["height"], r["width"], r["threads"]) for r in rows} == {(30, 40, 1)}
    assert all(r["median_ms"] > 0 and r["peak_mb"] > 10 for r in rows)
    assert rows[0]["psnr_vs_fp32"] > 100
    assert not half or 100 > rows[1]["psnr_vs_fp32"] > 40
