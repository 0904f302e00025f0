"""An adaptation from pictures to files, by the command line and from Python."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dsclora.networks import adapter

CLI_RECIPE = """
ema = 0.9
validations = 2
[[lora]]
convs = "upsampler.0"
rank = 4
alpha = 8.0
[[stage]]
precision = "fp32"
iterations = 40
batch = 4
patch = 32
learning_rate = 5e-3
"""


def cli(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "dsclora.cli", "adapt", *map(str, arguments), "--threads", "1"]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
def test_the_command_line(pictures: Path, model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(CLI_RECIPE)
    target = tmp_path / "out" / "mine.safetensors"
    common = [pictures, "--base", model_file, "--recipe", tmp_path / "r.toml", "-o", target]
    done = cli(*common, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["accepted"]
    assert result["held_out"]["interval"][0] > 0
    assert result["general"]["pictures"] == 6
    assert Path(result["adapter"]) == target
    assert adapter.read(target).training["result"]["held_out"] == result["held_out"]
    assert (tmp_path / "out" / "mine.html").exists()
    assert list((tmp_path / "out" / "mine.run").glob("events.*")), "TensorBoard"
    assert not (tmp_path / "out" / "mine.run" / "pictures").exists(), "gigabytes that nobody needs any more"
    again = cli(*common)
    assert again.returncode == 2
    assert "exists already" in again.stderr
    assert "Traceback" not in again.stderr


@pytest.mark.slow
def test_a_rejected_adapter_exits_3(pictures: Path, model_file: Path, tmp_path: Path) -> None:
    """At a learning rate of nothing there is no gain."""
    (tmp_path / "r.toml").write_text(CLI_RECIPE.replace("5e-3", "1e-12\nfinal_learning_rate = 0"))
    target = tmp_path / "mine.safetensors"
    done = cli(pictures, "--base", model_file, "--recipe", tmp_path / "r.toml", "-o", target)
    assert done.returncode == 3, done.stderr
    assert "no gain beyond doubt" in done.stderr
    assert not target.exists()
    assert adapter.read(tmp_path / "mine.rejected.safetensors").training["result"]["accepted"] is False
    assert "Rejected" in (tmp_path / "mine.rejected.html").read_text()


@pytest.mark.slow
def test_wrong_usage(pictures: Path, model_file: Path, tmp_path: Path) -> None:
    done = cli(pictures, "-o", tmp_path / "x.html")
    assert done.returncode == 2
    assert "ends in .safetensors" in done.stderr
    for arguments, reason in (
        (["--minutes", 1, "--iterations", 5], "exclude each other"),
        (["--minutes", -1], "must be positive"),
        (["--recipe", tmp_path / "none.toml"], "cannot be read"),
        (["--base", "span-x4", "--teacher", model_file], "the teacher enlarges x2 only"),
    ):
        done = cli(pictures, "-o", tmp_path / "x.safetensors", *arguments)
        assert done.returncode == 2
        assert reason in done.stderr
        assert "looking at" not in done.stderr
