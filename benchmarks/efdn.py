"""EFDN, the baseline of the NTIRE 2025 efficient-SR challenge, from its weights to ONNX, for `dsclora profile`.

python benchmarks/efdn.py efdn.pth efdn.onnx

Edge-enhanced Feature Distillation Network (Wang, CVPRW 2022, arXiv 2204.08759), deployed form: four cells of a 1x1 and
two 3x3 convs whose stages are distilled by 1x1 convs and fused, each with enhanced spatial attention (RFDN's).
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from dsclora.networks import INPUT, OUTPUT
from dsclora.networks.span_graph import OPSET, Builder

Tensors = Mapping[str, npt.NDArray[Any]]
SCALE = 4


def build(tensors: Tensors) -> onnx.ModelProto:
    """The network as ONNX: float32 RGB in 0..1, (batch, 3, height, width) to 4 times that, not clipped."""
    graph = Builder()
    head = graph.conv(INPUT, tensors, "head")
    first = cell(graph, head, tensors, 0)
    second = cell(graph, first, tensors, 1)
    x = joined(graph, [first, second], tensors, "local_fuse.0")
    third = cell(graph, x, tensors, 2)
    x = joined(graph, [second, third], tensors, "local_fuse.1")
    fourth = cell(graph, x, tensors, 3)
    x = joined(graph, [second, fourth], tensors, "local_fuse.2")
    x = graph.conv(graph.node("Add", [x, head]), tensors, "tail.0")
    graph.node("DepthToSpace", [x], blocksize=SCALE, mode="CRD")
    graph.nodes[-1].output[0] = OUTPUT
    given: list[str | int | None] = ["batch", 3, "height", "width"]
    made: list[str | int | None] = ["batch", 3, "height_out", "width_out"]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in ((INPUT, given), (OUTPUT, made))
    ]
    proto = helper.make_graph(graph.nodes, "efdn", ends[:1], ends[1:], graph.initializers)
    return helper.make_model(proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def cell(graph: Builder, x: str, tensors: Tensors, number: int) -> str:
    """A block: three convs in a row, what each is given and makes distilled and fused, attention, skip."""
    name = f"cells.{number}"
    stages = [x]
    for conv in ("conv1.conv1x1", "conv2.rep_conv", "conv3.rep_conv"):
        made = graph.conv(stages[-1], tensors, f"{name}.{conv}")
        key = f"{name}.{conv.split('.')[0]}.act.weight"
        stages.append(graph.node("PRelu", [made, graph.constant(tensors[key].reshape(-1, 1, 1), key)]))
    distilled = [graph.conv(stage, tensors, f"{name}.branch.{i}") for i, stage in enumerate(stages)]
    fused = joined(graph, distilled, tensors, f"{name}.fuse")
    return graph.node("Add", [attended(graph, fused, tensors, f"{name}.att"), x])


def attended(graph: Builder, x: str, tensors: Tensors, name: str) -> str:
    """Enhanced spatial attention: a mask from a reduced, pooled, convolved and enlarged view."""
    reduced = graph.conv(x, tensors, f"{name}.conv1")
    y = graph.conv(reduced, tensors, f"{name}.conv2", stride=2)
    y = graph.node("MaxPool", [y], kernel_shape=[7, 7], strides=[3, 3])
    for conv in ("conv_max", "conv3"):
        y = graph.node("Relu", [graph.conv(y, tensors, f"{name}.{conv}")])
    y = graph.conv(y, tensors, f"{name}.conv3_")
    skip = graph.conv(reduced, tensors, f"{name}.conv_f")
    y = graph.node("Resize", [y, "", "", graph.node("Shape", [skip])], mode="linear")
    mask = graph.node("Sigmoid", [graph.conv(graph.node("Add", [y, skip]), tensors, f"{name}.conv4")])
    return graph.node("Mul", [x, mask])


def joined(graph: Builder, parts: list[str], tensors: Tensors, name: str) -> str:
    """A 1x1 conv of what is put side by side."""
    return graph.conv(graph.node("Concat", parts, axis=1), tensors, name)


def read(path: Path) -> Tensors:
    """Its tensors from a `.pth`."""
    import torch

    return {k: np.asarray(v.numpy()) for k, v in torch.load(path, map_location="cpu", weights_only=True).items()}


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(build(read(Path(sys.argv[1]))).SerializeToString())
