"""Every target through its real runtime; what does not agree, or cannot be checked, leaves nothing behind."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import rivals
from dsclora import zoo
from dsclora.engines import Setting
from dsclora.engines.choice import open_engine
from dsclora.errors import EngineError, MissingExtraError, ModelError, OutputError, UsageError
from dsclora.exports import base, export, to_onnx, to_spandrel, verify
from dsclora.networks import span, span_graph, span_import, tensor_file
from helpers import random_model
from helpers_networks import TinyNetwork, tiny_network

CASES: list[tuple[base.Target, dict[str, Any], list[str]]] = [
    ("onnx", {"size": (24, 40)}, ["span-x4_40x24.onnx"]),
    ("openvino", {"precision": "fp16", "size": (24, 40)}, ["span-x4_40x24_fp16.xml", "span-x4_40x24_fp16.bin"]),
]
SLOW_CASES: list[tuple[base.Target, dict[str, Any], list[str]]] = [
    ("onnx", {}, ["span-x4.onnx"]),
    ("onnx", {"precision": "fp16"}, ["span-x4_fp16.onnx"]),
    ("openvino", {}, ["span-x4.xml", "span-x4.bin"]),
    ("ncnn", {}, ["span-x4.ncnn.param", "span-x4.ncnn.bin"]),
    ("ncnn", {"precision": "fp16", "layout": "upscayl"}, ["span-x4_fp16.param", "span-x4_fp16.bin"]),
    ("spandrel", {}, ["4x_span-x4.safetensors"]),
    ("torchscript", {}, ["span-x4.pt"]),
    ("pt2", {}, ["span-x4.pt2"]),
    ("pt2", {"size": (24, 40)}, ["span-x4_40x24.pt2"]),
]


OUTSIDE = ("noise", "checkers")


@pytest.fixture(autouse=True)
def torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in where it is not installed: spandrel imports three names of it for networks that are not SPAN."""
    for name, module in rivals.torchvision_stand_in().items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize(
    ("target", "options", "names"), [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW_CASES)]
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit, and of what the runtimes import
def test_the_runtime_makes_the_same_picture(
    target: base.Target, options: dict[str, Any], names: list[str], tmp_path: Path
) -> None:
    report = export.export(zoo.load("span-x4"), target, tmp_path, **options)
    assert [path.name for path in report.files] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert len(report.compared) >= 6
    exact = report.precision == "fp32"
    assert all(row.psnr > (110 if exact else 55) for row in report.compared if row.picture not in OUTSIDE)
    assert all(row.worst < 0.5 for row in report.compared if exact)
    assert report.compared[0].psnr > (110 if exact else 75)
    assert report.milliseconds > 0
    json.dumps(report.as_json(), default=str, allow_nan=False)


@pytest.mark.slow
def test_fp16_is_as_exact_in_ncnn_as_elsewhere(tmp_path: Path) -> None:
    """Weights below fp16's normal numbers are zero to ncnn: with the range of 255 left in, this is 52 dB."""
    report = export.export(zoo.load("span-x4"), "ncnn", tmp_path, precision="fp16")
    assert min(row.psnr for row in report.compared[:3]) > 75


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "photographs"), [("fp32", 110), ("fp16", 70)])
def test_noise_is_no_reason_to_keep_no_file(precision: base.Precision, photographs: float, tmp_path: Path) -> None:
    """Of noise a wide SPAN makes other pixels with every change in the last bits, whoever computes; it is told."""
    report = export.export(zoo.load("span-x4-wide"), "openvino", tmp_path, precision=precision)
    beyond = {row.picture for row in report.compared if row.worst > base.LIMITS[precision][1]}
    assert beyond <= {*OUTSIDE}
    assert "noise" in beyond or precision == "fp32"  # 0.8 levels where this was written; 211 in fp16
    assert any("noise come out differently" in note for note in report.notes) is bool(beyond)
    assert min(row.psnr for row in report.compared[:3]) > photographs


@pytest.mark.slow
def test_upscayl_finds_its_blobs(tmp_path: Path) -> None:
    report = export.export(zoo.load("span-x4"), "ncnn", tmp_path, layout="upscayl")
    rows = [line.split() for line in report.files[0].read_text().splitlines()]
    assert ["Input", "data", "0", "1", "data"] in rows
    assert rows[-1][5] == "output"
    assert not any(blob in row for row in rows for blob in ("in0", "out0"))


def test_an_onnx_file_says_what_it_takes(tmp_path: Path) -> None:
    (path,) = export.export(random_model(scale=3), "onnx", tmp_path, size=(24, 40)).files
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    sides = [d.dim_value for d in proto.graph.output[0].type.tensor_type.shape.dim]
    assert sides == [1, 3, 72, 120]
    assert proto.opset_import[0].version == span_graph.OPSET


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_the_training_form_collapses_to_what_it_was(scale: int, tmp_path: Path) -> None:
    model = random_model(scale)
    path = tmp_path / "t.safetensors"
    tensor_file.write_safetensors(path, to_spandrel.training_form(model), {}, False)
    back = span_import.import_file(path)
    assert back.weights.keys() == model.weights.keys()
    assert all(np.array_equal(back.weights[key], model.weights[key]) for key in model.weights)


