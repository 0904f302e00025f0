"""The benchmarks run, and print what they promise."""

import json
import subprocess
import sys
from pathlib import Path

from conftest import ROOT, photo, random_model, save
from dsclora import weights


def test_training(tmp_path: Path) -> None:
    for n in range(3):
        save(tmp_path / "pictures" / f"{n}.png", photo(60, 70, seed=n))
    weights.write(tmp_path / "teacher.safetensors", random_model(2, 8))
    (tmp_path / "recipe.toml").write_text(
        "[network]\nscale = 2\nchannels = 6\n[[stage]]\niterations = 9\nbatch = 2\npatch = 32\nteacher_weight = 1.0\n"
    )
    command = [sys.executable, str(ROOT / "benchmarks/training.py"), "pictures", "--recipe", "recipe.toml", "--json"]
    command += ["--teacher", "teacher.safetensors", "--rounds", "1", "--block", "2", "--workers", "1"]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    facts = json.loads(done.stdout)
    rows = {row["row"]: row for row in facts["rows"]}
    assert list(rows) == ["plain", "dsclora", "compiled", "constant"]
    assert rows["plain"]["ratio_to_plain"] == rows["constant"]["ratio_to_constant"] == 1
    assert all(row["patches_per_s"] > 0 and 0 <= row["data_share"] < 1 for row in rows.values())


def test_engines() -> None:
    command = [sys.executable, str(ROOT / "benchmarks/engines.py"), "--json", "--sizes", "40x30", "--rounds", "1"]
    command += ["--engines", "openvino", "openvino:bf16", "torch:nchw", "--core", "-1"]
    rows = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert [(r["engine"], r["precision"]) for r in rows] == [
        ("openvino", "fp32"),
        ("openvino", "bf16"),
        ("torch-nchw", "fp32"),
    ]
    assert {(r["height"], r["width"], r["threads"]) for r in rows} == {(30, 40, 1)}
    assert all(r["median_ms"] > 0 and r["peak_mb"] > 10 for r in rows)
    assert rows[0]["psnr_vs_fp32"] > 100 > rows[1]["psnr_vs_fp32"] > 40
