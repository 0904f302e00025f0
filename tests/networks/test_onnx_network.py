"""Networks of ONNX files: hashes tell content, weights are replaced, integers go in and out."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from dsclora.engines import Setting
from dsclora.engines.choice import open_engine
from dsclora.errors import ModelError
from dsclora.networks import onnx_network
from helpers import photo, random_model
from helpers_networks import as_onnx, one_node


def test_hashes_tell_content_and_not_how_it_is_stored(tmp_path: Path) -> None:
    network = onnx_network.read(as_onnx(tmp_path / "a.onnx"))
    assert (network.scale, network.name, network.halo) == (4, "a", None)
    proto = onnx.load_from_string(network.content)
    for tensor in proto.graph.initializer:  # a list of numbers, no longer raw bytes
        value = numpy_helper.to_array(tensor)
        tensor.CopyFrom(helper.make_tensor(tensor.name, tensor.data_type, value.shape, value.ravel().tolist()))
    onnx.save(proto, tmp_path / "b.onnx")
    other = onnx_network.read(tmp_path / "b.onnx")
    assert other.content != network.content
    assert (other.sha256, other.fingerprint) == (network.sha256, network.fingerprint)


def test_weights_are_replaced(tmp_path: Path) -> None:
    network = onnx_network.read(as_onnx(tmp_path / "a.onnx"))
    name = "upsampler.0.bias"
    assert np.array_equal(network.weights[name], random_model(4).weights[name])
    moved = network.with_weights({name: network.weights[name] + np.float32(1)}, name="moved", license="MIT")
    assert np.array_equal(moved.weights[name], network.weights[name] + np.float32(1))
    assert (moved.name, moved.license, moved.scale) == ("moved", "MIT", 4)
    assert moved.fingerprint != network.fingerprint
    assert {key for key in network.weights if not np.array_equal(moved.weights[key], network.weights[key])} == {name}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_integers_are_converted_and_rounded_around_the_file(dtype: type[np.unsignedinteger], tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    network = onnx_network.read(as_onnx(tmp_path / "a.onnx"))
    engine = open_engine(network, Setting("onnxruntime", threads=1))
    batch, peak = photo(9, 11, dtype=dtype).transpose(2, 0, 1)[None], np.iinfo(dtype).max
    large = engine(batch)
    assert large.dtype == dtype
    assert np.abs(large / peak - engine((batch / peak).astype(np.float32))).max() <= 0.51 / peak + 1e-5


def test_names_of_the_file_make_room(tmp_path: Path) -> None:
    """A file whose input is called `output`, and its output `input`."""
    proto = onnx.load_from_string(one_node("Resize", "input", "", "scales", mode="nearest"))
    swapped = {"input": "output", "output": "input"}
    for ends in (proto.graph.node[0].input, proto.graph.node[0].output):
        ends[:] = [swapped.get(name, name) for name in ends]
    for info in (*proto.graph.input, *proto.graph.output):
        info.name = swapped[info.name]
    onnx.save(proto, tmp_path / "swapped.onnx")
    wrapped = onnx_network.read(tmp_path / "swapped.onnx").to_onnx(np.uint8, size=(5, 6))
    onnx.checker.check_model(wrapped, full_check=True)
    assert [info.name for info in (*wrapped.graph.input, *wrapped.graph.output)] == ["input", "output"]
    assert onnx_network.sides(wrapped.graph.output[0]) == [1, 3, 20, 24]


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    proto = onnx.load(as_onnx(tmp_path / "old.onnx"))
    proto.opset_import[0].version = onnx_network.OLDEST_OPSET - 1
    onnx.save(proto, tmp_path / "old.onnx")
    with pytest.raises(ModelError, match=r"old\.onnx: .*opset 10 is older"):
        onnx_network.read(tmp_path / "old.onnx")
    (tmp_path / "flat.onnx").write_bytes(one_node("GlobalAveragePool", "input"))
    with pytest.raises(ModelError, match=r"flat\.onnx: .*not an enlargement"):
        onnx_network.read(tmp_path / "flat.onnx")
    network = onnx_network.read(as_onnx(tmp_path / "a.onnx"))
    with pytest.raises(ModelError, match=r"^a: .*fp16"):
        network.to_onnx(half=True)
    with pytest.raises(ModelError, match=r"^a: "):
        network.to_torch()
    with pytest.raises(ValueError, match="float64"):
        network.to_onnx(np.float64)
