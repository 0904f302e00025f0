"""Model files: what is written is read, what is damaged or foreign is refused with a reason."""

import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from dsclora.errors import ModelError, OutputError
from dsclora.networks import span, span_import, span_torch
from dsclora.networks.span import SpanNetwork
from helpers import random_model


def test_round_trip(model: SpanNetwork, model_file: Path) -> None:
    again = span.read(model_file)
    assert again.sha256 == model.sha256
    assert (again.scale, again.channels, again.mean, again.range) == (2, 6, model.mean, model.range)
    assert again.license == "CC0-1.0"
    assert again.name == "random"
    assert all(np.array_equal(again.weights[k], model.weights[k]) for k in model.weights)


def test_hash_depends_on_content_alone(model: SpanNetwork) -> None:
    shuffled = replace(model, weights=dict(reversed(list(model.weights.items()))), license="other")
    assert shuffled.sha256 == model.sha256
    changed = dict(model.weights)
    changed["conv_cat.bias"] = changed["conv_cat.bias"] + np.float32(1e-3)
    assert replace(model, weights=changed).sha256 != model.sha256


def test_parameter_counts_of_the_literature() -> None:
    counts = {
        (26, 4): 130_828,
        (26, 2): 122_368,
        (26, 3): 125_893,
        (28, 4): 150_688,
        (48, 4): 426_288,
        (52, 2): 481_324,
    }
    for (channels, scale), count in counts.items():
        assert random_model(scale, channels).parameters == count


def test_existing_file_is_kept(model: SpanNetwork, model_file: Path) -> None:
    before = model_file.read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        span.write(model_file, random_model(seed=1))
    assert model_file.read_bytes() == before
    assert [p.name for p in model_file.parent.iterdir()] == [model_file.name]
    span.write(model_file, random_model(seed=1), overwrite=True)
    assert span.read(model_file).sha256 == random_model(seed=1).sha256


def _rewrite(path: Path, change: Callable[[dict[str, Any], dict[str, str]], object]) -> None:
    raw = path.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + size])["__metadata__"]
    tensors = load_file(path)
    change(tensors, header)
    save_file(tensors, path, header)


def test_damage_is_named(model_file: Path) -> None:
    def spoil(what: Callable[[dict[str, Any], dict[str, str]], object], reason: str) -> None:
        copy = model_file.with_name("copy.safetensors")
        copy.write_bytes(model_file.read_bytes())
        _rewrite(copy, what)
        with pytest.raises(ModelError, match=reason) as caught:
            span.read(copy)
        assert str(copy) in str(caught.value)
        assert "\n" not in str(caught.value)

    spoil(lambda t, h: t["conv_cat.bias"].__setitem__(0, 9), "does not match its hash")
    spoil(lambda t, h: h.update(scale="3"), "header says x3.*tensors say x2")
    spoil(lambda t, h: h.update(format_version="2"), "format version 2, this dsclora reads up to 1")
    spoil(lambda t, h: h.update(mean="[1"), "damaged header")
    spoil(lambda t, h: h.pop("mean"), "damaged header")
    spoil(lambda t, h: h.update(training="[]["), "damaged header")
    spoil(lambda t, h: h.update(training="[1]"), "damaged header")
    spoil(lambda t, h: h.update(training="[" * 100_000), "damaged header")
    spoil(lambda t, h: h.update(training='{"a": NaN}'), "damaged header")
    spoil(lambda t, h: h.update(training='{"a": 1e999}'), "damaged header")
    spoil(lambda t, h: h.update(mean=f"[1, 1, {'9' * 400}]"), "damaged header")
    spoil(lambda t, h: h.update(range="nan"), "damaged header")
    spoil(lambda t, h: h.update(range="0"), "damaged header")
    spoil(lambda t, h: h.update(architecture="efdn"), "damaged header")
    spoil(lambda t, h: t["conv_cat.bias"].__setitem__(0, np.nan), "NaN")
    spoil(lambda t, h: h.clear(), "dsclora import")
    spoil(lambda t, h: t.pop("conv_cat.bias"), "SPAN variant.*1 missing, such as conv_cat.bias")
    spoil(lambda t, h: t.update({"conv_cat.bias": np.zeros(5, np.float32)}), r"shape \(5,\).*\(6,\)")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"\x00" * 40, "not a readable safetensors"),
        (struct.pack("<Q", 2**60) + b"{}", "not a readable safetensors"),
        (struct.pack("<Q", 99_999_999) + b"{" * 1000, "not a readable safetensors"),
        (b"GIF89a and more", "not a readable safetensors"),
        (pickle.dumps({"a": 1}), "pickle"),
    ],
)
def test_not_safetensors(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "odd name.safetensors"
    path.write_bytes(content)
    for read in (span.read, span_import.import_file):
        with pytest.raises(ModelError, match=reason) as caught:
            read(path)
        assert str(path) in str(caught.value)


def test_bfloat16_is_imported(tmp_path: Path, model: SpanNetwork) -> None:
    from safetensors.torch import save_file as save_torch

    path = tmp_path / "half.safetensors"
    halves = {k: torch.from_numpy(v.copy()).bfloat16() for k, v in model.weights.items()}
    save_torch(halves, path)
    with pytest.raises(ModelError, match=r"half\.safetensors: .*dsclora import"):
        span.read(path)
    network = span_import.import_file(path)
    assert all(np.array_equal(network.weights[k], half.float().numpy()) for k, half in halves.items())


def test_truncated(model_file: Path) -> None:
    model_file.write_bytes(model_file.read_bytes()[:-100])
    with pytest.raises(ModelError, match="not a readable safetensors"):
        span.read(model_file)


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No such file"):
        span.read(tmp_path / "none.safetensors")
    with pytest.raises(ModelError, match="not a file"):
        span.read(tmp_path)


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


def test_range_can_be_folded(model: SpanNetwork) -> None:
    folded = span.with_range(model, span.SPAN_RANGE)
    x = torch.rand(1, 3, 12, 12)
    with torch.inference_mode():
        assert torch.allclose(span_torch.from_network(folded)(x), span_torch.from_network(model)(x), atol=1e-5)
