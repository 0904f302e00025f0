"""Networks of tests: SPAN, ONNX files, and a second architecture, so that two prove the seam `networks.Network`."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from dsclora.errors import ModelError
from dsclora.networks import INPUT, OUTPUT, Float32
from dsclora.networks.onnx_network import OnnxNetwork
from dsclora.networks.span import SpanNetwork
from dsclora.networks.span_graph import OPSET, Builder, build
from dsclora.networks.tensor_file import hash_tensors
from helpers import random_model

MULTIPLE = 4
FEATURES = 5
CUBIC = -0.75
"""The free coefficient of the cubic kernel, as PyTorch's `interpolate` has it."""


@dataclass(frozen=True)
class TinyNetwork:
    """Bicubic enlargement plus `tail(relu(head(x)))`, pixel-shuffled; refuses sides that do not divide by 4.

    Attributes:
        weights: `head.weight` (5, 3, 3, 3), `head.bias`, `tail.weight` (3 * scale * scale, 5, 3, 3), `tail.bias`.
        scale: the factor that it enlarges by.
        global_mean: subtract the mean of the whole picture before the convs, so that the network sees everything.
        training, license, name: as `networks.Network`.
    """

    weights: Mapping[str, Float32]
    scale: int
    global_mean: bool = False
    training: Mapping[str, Any] = field(default_factory=dict)
    license: str = "CC0-1.0"
    name: str = "tiny"

    @property
    def architecture(self) -> str:
        return "tiny"

    @property
    def halo(self) -> int | None:
        """Two 3x3 convs see 2 pixels far, and so does the cubic kernel."""
        return None if self.global_mean else 2

    @property
    def multiple(self) -> int:
        return MULTIPLE

    @property
    def parameters(self) -> int:
        return sum(value.size for value in self.weights.values())

    @property
    def sha256(self) -> str:
        return hash_tensors(self.weights)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.sha256} {self.scale} {self.global_mean}".encode()).hexdigest()

    def with_weights(
        self,
        weights: Mapping[str, Float32],
        *,
        name: str | None = None,
        training: Mapping[str, Any] | None = None,
        license: str | None = None,
    ) -> Self:
        return replace(
            self,
            weights=weights,
            name=self.name if name is None else name,
            training=self.training if training is None else training,
            license=self.license if license is None else license,
        )

    def scaled_for_fp16(self) -> Self:
        return self

    def to_onnx(
        self,
        dtype: npt.DTypeLike = np.float32,
        *,
        half: bool = False,
        size: tuple[int, int] | None = None,
        ranges: Mapping[str, Any] | None = None,
    ) -> onnx.ModelProto:
        if half or ranges:
            raise ModelError(f"{self.name}: has no {'fp16' if half else 'int8'} form")
        dtype = np.dtype(dtype)
        element = helper.np_dtype_to_tensor_dtype(dtype)
        peak = float(np.iinfo(dtype).max) if dtype.kind == "u" else 1.0
        graph = Builder()
        x = graph.node("Cast", [INPUT], to=TensorProto.FLOAT)
        x = graph.node("Div", [x, graph.constant(np.array(peak))])
        # the identity, but only where sides divide by 4
        x = graph.node("SpaceToDepth", [x], blocksize=MULTIPLE)
        x = graph.node("DepthToSpace", [x], blocksize=MULTIPLE, mode="DCR")
        large, inner = self._bicubic(graph, x), x
        if self.global_mean:
            inner = graph.node("Sub", [x, graph.node("ReduceMean", [x], axes=[2, 3], keepdims=1)])
        inner = graph.node("Relu", [graph.conv(inner, self.weights, "head")])
        inner = graph.conv(inner, self.weights, "tail")
        inner = graph.node("DepthToSpace", [inner], blocksize=self.scale, mode="CRD")
        x = graph.node("Add", [large, inner])
        x = graph.node("Clip", [x, graph.constant(np.array(0.0)), graph.constant(np.array(1.0))])
        if dtype.kind == "u":
            x = graph.node("Round", [graph.node("Mul", [x, graph.constant(np.array(peak))])])
        graph.node("Cast", [x], to=element)
        graph.nodes[-1].output[0] = OUTPUT
        before: list[Any] = ["batch", 3, "height", "width"]
        after: list[Any] = ["batch", 3, "height_out", "width_out"]
        if size is not None:
            before, after = [1, 3, *size], [1, 3, *(side * self.scale for side in size)]
        values = [helper.make_tensor_value_info(n, element, s) for n, s in ((INPUT, before), (OUTPUT, after))]
        proto = helper.make_graph(graph.nodes, "tiny", values[:1], values[1:], graph.initializers)
        return helper.make_model(proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)

    def _bicubic(self, graph: Builder, x: str) -> str:
        """Add the enlargement: as convs where tiles must equal the whole, or as the operator."""
        if self.global_mean:
            scales = graph.constant(np.array([1.0, 1.0, self.scale, self.scale]))
            return graph.node("Resize", [x, "", scales], mode="cubic", cubic_coeff_a=CUBIC)
        pads = helper.make_tensor("pads", TensorProto.INT64, [8], [0, 0, 2, 2, 0, 0, 2, 2])
        graph.initializers.append(pads)
        x = graph.node("Pad", [x, "pads"], mode="edge")
        x = graph.node("Conv", [x, graph.constant(cubic_kernels(self.scale))], kernel_shape=[5, 5], group=3)
        return graph.node("DepthToSpace", [x], blocksize=self.scale, mode="CRD")

    def to_torch(self) -> nn.Module:
        net = TinyModule(self.scale, self.global_mean)
        net.load_state_dict({key: torch.from_numpy(value.copy()) for key, value in self.weights.items()})
        return net.eval()


