"""Model files: what is written is read, what is damaged or foreign is refused with a reason."""

import json
import pickle
import struct
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


def test_truncated(model_file: Path) -> None:
    model_file.write_bytes(model_file.read_bytes()[:-100])
    with pytest.raises(ModelError, match="not a readable safetensors"):
        span.read(model_file)


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No such file"):
        span.read(tmp_path / "none.safetensors")
    with pytest.raises(ModelError, match="not a file"):
        span.read(tmp_path)


def test_range_can_be_folded(model: SpanNetwork) -> None:
    folded = span.with_range(model, span.SPAN_RANGE)
    x = torch.rand(1, 3, 12, 12)
    with torch.inference_mode():
        assert torch.allclose(span_torch.from_network(folded)(x), span_torch.from_network(model)(x), atol=1e-5)
