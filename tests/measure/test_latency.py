"""Counts against published figures, scores against hand arithmetic, measurements and a submission that run."""

import errno
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dsclora import zoo
from dsclora.engines import Setting
from dsclora.engines.choice import open_engine
from dsclora.errors import EngineError, ModelError, OutputError, UsageError
from dsclora.measure import cost, latency, ntire, ntire_submission
from dsclora.measure.cost import Cost, count_cost
from dsclora.networks import Network, open_file, span_graph
from dsclora.networks.adapter import Range
from dsclora.networks.onnx_network import OnnxNetwork
from dsclora.networks.span import SpanNetwork
from helpers import ROOT, dsclora_, parsed, photo, random_model, save


def span_network(name: str = "random", scale: int = 2, channels: int = 6) -> SpanNetwork:
    return replace(random_model(scale, channels), name=name)


def onnx_network(name: str, content: bytes, scale: int) -> OnnxNetwork:
    return OnnxNetwork(content, scale, name=name)


def one_node(kind: str, *inputs: str, output: str = "output", **attributes: Any) -> bytes:
    """One node on a picture of any size; `w` are the weights of a 3 x 3 conv, `scales` enlarge four times."""
    weights = [
        numpy_helper.from_array(np.ones((3, 3, 3, 3), np.float32), "w"),
        numpy_helper.from_array(np.array([1, 1, 4, 4], np.float32), "scales"),
    ]
    sides = {name: (TensorProto.FLOAT, (1, 3, f"h_{name}", f"w_{name}")) for name in ("input", "output")}
    values = {name: helper.make_tensor_value_info(name, *sides[name]) for name in sides}
    node = helper.make_node(kind, inputs, [output], **attributes)
    made = helper.make_graph([node], "one", [values["input"]], [values["output"]], weights)
    return bytes(helper.make_model(made).SerializeToString())


def as_onnx(path: Path, scale: int = 4) -> Path:
    path.write_bytes(span_graph.build(random_model(scale)).SerializeToString())
    return path


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


def test_an_engine_that_does_not_open_says_why(tmp_path: Path) -> None:
    broken = span_graph.build(random_model(4), size=(24, 16)).SerializeToString()
    setting = Setting("onnxruntime", threads=1)
    with pytest.raises(EngineError, match=r"^fixed: .*(INVALID_ARGUMENT|invalid dimensions|Got)"):
        latency.measure([onnx_network("fixed", broken, 4)], [(32, 32)], setting, runs=1)


def test_every_kind_of_network_is_timed_in_its_runtime(tmp_path: Path) -> None:
    networks: list[Network] = [span_network("ours", 4), open_file(as_onnx(tmp_path / "theirs.onnx"))]
    for engine in ("openvino", "onnxruntime"):
        setting = latency.resolve_runtime(Setting(engine, threads=1), networks)
        made = latency.measure(networks, [(24, 32), (9, 7)], setting, runs=2)
        assert made.keys() == {(name, size) for name in ("ours", "theirs") for size in ((24, 32), (9, 7))}
        assert all(0 < row.low <= row.milliseconds <= row.high for row in made.values())
    assert latency.resolve_runtime(Setting(), networks).engine == "openvino"
    with pytest.raises(UsageError, match="ONNX file"):
        latency.resolve_runtime(Setting("torch"), networks)
    with pytest.raises(UsageError, match="on the CPU only"):
        latency.resolve_runtime(Setting(device="cuda"), networks)


def test_the_score_by_hand() -> None:
    baseline = {"runtime": 10.0, "macs": 100.0, "parameters": 1000.0}
    values = {"runtime": 5.0, "macs": 100.0, "parameters": 2000.0}
    scores = ntire.PRESETS["ntire2025"].scores(values, baseline)
    assert scores["final"] == pytest.approx(0.7 * math.e + 0.15 * math.e**2 + 0.15 * math.e**4)
    assert ntire.PRESETS["ntire2026"].scores(baseline, baseline)["final"] == pytest.approx(math.e**2)
    published = {"runtime": 16.69, "macs": 16.70, "parameters": 0.276}  # ms, G, M: EFDN's and the winner's
    winner = ntire.PRESETS["ntire2025"].scores({"runtime": 9.99, "macs": 8.54, "parameters": 0.131}, published)
    assert winner["final"] == pytest.approx(0.7 * 3.31 + 0.15 * 2.78 + 0.15 * 2.58, abs=0.01)


def test_the_challenge_over_a_folder(tmp_path: Path) -> None:
    for number in range(2):
        save(tmp_path / "set" / "HR" / f"{number}.png", photo(48, 64, seed=number))
        save(tmp_path / "set" / "LRx4" / f"{number}.png", photo(48, 64, seed=number)[::4, ::4])
    baseline, model = as_onnx(tmp_path / "base.onnx"), tmp_path / "sub"
    arguments = ("profile", tmp_path / "set", "--preset", "ntire2025", "--baseline", baseline, "--runs", 1)
    facts = parsed(dsclora_(*arguments, "--model", "span-x4", "--threads", 1, "--json"))
    assert [row["name"] for row in facts["models"]] == ["base", "span-x4"]
    assert facts["models"][0]["scores"]["final"] == pytest.approx(math.e**2)
    assert facts["models"][1]["macs"] == 8_535_015_424
    assert facts["engine"] == "openvino"
    text = dsclora_(*arguments, "--submission", model, "--team", 7, "--name", "Ours", "--threads", 1).stdout
    assert "26.90" in text
    assert "2 pictures" in text
    code = (
        "import sys, numpy, torch\n"
        f"sys.path.insert(0, {str(model)!r})\n"
        "from models.team07_Ours import Net\n"
        "net = Net()\n"
        f"net.load_state_dict(torch.load({str(model / 'model_zoo' / 'team07_Ours.pth')!r}), strict=True)\n"
        f"lr = torch.from_numpy(numpy.load({str(tmp_path / 'lr.npy')!r}))\n"
        f"numpy.save({str(tmp_path / 'sr.npy')!r}, net(lr).detach().clamp(0, 1).numpy())\n"
    )
    lr = photo(20, 30).transpose(2, 0, 1)[None].astype(np.float32) / 255
    np.save(tmp_path / "lr.npy", lr)
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=tmp_path)
    wanted = open_engine(zoo.load("span-x4"))(lr)
    np.testing.assert_allclose(np.load(tmp_path / "sr.npy"), wanted, atol=2e-4)


def test_a_submission_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"team01_Ours\.pth: cannot be written \(No space left on device\)"):
        ntire_submission.submit(random_model(4), tmp_path / "entry", 1, "Ours")
    assert not [path for path in (tmp_path / "entry").rglob("*") if path.is_file()]


def test_command_line(model_file: Path, tmp_path: Path) -> None:
    facts = parsed(dsclora_("profile", "--model", model_file, "--size", "24x16", "--runs", 2, "--json"))
    assert facts["latency_ms"] > 0
    assert {"parameters", "macs", "activations", "convs"} <= facts.keys()
    assert facts["flops"] == 2 * facts["macs"]
    text = dsclora_(
        "profile", "-m", model_file, "-m", "span-x2", "--size", "16x16", "--size", "24x16", "--runs", 1
    ).stdout
    assert text.count("random") == 2
    assert text.count("span-x2") == 2


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
