"""`dsclora evaluate`, as a user meets it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import pyvips

from helpers import dsclora_, parsed, photo, save


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


def test_an_encoding_without_a_name_loses_nothing(tmp_path: Path) -> None:
    save(tmp_path / "in" / "日本.png", photo(24, 24))
    command = [sys.executable, "-m", "dsclora.cli", "evaluate", "in", "--csv", "rows.csv"]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert rb"\u65e5\u672c" in done.stdout
    assert "日本" in (tmp_path / "rows.csv").read_text(encoding="utf-8")
