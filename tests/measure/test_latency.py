"""Time and memory of every kind of network, and what cannot be measured."""

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from dsclora.engines import Setting
from dsclora.errors import EngineError, ModelError, UsageError
from dsclora.measure import latency, ntire, ntire_submission
from dsclora.networks import Network, open_file, span_graph
from helpers import dsclora_, random_model
from helpers_networks import as_onnx, one_node, onnx_network, span_network


def test_an_engine_that_does_not_open_says_why(tmp_path: Path) -> None:
    broken = span_graph.build(random_model(4), size=(24, 16)).SerializeToString()
    setting = Setting("onnxruntime", threads=1)
    with pytest.raises(EngineError, match=r"^fixed: .*(INVALID_ARGUMENT|invalid dimensions|Got)"):
        latency.measure([onnx_network("fixed", broken, 4)], [(32, 32)], setting, runs=1)


@pytest.mark.slow
def test_every_kind_of_network_is_timed_in_its_runtime(tmp_path: Path) -> None:
    networks: list[Network] = [span_network("ours", 4), open_file(as_onnx(tmp_path / "theirs.onnx"))]
    for engine in ("openvino", "onnxruntime"):
        setting = latency.resolve_runtime(Setting(engine, threads=1), networks)
        latencies = latency.measure(networks, [(24, 32), (9, 7)], setting, runs=2)
        assert latencies.keys() == {(name, size) for name in ("ours", "theirs") for size in ((24, 32), (9, 7))}
        assert all(0 < row.low <= row.milliseconds <= row.high for row in latencies.values())
    assert latency.resolve_runtime(Setting(), networks).engine == "openvino"
    with pytest.raises(UsageError, match="ONNX file"):
        latency.resolve_runtime(Setting("torch"), networks)
    with pytest.raises(UsageError, match="on the CPU only"):
        latency.resolve_runtime(Setting(device="cuda"), networks)


def test_bad_input_is_one_line(model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"no network")
    with pytest.raises(ModelError, match="not an ONNX network"):
        open_file(tmp_path / "no.onnx")
    flat = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "flat",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, "h", "w"])],
    )
    onnx.save(helper.make_model(flat), tmp_path / "flat.onnx")
    assert open_file(tmp_path / "flat.onnx").scale == 1
    with pytest.raises(UsageError, match="enlarges 2 times"):
        ntire.compete(ntire.PRESETS["ntire2025"], span_network(), [], [], Setting())
    odd = onnx_network("resize", one_node("Resize", "input", "", "scales", mode="nearest"), 4)
    with pytest.raises(UsageError, match="resize: a baseline without parameters"):
        ntire.compete(ntire.PRESETS["ntire2025"], odd, [], [], Setting())
    with pytest.raises(UsageError, match="Python module's"):
        ntire_submission.submit(random_model(4), tmp_path, 1, "a b")
    with pytest.raises(EngineError):
        latency.resolve_runtime(Setting("native", precision="bf16"), [span_network()])
    (tmp_path / "empty").mkdir()
    preset = ("--preset", "ntire2026", "--baseline", "span-x4")
    late = dsclora_("profile", "-m", "span-x2", "--submission", tmp_path / "entry", code=2)
    assert "the challenge is x4" in late.stderr
    assert "ms" not in late.stdout, "said before anything is measured"
    assert "--size" in dsclora_("profile", tmp_path / "empty", *preset, "--size", "9x9", code=2).stderr
    two = ("-m", "span-x4", "-m", "span-x2", "--adapter", "span-x4-docs")
    assert "goes with one model" in dsclora_("profile", *two, code=2).stderr
    assert "go together" in dsclora_("profile", tmp_path / "empty", code=2).stderr
    assert "no pictures" in dsclora_("profile", tmp_path / "empty", *preset, "-m", "span-x4-wide", code=1).stderr
    assert "are called random" in dsclora_("profile", "-m", model_file, "-m", model_file, code=2).stderr
    assert "takes WIDTHxHEIGHT" in dsclora_("profile", "--size", "large", code=2).stderr
