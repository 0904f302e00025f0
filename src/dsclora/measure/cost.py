"""Count what a network costs: parameters, multiply-adds, activations and convs.

Counts follow fvcore, which the NTIRE challenges use: a conv costs `outputs * inputs / groups * k * k` multiply-adds
(MACs; the challenges' tables call them FLOPs, although a multiply-add is two), a bilinear resize four per output
element, a nearest one one, global pooling one per input element, biases, other resizes and everything pointwise
nothing; activations are the elements that convs put out. Weights that several convs share are counted once.
"""

from dataclasses import dataclass

import numpy as np

from dsclora.errors import ModelError
from dsclora.networks import Network, check_size
from dsclora.networks.onnx_network import infer_shapes, sides

_UNCOUNTED = (
    *("ConvTranspose", "ConvInteger", "QLinearConv", "DeformConv", "GridSample"),
    *("MatMul", "MatMulInteger", "QLinearMatMul", "Gemm", "Einsum", "Attention", "LSTM", "GRU", "RNN"),
    *("BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization"),
)

_RESIZES = {"linear": 4, "nearest": 1}  # multiply-adds per output element


@dataclass(frozen=True)
class Cost:
    """The cost of one picture of a size.

    Attributes:
        parameters: weights and biases of convs, slopes of PReLUs.
        macs: multiply-adds.
        activations: elements put out by convs.
        convs: the number of convs.
    """

    parameters: int
    macs: int
    activations: int
    convs: int


def count_cost(network: Network, height: int, width: int) -> Cost:
    """Count the cost of one picture, by the rules above.

    Raises:
        UsageError: the network does not take that size.
        ModelError: arithmetic or sizes that are not counted here.
    """
    check_size(network, height, width)
    proto = network.to_onnx()
    shapes = {tensor.name: list(tensor.dims) for tensor in proto.graph.initializer}
    try:
        for info in infer_shapes(proto, height, width):
            shapes[info.name] = sides(info)
    except Exception as error:  # onnx has no common type of error here
        raise ModelError(f"{network.name}: its shapes cannot be inferred ({error})") from error

    def size(name: str) -> int:
        if not shapes.get(name) or 0 in shapes[name]:
            raise ModelError(f"{network.name}: the size of {name!r} is not known before it runs; it cannot be counted")
        return int(np.prod(shapes[name]))

    macs = activations = convs = 0
    weighted = set[str]()
    inner = {function.name for function in proto.functions}
    for node in proto.graph.node:
        branches = any(a.type in (a.GRAPH, a.GRAPHS) for a in node.attribute)  # of If, Loop, Scan
        if node.op_type in _UNCOUNTED or branches or node.op_type in inner:
            raise ModelError(f"{network.name}: has a {node.op_type}, whose arithmetic is not counted here")
        if node.op_type == "Conv":
            outputs = size(node.output[0])
            macs += outputs * (size(node.input[1]) // shapes[node.input[1]][0])
            activations, convs = activations + outputs, convs + 1
        if node.op_type == "Resize":
            mode = next((a.s.decode() for a in node.attribute if a.name == "mode"), "nearest")
            macs += size(node.output[0]) * _RESIZES.get(mode, 0)
        if node.op_type == "GlobalAveragePool":
            macs += size(node.input[0])
        if node.op_type in ("Conv", "PRelu"):
            weighted.update(name for name in node.input[1:] if name)
    return Cost(sum(map(size, weighted)), macs, activations, convs)
