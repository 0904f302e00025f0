"""The ONNX definition of SPAN, which OpenVINO and ONNX Runtime run and exports ship."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from dsclora.networks import INPUT, OUTPUT
from dsclora.networks.adapter import WEIGHT_LEVELS, Range
from dsclora.networks.span import BLOCKS, SpanNetwork

OPSET = 17


def build(
    model: SpanNetwork,
    dtype: npt.DTypeLike = np.float32,
    *,
    half: bool = False,
    size: tuple[int, int] | None = None,
    ranges: Mapping[str, Range] | None = None,
) -> onnx.ModelProto:
    """Build the network as ONNX, normalisation, clipping and conversion included.

    Args:
        model: plain weights.
        dtype: the type of input and output. float32: RGB in 0..1. uint8, uint16: RGB in 0..255 or 0..65535,
            converted and rounded (half to even) inside, so that runtimes move integers.
        half: compute in fp16, from the first conv to the pixel shuffle, with weights in fp16.
        ranges: the input range of each conv that is computed in int8, by conv; QuantizeLinear and DequantizeLinear go
            around it ("QDQ"), which runtimes fuse.
        size: (height, width) of the only input that it takes, in a batch of 1; by default any.

    Returns:
        a model that maps `input` (batch, 3, height, width) to `output` (batch, 3, height * scale, width * scale); all
        axes but the second are dynamic unless `size` fixes them.

    Raises:
        ValueError: another dtype.
    """
    dtype = np.dtype(dtype)
    elements = {np.uint8: TensorProto.UINT8, np.uint16: TensorProto.UINT16, np.float32: TensorProto.FLOAT}
    if dtype.type not in elements:
        raise ValueError(f"dtype must be uint8, uint16 or float32, got {dtype}")
    element, integers = elements[dtype.type], dtype.kind == "u"
    peak = float(np.iinfo(dtype).max) if integers else 1.0
    graph = Builder(ranges or {})

    x = graph.node("Cast", [INPUT], to=TensorProto.FLOAT) if integers else INPUT
    # (x / peak - mean) * range
    x = graph.node("Sub", [x, graph.constant(np.array(model.mean).reshape(1, 3, 1, 1) * peak)])
    if model.range != peak:
        x = graph.node("Mul", [x, graph.constant(np.array(model.range / peak))])

    if half:
        x, graph.dtype = graph.node("Cast", [x], to=TensorProto.FLOAT16), np.dtype(np.float16)
    x = _body(graph, x, model)
    if half:
        x, graph.dtype = graph.node("Cast", [x], to=TensorProto.FLOAT), np.dtype(np.float32)
    if integers:
        x = graph.node("Round", [graph.node("Mul", [x, graph.constant(np.array(peak))])])
    x = graph.node("Clip", [x, graph.constant(np.array(0.0)), graph.constant(np.array(peak))])
    if integers:
        x = graph.node("Cast", [x], to=element)
    graph.nodes[-1].output[0] = OUTPUT

    return _model(graph, model, element, size)


def _body(graph: "Builder", x: str, model: SpanNetwork) -> str:
    """Add the nodes between normalised pixels and enlarged ones: all convs, and the pixel shuffle."""
    weights = model.weights
    first = graph.conv(x, weights, "conv_1.eval_conv")
    x, depths = first, []
    for block in range(1, BLOCKS + 1):
        inner = graph.silu(graph.conv(x, weights, f"block_{block}.c1_r.eval_conv"))
        o3 = graph.silu(graph.conv(inner, weights, f"block_{block}.c2_r.eval_conv"))
        o3 = graph.conv(o3, weights, f"block_{block}.c3_r.eval_conv")
        gate = graph.node("Sub", [graph.node("Sigmoid", [o3]), graph.constant(np.array(0.5))])
        x = graph.node("Mul", [graph.node("Add", [o3, x]), gate])
        depths.append(x)
    deep = graph.conv(x, weights, "conv_2.eval_conv")
    x = graph.node("Concat", [first, deep, depths[0], inner], axis=1)
    x = graph.conv(graph.conv(x, weights, "conv_cat"), weights, "upsampler.0")
    return graph.node("DepthToSpace", [x], blocksize=model.scale, mode="CRD")


def _model(graph: "Builder", model: SpanNetwork, element: int, size: tuple[int, int] | None) -> onnx.ModelProto:
    """Make the ONNX model of a finished graph, for pictures of one size or of any."""
    before: list[str | int | None] = ["batch", 3, "height", "width"]
    after: list[str | int | None] = ["batch", 3, "height_out", "width_out"]
    if size is not None:
        before, after = [1, 3, *size], [1, 3, *(side * model.scale for side in size)]
    proto = helper.make_graph(
        graph.nodes,
        f"span_x{model.scale}_ch{model.channels}",
        [helper.make_tensor_value_info(INPUT, element, before)],
        [helper.make_tensor_value_info(OUTPUT, element, after)],
        graph.initializers,
    )
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(proto, opset_imports=[opset], ir_version=8, producer_name="dsclora")


class Builder:
    """A graph under construction: its nodes and constants, in the order in which they are added."""

    def __init__(self, ranges: Mapping[str, Range] | None = None) -> None:
        self._ranges = ranges or {}
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.dtype: np.dtype[Any] = np.dtype(np.float32)  # the type of the constants that are added next

    def node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        output = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, value: npt.NDArray[Any], name: str = "") -> str:
        """Add an initializer and return its name."""
        name = name or f"constant_{len(self.initializers)}"
        self.initializers.append(
            numpy_helper.from_array(np.ascontiguousarray(value, self.dtype).reshape(value.shape), name)
        )
        return name

    def conv(self, x: str, tensors: Mapping[str, npt.NDArray[Any]], prefix: str, stride: int = 1) -> str:
        """Add a conv: padded to the size of its input, or with a stride and no padding."""
        if prefix in self._ranges:
            x, names = self._in_int8(x, tensors, prefix)
        else:
            names = [self.constant(tensors[f"{prefix}.{kind}"], f"{prefix}.{kind}") for kind in ("weight", "bias")]
        side = tensors[f"{prefix}.weight"].shape[2]
        pad = side // 2 if stride == 1 else 0
        return self.node("Conv", [x, *names], kernel_shape=[side, side], pads=[pad] * 4, strides=[stride] * 2)

    def _in_int8(self, x: str, tensors: Mapping[str, npt.NDArray[Any]], prefix: str) -> tuple[str, list[str]]:
        """Add a conv's input, weight and bias; the first two rounded as `fake_quant.QuantizedConv` rounds them.

        The bias becomes int32 multiples of the products' step, as runtimes expect it: exact to half a step.
        """
        bounds = self._ranges[prefix]
        if (bounds.divisor != 1).any():
            x = self.node("Mul", [x, self.constant(1 / bounds.divisor.reshape(1, -1, 1, 1))])
        scale = self.constant(np.array(bounds.scale))
        zero = self._integers(np.array(bounds.zero_point, np.uint8))
        x = self.node("DequantizeLinear", [self.node("QuantizeLinear", [x, scale, zero]), scale, zero])
        weight = tensors[f"{prefix}.weight"].astype(np.float64) * bounds.divisor.reshape(1, -1, 1, 1)
        bias = tensors[f"{prefix}.bias"].astype(np.float64)
        steps = np.maximum(np.abs(weight).max((1, 2, 3)) / WEIGHT_LEVELS, 1e-12)
        steps = np.maximum(steps, np.abs(bias) / bounds.scale / 2**30)  # the bias must not overflow int32
        levels = np.rint(weight / steps.reshape(-1, 1, 1, 1)).astype(np.int8)
        sums = np.rint(bias / (steps * bounds.scale)).astype(np.int32)  # in the products' step
        names = []
        for integers, step in ((levels, steps), (sums, steps * bounds.scale)):
            each = [self._integers(integers), self.constant(step)]
            names.append(self.node("DequantizeLinear", each, axis=0))
        return x, names

    def _integers(self, value: npt.NDArray[Any]) -> str:
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(value, name))
        return name

    def silu(self, x: str) -> str:
        """Add `x * sigmoid(x)`."""
        return self.node("Mul", [x, self.node("Sigmoid", [x])])