@pytest.mark.slow
def test_another_picture_is_told_and_not_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model, build = zoo.load("span-x4"), span_graph.build

    def wrong(model: span.SpanNetwork, *arguments: Any, **options: Any) -> onnx.ModelProto:
        moved = model.weights["upsampler.0.bias"] + np.float32(0.01)
        return build(replace(model, weights={**model.weights, "upsampler.0.bias": moved}), *arguments, **options)

    monkeypatch.setattr(span_graph, "build", wrong)
    monkeypatch.setattr(verify, "open_engine", lambda model: open_engine(model, Setting("torch")))  # which has no graph
    with pytest.raises(EngineError, match=r"differs by [\d.]+ levels .* not kept"):
        export.export(model, "onnx", tmp_path / "new")
    assert not (tmp_path / "new").exists()


OTHER_CASES: list[tuple[base.Target, dict[str, Any]]] = [
    ("onnx", {}),
    ("onnx", {"size": (24, 40)}),
    ("openvino", {}),
]
OTHER_SLOW_CASES: list[tuple[base.Target, dict[str, Any]]] = [
    ("openvino", {"precision": "fp16"}),
    ("torchscript", {}),
    ("pt2", {"size": (24, 40)}),
    ("pt2", {}),
]
OTHER_NETWORKS = [
    tiny_network(3),
    *(
        pytest.param(network, marks=pytest.mark.slow)
        for network in (tiny_network(1), tiny_network(3, global_mean=True))
    ),
]


@pytest.mark.parametrize(
    ("target", "options"), [*OTHER_CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in OTHER_SLOW_CASES)]
)
@pytest.mark.parametrize("network", OTHER_NETWORKS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit, and of what the runtimes import
def test_other_networks(network: TinyNetwork, target: base.Target, options: dict[str, Any], tmp_path: Path) -> None:
    report = export.export(network, target, tmp_path, **options)
    assert len(report.compared) >= 6
    assert all(row.psnr > (110 if report.precision == "fp32" else 55) for row in report.compared)


def test_what_is_for_span_alone(tmp_path: Path) -> None:
    network = tiny_network(3)
    with pytest.raises(UsageError, match="--to spandrel takes a SPAN; tiny is of the kind 'tiny'"):
        export.export(network, "spandrel", tmp_path)
    with pytest.raises(UsageError, match="int8 is for SPAN; tiny is of the kind 'tiny'"):
        export.export(network, "onnx", tmp_path, precision="int8")
    with pytest.raises(UsageError, match="tiny: its input sides must divide by 4; 42x24 does not"):
        export.export(network, "onnx", tmp_path, size=(24, 42))
    with pytest.raises(ModelError, match="tiny: has no fp16 form"):
        export.export(network, "onnx", tmp_path, precision="fp16")
    with pytest.raises(EngineError, match="ncnn does not load pnnx's file"):  # ncnn has no SpaceToDepth
        export.export(network, "ncnn", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = random_model()
    with pytest.raises(UsageError, match="has no fp16"):
        export.export(model, "spandrel", tmp_path, precision="fp16")
    with pytest.raises(UsageError, match="any size"):
        export.export(model, "ncnn", tmp_path, size=(8, 8))
    with pytest.raises(UsageError, match="for --to ncnn"):
        export.export(model, "onnx", tmp_path, layout="upscayl")
    with pytest.raises(UsageError, match="has the mean"):
        export.export(replace(model, mean=(0.5, 0.5, 0.5)), "spandrel", tmp_path)
    (tmp_path / "random.onnx").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        export.export(model, "onnx", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        export.export(model, "onnx", tmp_path / "file" / "in")
    monkeypatch.setitem(sys.modules, "ncnn", None)
    with pytest.raises(MissingExtraError, match=r"dsclora\[export\]"):
        export.export(model, "ncnn", tmp_path)
    assert (tmp_path / "random.onnx").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_two_targets_do_not_share_a_file(tmp_path: Path) -> None:
    model = random_model()
    export.export(model, "openvino", tmp_path)
    with pytest.raises(OutputError, match="holds an OpenVINO model"):
        export.export(model, "ncnn", tmp_path, layout="upscayl", overwrite=True)
    export.export(model, "ncnn", tmp_path / "other", layout="upscayl")
    with pytest.raises(OutputError, match="holds an ncnn model"):
        export.export(model, "openvino", tmp_path / "other", overwrite=True)
    assert sorted(path.suffix for path in (tmp_path / "other").iterdir()) == [".bin", ".param"]


def test_what_is_no_number_is_not_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = random_model()
    real = to_onnx.convert

    def spoilt(*arguments: Any, **options: Any) -> Any:
        result = real(*arguments, **options)
        return replace(result, run=lambda picture: np.where(picture[0, 0, 0, 0] == 1, np.nan, result.run(picture)))

    monkeypatch.setattr(to_onnx, "convert", spoilt)
    with pytest.raises(EngineError, match="the picture 'white' becomes NaN"):
        export.export(model, "onnx", tmp_path)
    monkeypatch.setattr(
        to_onnx,
        "convert",
        lambda *a, **o: replace(result := real(*a, **o), run=lambda x: result.run(x) + (x.min() == 1)),
    )
    with pytest.raises(EngineError, match="'white' differs by 255"):  # what is not clipped counts as it is
        export.export(model, "onnx", tmp_path)
    monkeypatch.setattr(to_onnx, "convert", lambda *_, **__: 1 / 0)
    with pytest.raises(EngineError, match="cannot convert it"):
        export.export(model, "onnx", tmp_path)
    assert list(tmp_path.iterdir()) == []
