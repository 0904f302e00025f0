"""Networks of ONNX files, whatever their architecture: read, hash, replace weights. No torch.

The file has one float32 input (batch, 3, height, width), RGB in 0..1, and one output, its enlargement by an integer.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from dsclora.errors import ModelError
from dsclora.networks import INPUT, OUTPUT
from dsclora.networks.tensor_file import Float32, hash_tensors

if TYPE_CHECKING:
    from torch import nn

OLDEST_OPSET = 11  # from here on Clip takes its bounds as inputs, and there is Round

_PROBE = (16, 24)  # (height, width) of the input whose output shape gives the scale


@dataclass(frozen=True)
class OnnxNetwork:
    """The content of an ONNX file, an implementation of `networks.Network`.

    Attributes:
        content: the serialised `onnx.ModelProto`.
        scale: the factor that it enlarges by.
        training: the record of its origin, any JSON object.
        license: an SPDX identifier or a sentence.
        name: its name in reports; not stored.
    """

    content: bytes = field(repr=False)
    scale: int
    training: Mapping[str, Any] = field(default_factory=dict)
    license: str = "unknown"
    name: str = ""

    @property
    def architecture(self) -> str:
        """The name of this kind of network, in files and reports."""
        return "onnx"

    @property
    def halo(self) -> None:
        """The receptive radius, which is not known: the network may see everything."""
        return

    @property
    def multiple(self) -> int:
        """The number that input sides must divide by; the file does not say, so 1 is assumed."""
        return 1

    @cached_property
    def weights(self) -> Mapping[str, Float32]:
        """The float32 initializers by name, constants of the graph among them."""
        proto = onnx.load_from_string(self.content)
        return {
            tensor.name: numpy_helper.to_array(tensor)
            for tensor in proto.graph.initializer
            if tensor.data_type == TensorProto.FLOAT
        }

    @property
    def parameters(self) -> int:
        """The number of values in `weights`."""
        return sum(value.size for value in self.weights.values())

    @property
    def sha256(self) -> str:
        """The hash of the weights alone (`tensor_file.hash_tensors`)."""
        return hash_tensors(self.weights)

    @property
    def fingerprint(self) -> str:
        """The hash of the graph and its weights, however the file stores them."""
        return hashlib.sha256(self.with_weights(self.weights).content).hexdigest()

    def with_weights(
        self,
        weights: Mapping[str, Float32],
        *,
        name: str | None = None,
        training: Mapping[str, Any] | None = None,
        license: str | None = None,
    ) -> Self:
        """Return a copy with other values for its initializers; None keeps name, record or license."""
        proto = onnx.load_from_string(self.content)
        for tensor in proto.graph.initializer:
            if tensor.name in weights and tensor.data_type == TensorProto.FLOAT:
                value = np.ascontiguousarray(weights[tensor.name], np.float32)
                tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
        return replace(
            self,
            content=proto.SerializeToString(deterministic=True),
            name=self.name if name is None else name,
            training=self.training if training is None else training,
            license=self.license if license is None else license,
        )

    def scaled_for_fp16(self) -> Self:
        """Return the network as it is."""
        return self

    def to_onnx(
        self,
        dtype: npt.DTypeLike = np.float32,
        *,
        half: bool = False,
        size: tuple[int, int] | None = None,
        ranges: Mapping[str, Any] | None = None,
    ) -> onnx.ModelProto:
        """Return the file's graph with clipping and, for integers, conversion and rounding around it.

        Args:
            dtype, size: as `networks.Network.to_onnx`.
            half, ranges: not supported.

        Raises:
            ModelError: fp16 or int8 is asked for.
        """
        if half or ranges:
            raise ModelError(f"{self.name}: an ONNX file cannot be converted to {'fp16' if half else 'int8'} here")
        return _wrap(onnx.load_from_string(self.content), np.dtype(dtype), self.scale, size)

    def to_torch(self) -> "nn.Module":
        """Refuse: an ONNX file has no PyTorch module.

        Raises:
            ModelError: always.
        """
        raise ModelError(f"{self.name}: an ONNX file cannot be trained yet, nor run in PyTorch")


def read(path: str | os.PathLike[str]) -> OnnxNetwork:
    """Read an ONNX file, and find its scale by the shapes that it infers.

    Raises:
        ModelError: unreadable, or not an enlargement of RGB pictures; names the file.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        proto = onnx.load_from_string(content)
        if any(tensor.data_location == TensorProto.EXTERNAL for tensor in proto.graph.initializer):
            raise ValueError("its weights are in another file; save them inside")
        if _opset(proto) < OLDEST_OPSET:
            raise ValueError(f"its opset {_opset(proto)} is older than {OLDEST_OPSET}; export it again")
        shape = sides(infer_shapes(proto, *_PROBE)[-1])
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # onnx and protobuf have no common type for damage
        raise ModelError(f"{path}: not an ONNX network that can be measured ({error})") from error
    height, width = _PROBE
    if len(shape) != 4 or shape[1] != 3 or not shape[2] or shape[2] % height:
        raise ModelError(f"{path}: not an enlargement: a picture of {width} x {height} becomes {shape}")
    return OnnxNetwork(content, shape[2] // height, {"imported_from": path.name}, name=path.stem)


def infer_shapes(proto: onnx.ModelProto, height: int, width: int) -> list[onnx.ValueInfoProto]:
    """Return every value of a graph with its shape for one picture of a size; the output is the last.

    Raises:
        Exception: onnx cannot infer them; it has no common type for that.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(proto)
    source = _input(fixed.graph)
    for dimension, size in zip(source.type.tensor_type.shape.dim, (1, 3, height, width), strict=True):
        dimension.dim_value = size
    fixed.graph.ClearField("value_info")  # exporters leave the shapes of their own size
    for target in fixed.graph.output:
        target.type.tensor_type.ClearField("shape")
    fixed = onnx.shape_inference.infer_shapes(fixed, check_type=True, strict_mode=True, data_prop=True)
    return [source, *fixed.graph.value_info, *fixed.graph.output]


def sides(info: onnx.ValueInfoProto) -> list[int]:
    """Return the shape of a value of a graph, with 0 for what is not known."""
    return [dimension.dim_value for dimension in info.type.tensor_type.shape.dim]


def _wrap(proto: onnx.ModelProto, dtype: np.dtype[Any], scale: int, size: tuple[int, int] | None) -> onnx.ModelProto:
    """Put conversion before a graph, in place, and rounding, clipping and conversion behind it.

    Raises:
        ValueError: dtype is not uint8, uint16 or float32.
    """
    if dtype not in (np.uint8, np.uint16, np.float32):
        raise ValueError(f"dtype must be uint8, uint16 or float32, got {dtype}")
    graph, integers = proto.graph, dtype.kind == "u"
    source, target = _input(graph), graph.output[0]
    inner, outer = ("dsclora/rgb" if integers else INPUT), "dsclora/enlarged"
    # other values that have the names of the two ends are renamed
    others = {INPUT: f"file/{INPUT}", OUTPUT: f"file/{OUTPUT}"}
    _rename(graph, others | {source.name: inner, target.name: outer})
    peak = float(np.iinfo(dtype).max) if integers else 1.0
    for name, value in (("dsclora/zero", 0.0), ("dsclora/peak", peak)):
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    element = helper.np_dtype_to_tensor_dtype(dtype)
    before, after = [], []
    if integers:
        before += [
            helper.make_node("Cast", [INPUT], ["dsclora/float"], to=TensorProto.FLOAT),
            helper.make_node("Div", ["dsclora/float", "dsclora/peak"], [inner]),
        ]
        after += [
            helper.make_node("Mul", [outer, "dsclora/peak"], ["dsclora/levels"]),
            helper.make_node("Round", ["dsclora/levels"], ["dsclora/rounded"]),
            helper.make_node("Clip", ["dsclora/rounded", "dsclora/zero", "dsclora/peak"], ["dsclora/clipped"]),
            helper.make_node("Cast", ["dsclora/clipped"], [OUTPUT], to=element),
        ]
    else:
        after.append(helper.make_node("Clip", [outer, "dsclora/zero", "dsclora/peak"], [OUTPUT]))
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    source.name, target.name = INPUT, OUTPUT
    source.type.tensor_type.elem_type = target.type.tensor_type.elem_type = element
    if size is not None:
        graph.ClearField("value_info")
        _fix(source, (1, 3, *size))
        _fix(target, (1, 3, size[0] * scale, size[1] * scale))
    return proto


def _fix(info: onnx.ValueInfoProto, shape: Sequence[int]) -> None:
    """Give a value of a graph a shape, in place."""
    info.type.tensor_type.ClearField("shape")
    for side in shape:
        info.type.tensor_type.shape.dim.add().dim_value = side


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename values of a graph and of the graphs inside its nodes, in place."""
    for node in graph.node:
        for ends in (node.input, node.output):
            ends[:] = [names.get(name, name) for name in ends]
        for inner in _subgraphs(node):
            _rename(inner, names)
    for info in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
        info.name = names.get(info.name, info.name)


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _input(graph: onnx.GraphProto) -> onnx.ValueInfoProto:
    """Return the one input of a graph; files of old versions list the initializers as inputs too.

    Raises:
        ValueError: there are several, or none.
    """
    constants = {tensor.name for tensor in graph.initializer}
    source: onnx.ValueInfoProto
    (source,) = [info for info in graph.input if info.name not in constants]
    return source


def _opset(proto: onnx.ModelProto) -> int:
    return next((int(opset.version) for opset in proto.opset_import if opset.domain in ("", "ai.onnx")), 1)
