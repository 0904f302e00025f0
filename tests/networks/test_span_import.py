"""Foreign weights: what is imported, and what is refused with a reason."""

import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from dsclora.errors import ModelError
from dsclora.networks import span, span_import, span_torch
from dsclora.networks.span import SpanNetwork


def test_bfloat16_is_imported(tmp_path: Path, model: SpanNetwork) -> None:
    from safetensors.torch import save_file as save_torch

    path = tmp_path / "half.safetensors"
    halves = {k: torch.from_numpy(v.copy()).bfloat16() for k, v in model.weights.items()}
    save_torch(halves, path)
    with pytest.raises(ModelError, match=r"half\.safetensors: .*dsclora import"):
        span.read(path)
    network = span_import.import_file(path)
    assert all(np.array_equal(network.weights[k], half.float().numpy()) for k, half in halves.items())


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("/tmp/dsclora-pickle-ran"),))


def test_a_pickle_with_code_does_not_run(tmp_path: Path) -> None:
    mark = Path("/tmp/dsclora-pickle-ran")
    mark.unlink(missing_ok=True)
    path = tmp_path / "evil.pth"
    torch.save({"params": _Evil()}, path)
    with pytest.raises(ModelError, match="could run code"):
        span_import.import_file(path)
    assert not mark.exists()


@pytest.mark.parametrize("wrapper", [None, "params", "params_ema", "state_dict"])
def test_import_of_both_forms(tmp_path: Path, wrapper: str | None) -> None:
    torch.manual_seed(0)
    net = span_torch.SpanTrain(5, 3)
    state: dict[str, Any] = {f"module.{k}": v for k, v in net.state_dict().items()}
    state["module.conv_1.eval_conv.weight"] = torch.zeros(5, 3, 3, 3)  # a stale copy, as traiNNer writes them
    path = tmp_path / "net.pth"
    torch.save({wrapper: state} if wrapper else state, path)
    imported = span_import.import_file(path)
    assert (imported.scale, imported.channels) == (3, 5)
    x = torch.rand(1, 3, 9, 8)
    with torch.inference_mode():
        assert torch.allclose(span_torch.from_network(imported)(x), net.eval()(x), atol=2e-4)


def test_import_without_norm(tmp_path: Path, model: SpanNetwork) -> None:
    path = tmp_path / "no_norm.safetensors"
    save_file({**model.weights, "no_norm": np.zeros(1, np.float32)}, path)
    imported = span_import.import_file(path)
    assert (imported.mean, imported.range) == ((0, 0, 0), 1)


def test_import_refuses_nan(tmp_path: Path, model: SpanNetwork) -> None:
    tensors = {k: v.copy() for k, v in model.weights.items()}
    tensors["conv_cat.bias"][0] = np.nan
    save_file(tensors, tmp_path / "nan.safetensors")
    with pytest.raises(ModelError, match="NaN"):
        span_import.import_file(tmp_path / "nan.safetensors")


@pytest.mark.parametrize(
    ("keys", "guess"),
    [
        (["conv_first.weight", "body.0.weight"], "ESRGAN"),
        (["head.weight", "cells.0.conv1.weight"], "EFDN"),
        (["conv_cat.lora_A"], "adapter"),
        (["encoder.weight"], "another network"),
    ],
)
def test_what_a_foreign_file_looks_like(tmp_path: Path, keys: list[str], guess: str) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({k: np.zeros(1, np.float32) for k in keys}, path)
    with pytest.raises(ModelError, match=guess):
        span_import.import_file(path)


@pytest.mark.parametrize(
    "odd",
    [
        {"conv_1.eval_conv.weight": torch.zeros(())},
        {"upsampler.0.weight": torch.zeros(3, dtype=torch.complex64)},
        {"conv_cat.weight": torch.zeros(2, 2).to_sparse()},
        {"conv_cat.weight": torch.zeros(1, dtype=torch.half).expand(10**7, 10**7)},
        {f"x{n}": torch.zeros(1).expand(2**26) for n in range(2)},
        {  # a product of 3.6e9 numbers
            "conv_1.conv.0.weight": torch.zeros(1, 60_000, 1, 1),
            "conv_1.conv.1.weight": torch.zeros(1, 1, 3, 3),
            "conv_1.conv.2.weight": torch.zeros(60_000, 1, 1, 1),
            "conv_1.sk.weight": torch.zeros(1, 1, 1, 1),
        },
        {"conv_1.sk.weight": torch.zeros(3), **{f"conv_1.conv.{n}.weight": torch.zeros(3) for n in range(3)}},
    ],
)
def test_odd_tensors_are_one_line(tmp_path: Path, model: SpanNetwork, odd: dict[str, torch.Tensor]) -> None:
    state = {k: torch.from_numpy(v.copy()) for k, v in model.weights.items()} | odd
    state |= {k.replace("weight", "bias"): torch.zeros(3) for k in odd if ".conv." in k or ".sk." in k}
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(ModelError, match=r"odd\.pth"):
        span_import.import_file(tmp_path / "odd.pth")


def test_an_archive_that_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", bytes(10**6))
    monkeypatch.setattr(span_import, "LARGEST_FILE", 10**5)
    with pytest.raises(ModelError, match="unpacked it is too large"):
        span_import.import_file(tmp_path / "bomb.pth")


@pytest.mark.parametrize("dtype", ["F8_E4M3", "C64"])
def test_numbers_that_no_span_has_are_one_line(tmp_path: Path, dtype: str) -> None:
    header = json.dumps({"conv_1.eval_conv.weight": {"dtype": dtype, "shape": [8], "data_offsets": [0, 64]}})
    if dtype != "C64":
        header = header.replace("64", "8")
    (tmp_path / "odd.safetensors").write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(64))
    for read in (span.read, span_import.import_file):
        with pytest.raises(ModelError, match=r"odd\.safetensors"):
            read(tmp_path / "odd.safetensors")


def test_tensors_without_dimensions_are_one_line(tmp_path: Path, model: SpanNetwork) -> None:
    scalar = {"conv_1.eval_conv.weight": np.zeros((), np.float32)}
    save_file({**model.weights, **scalar}, tmp_path / "odd.safetensors")
    with pytest.raises(ModelError, match=r"odd\.safetensors"):
        span.read(tmp_path / "odd.safetensors")


def test_a_picture_called_pth(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(b"\x89PNG and so on")
    with pytest.raises(ModelError, match="not a PyTorch file"):
        span_import.import_file(tmp_path / "x.pth")


def test_official_files(shared: Path) -> None:
    expected = {
        "span_ch26_ntire2024.pth": (4, 26),
        "dscf_ch26_ntire2025.pth": (4, 26),
        "span_ch28_ntire2024.pth": (4, 28),
        "span_x4_ch48.safetensors": (4, 48),
        "span_x4_ch52.safetensors": (4, 52),
        "span_x2_ch48.safetensors": (2, 48),
        "span_x2_ch52.safetensors": (2, 52),
    }
    for name, facts in expected.items():
        imported = span_import.import_file(shared / "weights" / name)
        assert (imported.scale, imported.channels) == facts, name
    with pytest.raises(ModelError, match="looks like an EFDN"):
        span_import.import_file(shared / "weights" / "efdn_ntire2023.pth")
