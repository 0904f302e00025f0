"""`dsclora import` and `inspect`, as a user meets them."""

import re
from pathlib import Path

from safetensors.numpy import save_file

from dsclora.networks import span
from helpers import dsclora_, parsed, random_model


def test_import_and_inspect(tmp_path: Path) -> None:
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
    assert "network         SPAN x4, 26 channels\n" in dsclora_("inspect", "span-x4").stdout


def test_inspect_sums_a_training_up() -> None:
    text = dsclora_("inspect", "span-x4-docs").stdout
    lines = dict(re.split(r"  +", line, maxsplit=1) for line in text.splitlines()[1:])
    assert lines["kind"] == "adapter (ConvLoRA)"
    assert lines["convs"] == "20 of rank 8 and alpha 16"
    assert lines["base"].startswith("span-x4, sha256 8ad65e29")
    assert lines["training"] == "4,000 iterations, adam"
    assert lines["held out"].startswith("18.549 -> 21.626 dB, +3.076 on 13 pictures")
    assert lines["licence"] == "MIT"
    assert "{" not in dsclora_("inspect", "span-x4-int8").stdout


def test_inspect_json_holds_all() -> None:
    assert set(parsed(dsclora_("inspect", "span-x4", "--json"))) == {
        "name", "format", "architecture", "scale", "channels", "parameters", "mean", "range", "sha256", "license",
        "training",
    }  # fmt: skip
    assert set(parsed(dsclora_("inspect", "span-x4-docs", "--json"))) == {
        "name", "format", "variant", "base_sha256", "scale", "channels", "parameters", "ranks", "alphas", "int8",
        "license", "training",
    }  # fmt: skip
