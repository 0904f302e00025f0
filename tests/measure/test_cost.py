"""Counts against published figures and fvcore's rules; what is not counted is named."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from dsclora.errors import ModelError
from dsclora.measure import cost
from dsclora.measure.cost import Cost, count_cost
from dsclora.networks import open_file, span_graph
from dsclora.networks.adapter import Range
from helpers import ROOT, random_model
from helpers_networks import as_onnx, one_node, onnx_network, span_network


@pytest.mark.parametrize(
    ("scale", "channels", "parameters", "giga"),
    [(4, 26, 130_828, 8.535), (2, 26, 122_368, 7.983), (4, 28, 150_688, 9.834), (4, 48, 426_288, 27.87)],
)
def test_counts_are_the_published_ones(scale: int, channels: int, parameters: int, giga: float) -> None:
    cost = count_cost(span_network("s", scale, channels), 256, 256)
    assert cost.parameters == parameters
    assert cost.macs / 1e9 == pytest.approx(giga, abs=5e-3)
    assert cost.convs == 22
    if (scale, channels) == (4, 26):
        assert cost.activations / 1e6 == pytest.approx(38.93, abs=5e-3)


@pytest.mark.slow
def test_counts_of_the_2025_baseline(shared: Path, tmp_path: Path) -> None:
    """Published: 0.276 M, 16.70 G, 111.12 M activations, 65 convs; fvcore 0.1.5 counts 16,703,470,848."""
    path = tmp_path / "efdn.onnx"
    script = ROOT / "benchmarks" / "efdn.py"
    subprocess.run([sys.executable, script, shared / "weights" / "efdn_ntire2023.pth", path], check=True)
    efdn = open_file(path)
    assert efdn.scale == 4
    assert count_cost(efdn, 256, 256) == Cost(276_192, 16_703_470_848, 111_116_736, 65)


def test_an_onnx_file_counts_as_the_model_it_is_of(tmp_path: Path) -> None:
    foreign = open_file(as_onnx(tmp_path / "x.onnx"))
    assert foreign.scale == 4
    assert count_cost(foreign, 30, 40) == count_cost(span_network(scale=4), 30, 40)


def test_what_is_not_counted_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(4)
    names = [f"block_{b}.c1_r.eval_conv" for b in (1, 2)]
    ranges = {name: Range(-1.0, 1.0, np.ones(6, np.float32)) for name in names}
    (tmp_path / "int8.onnx").write_bytes(span_graph.build(model, ranges=ranges).SerializeToString())
    int8 = open_file(tmp_path / "int8.onnx")
    counted, plain = count_cost(int8, 24, 16), count_cost(span_network(scale=4), 24, 16)
    assert counted == plain
    with pytest.raises(ModelError, match="odd: has a MatMul, whose"):
        count_cost(onnx_network("odd", one_node("MatMul", "input", "input"), 4), 16, 16)
    with pytest.raises(ModelError, match="odd: its shapes cannot be inferred"):
        count_cost(onnx_network("odd", one_node("MatMul", "input", "input"), 4), 24, 16)
    monkeypatch.setattr(cost, "infer_shapes", lambda *_: [])
    loop = one_node("Loop", "input", body=helper.make_graph([], "inner", [], []))
    with pytest.raises(ModelError, match="odd: has a Loop, whose"):
        count_cost(onnx_network("odd", loop, 4), 16, 16)


def test_fvcores_rules_beyond_convs() -> None:
    """`fvcore.nn.flop_count`: `adaptive_avg_pool2d` its input, `upsample_bilinear2d` 4, `_nearest2d` 1 per output."""
    pooled = count_cost(onnx_network("p", one_node("GlobalAveragePool", "input"), 1), 16, 24)
    assert pooled == Cost(0, 3 * 16 * 24, 0, 0)
    for mode, macs in (("linear", 4), ("nearest", 1), ("cubic", 0)):
        resize = one_node("Resize", "input", "", "scales", mode=mode)
        assert count_cost(onnx_network("r", resize, 4), 16, 24).macs == macs * 3 * 64 * 96


def test_shared_weights_are_counted_once_and_stored_shapes_are_of_one_size(tmp_path: Path) -> None:
    proto = onnx.load_from_string(one_node("Conv", "input", "w", output="once", pads=[1, 1, 1, 1]))
    proto.graph.node.append(helper.make_node("Conv", ["once", "w"], ["output"], pads=[1, 1, 1, 1]))
    proto.graph.value_info.append(helper.make_tensor_value_info("once", TensorProto.FLOAT, (1, 3, 100, 100)))
    cost = count_cost(onnx_network("twice", proto.SerializeToString(), 1), 16, 24)
    assert cost == Cost(81, 2 * 81 * 16 * 24, 2 * 3 * 16 * 24, 2)
