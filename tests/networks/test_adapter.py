"""Adapters as things: files that say what they fit, merge by strength, and can be taken from two models."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from dsclora.engines import Setting
from dsclora.engines.choice import open_engine
from dsclora.errors import ModelError, OutputError, UsageError
from dsclora.networks import adapter, extraction, open_file, span
from dsclora.networks.adapter import Adapter, Update
from dsclora.networks.span import SpanNetwork
from helpers import photo, random_model, save
from helpers_networks import tiny_network

CONVS = ("block_1.c1_r.eval_conv", "conv_cat", "upsampler.0")


def make(base: SpanNetwork, seed: int = 0, rank: int = 2, name: str = "a") -> Adapter:
    random = np.random.default_rng(seed)
    updates = {}
    for conv in CONVS:
        rows, columns, inner = Update.shapes(base.weights[f"{conv}.weight"].shape, rank)
        a, b = random.normal(0, 0.1, (inner, columns)), random.normal(0, 0.1, (rows, inner))
        updates[conv] = Update(a.astype(np.float32), b.astype(np.float32), rank, 2.0 * rank)
    return Adapter(updates, base.sha256, base.scale, base.channels, {"note": "é"}, "CC0-1.0", name)


def test_files_keep_everything(model: SpanNetwork, tmp_path: Path) -> None:
    original = make(model)
    adapter.write(tmp_path / "a.safetensors", original)
    read = adapter.read(tmp_path / "a.safetensors")
    assert adapter.describe(read) == adapter.describe(original)
    for conv, update in original.updates.items():
        assert np.array_equal(read.updates[conv].a, update.a)
        assert np.array_equal(read.updates[conv].b, update.b)
    with pytest.raises(OutputError, match="exists already"):
        adapter.write(tmp_path / "a.safetensors", original)


def test_merging_adds_up_and_strength_is_a_dial(model: SpanNetwork) -> None:
    a, b = make(model, 0), replace(make(model, 1, name="b"), license="MIT")
    key = "upsampler.0.weight"
    update = a.updates["upsampler.0"]
    by_hand = model.weights[key] + 2 * (update.b @ update.a).reshape(model.weights[key].shape)
    np.testing.assert_allclose(adapter.merge(model, [(a, 1.0)]).weights[key], by_hand, rtol=1e-5, atol=1e-7)
    assert adapter.merge(model, [(a, 0.0)]).sha256 == model.sha256
    there_and_back = adapter.merge(model, [(a, 1.0), (a, -1.0)])
    assert there_and_back.sha256 == model.sha256
    both = adapter.merge(model, [(a, 0.5), (b, 2.0)])
    assert both.sha256 == adapter.merge(model, [(b, 2.0), (a, 0.5)]).sha256
    change = [adapter.merge(model, [x]).weights[key] - model.weights[key] for x in ((a, 0.5), (b, 2.0))]
    np.testing.assert_allclose(both.weights[key] - model.weights[key], sum(change), atol=1e-6)
    assert both.weights["conv_1.eval_conv.weight"] is model.weights["conv_1.eval_conv.weight"]
    assert [m["strength"] for m in both.training["merged"]] == [0.5, 2.0]
    assert both.license == "CC0-1.0 AND MIT"
    assert adapter.merge(both, []).license == both.license
    odd = adapter.merge(replace(model, training={"merged": 5}), [(a, 0.5)])
    assert odd.training["merged"] == both.training["merged"][:1]


def test_an_adapter_fits_one_base(model: SpanNetwork) -> None:
    update = make(model)
    other = replace(random_model(3, 8, seed=2), name="other")
    with pytest.raises(ModelError, match=f"x2 base of 6 channels, sha256 {model.sha256[:12]}; other is x3, 8 channels"):
        adapter.merge(other, [(update, 1.0)])
    merged = adapter.merge(model, [(update, 1.0)])
    with pytest.raises(ModelError, match="use the base it was made for"):
        adapter.merge(merged, [(update, 1.0)])


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 3), st.integers(0, 99))
def test_extraction_finds_what_was_merged(rank: int, seed: int) -> None:
    base = random_model(2, 6)
    original = make(base, seed, rank)
    tuned = adapter.merge(base, [(original, 1.0)])
    copy, remainder = extraction.extract(base, tuned, rank)
    assert copy.updates.keys() == original.updates.keys()
    assert remainder.total < 1e-5
    again = adapter.merge(base, [(copy, 1.0)])
    for key, tensor in tuned.weights.items():
        np.testing.assert_allclose(again.weights[key], tensor, atol=1e-6)


def test_extraction_tells_the_error_it_makes(model: SpanNetwork) -> None:
    tuned = replace(random_model(2, 6, seed=5), name="tuned")
    lost = []
    for rank in (1, 2, 4, 6):
        low_rank, remainder = extraction.extract(model, tuned, rank)
        merged = adapter.merge(model, [(low_rank, 1.0)])
        change = sum(float(((tuned.weights[k] - v).astype(np.float64) ** 2).sum()) for k, v in model.weights.items())
        left = sum(float(((tuned.weights[k] - v).astype(np.float64) ** 2).sum()) for k, v in merged.weights.items())
        assert remainder.total == pytest.approx((left / change) ** 0.5, rel=1e-4)
        lost.append(remainder.total)
    assert lost == sorted(lost, reverse=True)
    assert max(remainder.convs.values()) < 1e-6, "at full rank only the biases are lost"
    assert low_rank.updates["conv_1.eval_conv"].rank == 3, "no more than there are"


def test_what_cannot_be_extracted(model: SpanNetwork) -> None:
    with pytest.raises(ModelError, match="nothing to extract"):
        extraction.extract(model, model, 2)
    with pytest.raises(ModelError, match="two models of one kind"):
        extraction.extract(model, random_model(3), 2)
    with pytest.raises(UsageError, match="at least 1"):
        extraction.extract(model, random_model(seed=1), 0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format_version": "4"}, "upgrade with"),
        ({"ranks": "{}"}, "damaged header"),
        ({"ranks": "[1]"}, "damaged header"),
        ({"alphas": '{"conv_cat": 1}'}, "damaged header"),
        ({"alphas": json.dumps(dict.fromkeys(CONVS, 10**400))}, "damaged header"),
        ({"variant": "peft"}, "damaged header"),
        ({"scale": "two"}, "damaged header"),
        ({"base_sha256": None}, "damaged header"),
        ({"training": "NaN"}, "damaged header"),
        ({"format": "other"}, "not a dsclora adapter"),
    ],
)
def test_damaged_headers(model: SpanNetwork, tmp_path: Path, change: dict[str, str | None], reason: str) -> None:
    path = tmp_path / "a.safetensors"
    adapter.write(path, make(model))
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        header = {**file.metadata(), **change}
    save_file(load_file(path), path, {k: v for k, v in header.items() if v is not None})
    with pytest.raises(ModelError, match=reason) as caught:
        adapter.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_tensors(model: SpanNetwork, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    whole = make(model)
    update = whole.updates["conv_cat"]
    for bad, reason in (
        (replace(update, a=update.a * np.float32(np.nan)), "NaN"),
        (replace(update, a=update.a[:, :-1]), r"conv_cat has lora_A"),
    ):
        adapter.write(path, replace(whole, updates={**whole.updates, "conv_cat": bad}), overwrite=True)
        with pytest.raises(ModelError, match=reason):
            adapter.merge(model, [(adapter.read(path), 1.0)])
    with pytest.raises(ModelError, match="which the base does not have"):
        adapter.merge(model, [(replace(whole, updates={"conv_9": update}), 1.0)])


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "dsclora.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
def test_the_command_line(model: SpanNetwork, model_file: Path, tmp_path: Path) -> None:
    a, b = tmp_path / "a b.safetensors", tmp_path / "b.safetensors"
    adapter.write(a, make(model, 0))
    adapter.write(b, make(model, 1))
    picture = save(tmp_path / "p.png", photo(20, 20))
    merged = tmp_path / "merged.safetensors"
    assert run("merge", model_file, f"{a}:0.5", b, "-o", merged).returncode == 0
    expected = adapter.merge(model, [(make(model, 0), 0.5), (make(model, 1), 1.0)])
    assert span.read(merged).sha256 == expected.sha256

    outputs = [tmp_path / "one.png", tmp_path / "two.png", tmp_path / "base.png"]
    assert run("upscale", picture, "-m", merged, "-o", outputs[0]).returncode == 0
    assert run("upscale", picture, "-m", model_file, "-a", f"{a}:0.5", "--adapter", b, "-o", outputs[1]).returncode == 0
    assert run("upscale", picture, "-m", model_file, "-o", outputs[2]).returncode == 0
    one, two, base = (path.read_bytes() for path in outputs)
    assert one == two != base

    evaluated = run("evaluate", tmp_path / "hr", "-m", model_file, "-a", a, "--json")
    assert evaluated.returncode == 1, "no pictures"
    save(tmp_path / "hr" / "p.png", photo(60, 60))
    evaluated = run("evaluate", tmp_path / "hr", "-m", model_file, "-a", a, "--json")
    assert json.loads(evaluated.stdout)["model"]["name"] == "random+a b"

    facts = json.loads(run("inspect", a, "--json").stdout)
    assert facts["format"] == "dsclora.adapter"
    assert facts["ranks"]["conv_cat"] == 2

    extracted = tmp_path / "x.safetensors"
    done = run("extract", model_file, merged, "--rank", 4, "-o", extracted, "--json")
    assert json.loads(done.stdout)["lost"] < 1e-5
    assert adapter.read(extracted).base_sha256 == model.sha256


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["-a", "{a}:strong"], 2, "FILE:STRENGTH"),
        (["-a", "{a}:1e9"], 2, "makes no sense"),
        (["-a", "{dir}/none.safetensors"], 1, "cannot be read"),
        (["-a", "nosuch"], 1, "no bundled adapter is called 'nosuch'"),
        (["-a", "{model}"], 1, "a base model; give it with --model"),
        (["-m", "{a}"], 1, "it is an adapter, not a base model"),
        (["-a", "{other}"], 1, "use the base it was made for"),
    ],
)
def test_mistakes_are_one_line(
    model: SpanNetwork, model_file: Path, tmp_path: Path, arguments: list[str], code: int, reason: str
) -> None:
    a, other = tmp_path / "a.safetensors", tmp_path / "other.safetensors"
    adapter.write(a, make(model))
    adapter.write(other, make(random_model(2, 6, seed=3)))
    names = {"a": a, "other": other, "model": model_file, "dir": tmp_path}
    done = run(
        "upscale",
        save(tmp_path / "p.png", photo(20, 20)),
        *([] if "-m" in arguments else ["-m", model_file]),
        *(argument.format(**names) for argument in arguments),
    )
    assert done.returncode == code
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_adapters_need_no_torch(model: SpanNetwork, model_file: Path, tmp_path: Path) -> None:
    adapter.write(tmp_path / "a.safetensors", make(model))
    script = (
        "import sys; from dsclora.networks import adapter, extraction, span; "
        "m = adapter.merge(span.read(sys.argv[1]), [(adapter.read(sys.argv[2]), 1.0)]); "
        "extraction.extract(span.read(sys.argv[1]), m, 1); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, str(model_file), str(tmp_path / "a.safetensors")], check=True)


@pytest.mark.parametrize("global_mean", [False, True])
def test_an_adapter_of_another_network(global_mean: bool, tmp_path: Path) -> None:
    base = tiny_network(3, global_mean=global_mean)
    random = np.random.default_rng(5)
    rows, columns, inner = adapter.Update.shapes(base.weights["tail.weight"].shape, 2)
    a, b = (random.normal(0, 0.1, shape).astype(np.float32) for shape in ((inner, columns), (rows, inner)))
    update = adapter.create(base, {"tail": adapter.Update(a, b, 2, 4.0)}, {"made": "up"}, "MIT")
    adapter.write(tmp_path / "a.safetensors", update)
    again = adapter.read(tmp_path / "a.safetensors")
    assert (again.architecture, again.channels, again.scale) == ("tiny", None, 3)
    assert adapter.describe(again)["architecture"] == "tiny"
    merged = adapter.merge(base, [(again, 0.5)])
    assert (merged.name, merged.license) == ("tiny+a:0.5", "CC0-1.0 AND MIT")
    change = merged.weights["tail.weight"] - base.weights["tail.weight"]
    assert np.allclose(change, 0.5 * (4 / 2) * (b @ a).reshape(change.shape), atol=1e-6)
    assert np.array_equal(merged.weights["head.weight"], base.weights["head.weight"])
    with pytest.raises(ModelError, match=r"x3 base of the kind 'tiny'.* is x2, 6 channels"):
        adapter.merge(random_model(), [(again, 1.0)])
    back, remainder = extraction.extract(base, merged, 2)
    assert remainder.total < 1e-3
    assert np.allclose(back.updates["tail"].delta(change.shape), change, atol=1e-6)
    with pytest.raises(ModelError, match="two models of one kind"):
        extraction.extract(base, tiny_network(3, global_mean=not global_mean), 2)


def test_an_adapter_of_an_onnx_file(model: SpanNetwork, tmp_path: Path) -> None:
    """Its initializers have the names of SPAN's weights here, so that the same update makes the same network."""
    (tmp_path / "x.onnx").write_bytes(model.to_onnx().SerializeToString())
    base = open_file(tmp_path / "x.onnx")
    update = make(model).updates["conv_cat"]
    merged = adapter.merge(base, [(adapter.create(base, {"conv_cat": update}, {}, "MIT"), 1.0)])
    expected = adapter.merge(model, [(adapter.create(model, {"conv_cat": update}, {}, "MIT"), 1.0)])
    batch = photo(9, 12).transpose(2, 0, 1)[None].astype(np.float32) / 255
    setting = Setting("onnxruntime")
    assert np.array_equal(open_engine(merged, setting)(batch), open_engine(expected, setting)(batch))
    assert not np.array_equal(open_engine(base, setting)(batch), open_engine(expected, setting)(batch))