class TinyModule(nn.Module):
    """`TinyNetwork` in PyTorch, (N, 3, h, w) in 0..1 to (N, 3, h * scale, w * scale), not clipped."""

    cubic: Tensor

    def __init__(self, scale: int, global_mean: bool) -> None:
        super().__init__()
        self.scale, self.global_mean = scale, global_mean
        self.head = nn.Conv2d(3, FEATURES, 3, padding=1)
        self.tail = nn.Conv2d(FEATURES, 3 * scale**2, 3, padding=1)
        self.register_buffer("cubic", torch.from_numpy(cubic_kernels(scale)), persistent=False)

    def forward(self, lr: Tensor) -> Tensor:
        x = functional.pixel_shuffle(functional.pixel_unshuffle(lr, MULTIPLE), MULTIPLE)
        if self.global_mean:
            large = functional.interpolate(x, scale_factor=float(self.scale), mode="bicubic")
            x = x - x.mean((2, 3), keepdim=True)
        else:
            padded = functional.pad(x, (2, 2, 2, 2), "replicate")
            large = functional.pixel_shuffle(functional.conv2d(padded, self.cubic, groups=3), self.scale)
        inner = self.tail(functional.relu(self.head(x)))
        return large + functional.pixel_shuffle(inner, self.scale)


def tiny_network(scale: int = 3, *, global_mean: bool = False, seed: int = 0) -> TinyNetwork:
    """Return a network with random weights, whose convs add a tenth or so to the bicubic picture."""
    random = np.random.default_rng(seed)
    shapes = {"head": (FEATURES, 3, 3, 3), "tail": (3 * scale**2, FEATURES, 3, 3)}
    weights = {}
    for conv, shape in shapes.items():
        weights[f"{conv}.weight"] = random.normal(0, 0.08, shape).astype(np.float32)
        weights[f"{conv}.bias"] = random.normal(0, 0.02, shape[0]).astype(np.float32)
    return TinyNetwork(weights, scale, global_mean)


def cubic_kernels(scale: int) -> Float32:
    """Return the cubic kernels of every sub-pixel, (3 * scale * scale, 1, 5, 5), for a conv in three groups."""
    shifts = (np.arange(scale) + 0.5) / scale - 0.5
    lines = _cubic(np.abs(shifts[:, None] - np.arange(-2, 3)))
    planes = np.einsum("yi,xj->yxij", lines, lines).reshape(scale**2, 1, 5, 5)
    return np.tile(planes, (3, 1, 1, 1)).astype(np.float32)


def _cubic(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return Keys' cubic kernel at distances in pixels (Keys 1981)."""
    near = ((CUBIC + 2) * distance - (CUBIC + 3)) * distance**2 + 1
    far = CUBIC * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


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
    graph = helper.make_graph([node], "one", [values["input"]], [values["output"]], weights)
    return bytes(helper.make_model(graph).SerializeToString())


def as_onnx(path: Path, scale: int = 4) -> Path:
    path.write_bytes(build(random_model(scale)).SerializeToString())
    return path
