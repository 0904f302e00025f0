"""`dsclora export`, as a user meets it."""

from pathlib import Path

import pytest

from helpers import dsclora_, parsed


@pytest.mark.slow
def test_export(model_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("export", "--model", model_file, "-o", out)
    text = dsclora_(*arguments, "--to", "onnx", "--to", "openvino").stdout
    assert "ONNX Runtime" in text
    assert "OpenVINO" in text
    assert {path.name for path in out.iterdir()} == {"random.onnx", "random.xml", "random.bin"}
    (out / "random.onnx").unlink()
    facts = parsed(dsclora_(*arguments, "--to", "onnx", "--to", "openvino", "--json", code=1))
    assert [row["target"] for row in facts["exported"]] == ["onnx"]
    assert "exists already" in facts["failed"][0]
    (out / "random.onnx").unlink()
    assert "cannot be the name of a file" in dsclora_(*arguments, "--to", "onnx", "--name", ".", code=2).stderr
    assert "is for --to ncnn" in dsclora_(*arguments, "--to", "onnx", "--layout", "upscayl", code=2).stderr
    assert "has no fp16" in dsclora_(*arguments, "--to", "onnx", "--to", "pt2", "--precision", "fp16", code=2).stderr
    assert "takes WIDTHxHEIGHT" in dsclora_(*arguments, "--to", "onnx", "--size", "0x0", code=2).stderr
    assert not (out / "random.onnx").exists()
    assert "choose from onnx" in dsclora_(*arguments, "--to", "tflite", code=2).stderr
