"""`dsclora quantize`, as a user meets it."""

from pathlib import Path

import pytest

from helpers import dsclora_, parsed, photo, save


@pytest.mark.slow
def test_quantize(model_file: Path, tmp_path: Path) -> None:
    train, valid = tmp_path / "train", tmp_path / "valid"
    for number in range(3):
        save(train / f"{number}.png", photo(48, 56, seed=number))
        save(valid / f"{number}.png", photo(40, 44, seed=10 + number))
    target = tmp_path / "made.safetensors"
    recipe = tmp_path / "short.toml"
    recipe.write_text(
        '[[lora]]\nconvs = "conv_cat"\nrank = 2\nalpha = 4.0\n'
        "[[stage]]\niterations = 3\nbatch = 2\npatch = 16\nteacher_weight = 1.0\n"
    )
    arguments = ("quantize", train, "--valid", valid, "--base", model_file, "-o", target, "--recipe", recipe)
    facts = parsed(dsclora_(*arguments, "--iterations", 2, "--json"))
    assert facts["psnr"]["trained"] >= facts["psnr"]["calibrated"]
    assert "exists already" in dsclora_(*arguments, code=2).stderr
    dsclora_(*arguments, "--iterations", 2, "--overwrite")
    out = tmp_path / "out"
    text = dsclora_("export", "-m", model_file, "-a", target, "--to", "onnx", "--precision", "int8", "-o", out).stdout
    assert "_int8.onnx" in text
    twice = ("export", "-m", model_file, "-a", target, "-a", target, "--to", "onnx", "--precision", "int8", "-o", out)
    assert "name only one of them" in dsclora_(*twice, code=2).stderr
