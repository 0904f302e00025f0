"""SPAN's ONNX graph: its ends, its convs and what precision changes; that it computes SPAN is test_networks'."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto

from dsclora.networks import INPUT, OUTPUT, span_graph
from dsclora.networks.adapter import Range
from dsclora.networks.span import SpanNetwork


def ends(proto: onnx.ModelProto) -> list[tuple[str, int, list[Any]]]:
    """Name, element type and shape of the input and the output."""
    rows = []
    for info in (*proto.graph.input, *proto.graph.output):
        shape = [side.dim_param or side.dim_value for side in info.type.tensor_type.shape.dim]
        rows.append((info.name, info.type.tensor_type.elem_type, shape))
    return rows


def elements(proto: onnx.ModelProto, ending: str) -> dict[str, int]:
    """The element types of the constants whose names end so."""
    return {tensor.name: tensor.data_type for tensor in proto.graph.initializer if tensor.name.endswith(ending)}


@pytest.mark.parametrize(
    ("dtype", "element"),
    [(np.uint8, TensorProto.UINT8), (np.uint16, TensorProto.UINT16), (np.float32, TensorProto.FLOAT)],
)
def test_pictures_of_any_size_and_of_one(model: SpanNetwork, dtype: npt.DTypeLike, element: int) -> None:
    proto = span_graph.build(model, dtype)
    onnx.checker.check_model(proto, full_check=True)
    assert ends(proto) == [
        (INPUT, element, ["batch", 3, "height", "width"]),
        (OUTPUT, element, ["batch", 3, "height_out", "width_out"]),
    ]
    proto = span_graph.build(model, dtype, size=(5, 7))
    onnx.checker.check_model(proto, full_check=True)
    assert ends(proto) == [(INPUT, element, [1, 3, 5, 7]), (OUTPUT, element, [1, 3, 10, 14])]


def test_another_dtype_is_refused(model: SpanNetwork) -> None:
    with pytest.raises(ValueError, match="float64"):
        span_graph.build(model, np.float64)


def test_half_is_between_the_ends(model: SpanNetwork) -> None:
    assert set(elements(span_graph.build(model), ".weight").values()) == {TensorProto.FLOAT}
    half = span_graph.build(model, half=True)
    onnx.checker.check_model(half, full_check=True)
    assert set(elements(half, ".weight").values()) == {TensorProto.FLOAT16}
    assert len(elements(half, ".weight")) == 22
    assert {element for _, element, _ in ends(half)} == {TensorProto.FLOAT}


def test_convs_with_a_range_are_in_int8_and_no_others(model: SpanNetwork) -> None:
    names = ["block_1.c1_r.eval_conv", "conv_cat"]
    channels = {name: model.weights[f"{name}.weight"].shape[1] for name in names}
    ranges = {name: Range(-1.0, 1.0, np.ones(count, np.float32)) for name, count in channels.items()}
    proto = span_graph.build(model, ranges=ranges)
    onnx.checker.check_model(proto, full_check=True)
    kinds = [node.op_type for node in proto.graph.node]
    assert (kinds.count("Conv"), kinds.count("QuantizeLinear"), kinds.count("DequantizeLinear")) == (22, 2, 6)
    assert len(elements(proto, ".weight")) == 20
    assert not {f"{name}.weight" for name in names} & elements(proto, ".weight").keys()
