"""Count what a network costs: parameters, multiply-adds, activations and convs.

Counts follow fvcore, which the NTIRE challenges use: a conv costs `outputs * inputs / groups * k * k` multiply-adds
(MACs; the challenges' tables call them FLOPs, although a multiply-add is two), a bilinear resize four per output
element, a nearest one one, global pooling one per input element, biases, other resizes and everything pointwise
nothing; activations are the elements that convs put out. Weights that several convs share are counted once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from dsclora import zoo
from dsclora.errors import ModelError
from dsclora.networks import span_graph, span_import
from dsclora.networks.span import SpanNetwork

_UNCOUNTED = (
    *("ConvTranspose", "ConvInteger", "QLinearConv", "DeformConv", "GridSample"),
    *("MatMul", "MatMulInteger", "QLinearMatMul", "Gemm", "Einsum", "Attention", "LSTM", "GRU", "RNN"),
    *("BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization"),
)

_RESIZES = {"linear": 4, "nearest": 1}  # multiply-adds per output element


@dataclass(frozen=True)
class Subject:
    """A network to be measured.

    Attributes:
        name: for the table.
        network: a SPAN, or any network of an ONNX file: one float32 input (batch, 3, height, width), RGB in 0..1.
        scale: factor.
    """

    name: str
    network: SpanNetwork | bytes
    scale: int


@dataclass(frozen=True)
class Cost:
    """Counted for one picture of a size.

    Attributes:
        parameters: weights and biases of convs, slopes of PReLUs.
        macs: multiply-adds.
        activations: elements put out by convs.
        convs: how many.
    """

    parameters: int
    macs: int
    activations: int
    convs: int


def load_subject(name: str) -> Subject:
    """A bundled model, or a file: ours, anybody's SPAN (`.pth`, `.safetensors`), or ONNX.

    Raises:
        ModelError: none of these.
    """
    path = Path(name)
    if path.suffix.lower() == ".onnx":
        try:
            content = path.read_bytes()
            shape = _sides(_inferred(onnx.load_from_string(content), 16, 24)[-1])
        except OSError as error:
            raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
        except Exception as error:  # onnx and protobuf have no common type for damage
            raise ModelError(f"{path}: not an ONNX network that can be measured ({error})") from error
        if len(shape) != 4 or shape[1] != 3 or not shape[2] or shape[2] % 16:
            raise ModelError(f"{path}: makes {shape} of a picture of 24 x 16; not an enlargement")
        return Subject(path.stem, content, shape[2] // 16)
    model = span_import.import_file(path) if path.is_file() else zoo.load(name)
    return Subject(model.name, model, model.scale)


def count_cost(subject: Subject, height: int, width: int) -> Cost:
    """Count by the rules above, for one picture.

    Raises:
        ModelError: arithmetic or sizes that are not counted here.
    """
    proto = _proto(subject)
    shapes = {tensor.name: list(tensor.dims) for tensor in proto.graph.initializer}
    try:
        for info in _inferred(proto, height, width):
            shapes[info.name] = _sides(info)
    except Exception as error:  # onnx has no common type for what it cannot infer
        raise ModelError(f"{subject.name}: its shapes cannot be told ({error})") from error

    def size(name: str) -> int:
        if not shapes.get(name) or 0 in shapes[name]:
            raise ModelError(f"{subject.name}: the size of {name!r} is not known before it runs; it cannot be counted")
        return int(np.prod(shapes[name]))

    macs = activations = convs = 0
    weighted = set[str]()
    inner = {function.name for function in proto.functions}
    for node in proto.graph.node:
        branches = any(a.type in (a.GRAPH, a.GRAPHS) for a in node.attribute)  # of If, Loop, Scan
        if node.op_type in _UNCOUNTED or branches or node.op_type in inner:
            raise ModelError(f"{subject.name}: has a {node.op_type}, whose arithmetic is not counted here")
        if node.op_type == "Conv":
            made = size(node.output[0])
            macs += made * (size(node.input[1]) // shapes[node.input[1]][0])
            activations, convs = activations + made, convs + 1
        if node.op_type == "Resize":
            mode = next((a.s.decode() for a in node.attribute if a.name == "mode"), "nearest")
            macs += size(node.output[0]) * _RESIZES.get(mode, 0)
        if node.op_type == "GlobalAveragePool":
            macs += size(node.input[0])
        if node.op_type in ("Conv", "PRelu"):
            weighted.update(name for name in node.input[1:] if name)
    return Cost(sum(map(size, weighted)), macs, activations, convs)


def _proto(subject: Subject) -> onnx.ModelProto:
    network = subject.network
    return span_graph.build(network) if isinstance(network, SpanNetwork) else onnx.load_from_string(network)


def _inferred(proto: onnx.ModelProto, height: int, width: int) -> list[Any]:
    """Every value of the graph with its shape for one picture of a size; the output is the last."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(proto)
    (given,) = [i for i in fixed.graph.input if i.name not in {t.name for t in fixed.graph.initializer}]
    for dimension, size in zip(given.type.tensor_type.shape.dim, (1, 3, height, width), strict=True):
        dimension.dim_value = size
    fixed.graph.ClearField("value_info")  # exporters leave the shapes of their own size
    for made in fixed.graph.output:
        made.type.tensor_type.ClearField("shape")
    fixed = onnx.shape_inference.infer_shapes(fixed, check_type=True, strict_mode=True, data_prop=True)
    return [given, *fixed.graph.value_info, *fixed.graph.output]


def _sides(info: onnx.ValueInfoProto) -> list[int]:
    """Of a value of a graph; 0 where one is not known."""
    return [dimension.dim_value for dimension in info.type.tensor_type.shape.dim]
