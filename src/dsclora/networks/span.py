"""Base-model files: read, write, identify, hash, and import from other people's files.

A base model is one safetensors file: the 44 tensors of a plain ("slim") SPAN under the keys of the official
release, so that official tools read it too, and a header (strings, as safetensors demands) that says the rest:
`format`, `format_version`, `architecture`, `scale`, `channels`, `mean`, `range`, `sha256` of the tensor content,
`training` (JSON: recipe, data, result) and `license`. Reading never executes anything.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from dsclora.errors import ModelError
from dsclora.networks.tensor_file import (
    Float32,
    hash_tensors,
    parse_object,
    read_safetensors,
    refuse_newer_version,
    write_safetensors,
)

if TYPE_CHECKING:
    import onnx
    from torch import nn

FORMAT = "dsclora.model"

FORMAT_VERSION = 1

SPAN_MEAN = (0.4488, 0.4371, 0.4040)

SPAN_RANGE = 255.0

BLOCKS = 6

HALO = 21
"""Receptive radius of SPAN in LR pixels: 21 3x3 convs in a row (1 + 6 * 3 + 1 + 1)."""

CONVS_3X3 = (
    "conv_1",
    *(f"block_{b}.c{c}_r" for b in range(1, BLOCKS + 1) for c in (1, 2, 3)),
    "conv_2",
)
"""The 3x3 convs that are a Conv3XC in the training form; their plain keys end in `.eval_conv`."""

PLAIN_PREFIXES = (*(f"{c}.eval_conv" for c in CONVS_3X3), "conv_cat", "upsampler.0")


@dataclass(frozen=True)
class SpanNetwork:
    """A SPAN: the content of a base-model file, and the first implementation of `networks.Network`.

    Attributes:
        weights: float32 arrays under the plain keys: `<conv>.weight` (out, in, k, k) and `<conv>.bias` (out,).
        scale: the factor that it enlarges by.
        channels: feature channels C.
        mean, range: the network computes on `(rgb - mean) * range`, RGB in 0..1.
        training: its origin, any JSON object.
        license: SPDX identifier or a sentence.
        name: its name in reports; not stored.
    """

    weights: Mapping[str, Float32]
    scale: int
    channels: int
    mean: tuple[float, float, float] = SPAN_MEAN
    range: float = SPAN_RANGE
    training: Mapping[str, Any] = field(default_factory=dict)
    license: str = "unknown"
    name: str = ""

    @property
    def architecture(self) -> str:
        """The name that files and reports give to this kind of network."""
        return "span"

    @property
    def halo(self) -> int:
        """The receptive radius in LR pixels."""
        return HALO

    @property
    def multiple(self) -> int:
        """The number that input sides must divide by: any size will do."""
        return 1

    def with_weights(
        self,
        weights: Mapping[str, Float32],
        *,
        name: str | None = None,
        training: Mapping[str, Any] | None = None,
        license: str | None = None,
    ) -> Self:
        """Return a copy with other weights under the same names; None keeps name, record or license."""
        return replace(
            self,
            weights=weights,
            name=self.name if name is None else name,
            training=self.training if training is None else training,
            license=self.license if license is None else license,
        )

    def scaled_for_fp16(self) -> Self:
        """Return the same function on the input range 1.

        On the usual range of 255 the first conv's weights are so small that fp16 has few bits for them, ncnn's none.
        """
        return replace(self, **_ranged(self, 1.0))

    def to_onnx(
        self,
        dtype: npt.DTypeLike = np.float32,
        *,
        half: bool = False,
        size: tuple[int, int] | None = None,
        ranges: Mapping[str, Any] | None = None,
    ) -> "onnx.ModelProto":
        """Return the network as ONNX; arguments as `span_graph.build`."""
        from dsclora.networks import span_graph

        return span_graph.build(self, dtype, half=half, size=size, ranges=ranges)

    def to_torch(self) -> "nn.Module":
        """Return a PyTorch module, (N, 3, h, w) RGB in 0..1 to (N, 3, h * scale, w * scale), not clipped."""
        from dsclora.networks import span_torch

        return span_torch.from_network(self)

    @property
    def parameters(self) -> int:
        """The number of its trained values."""
        return sum(t.size for t in self.weights.values())

    @property
    def sha256(self) -> str:
        """The hash of the tensors alone (`tensor_file.hash_tensors`)."""
        return hash_tensors(self.weights)

    @property
    def fingerprint(self) -> str:
        """The hash of what the model computes; `sha256` covers the tensors alone."""
        return hashlib.sha256(f"{self.sha256} {self.mean} {self.range}".encode()).hexdigest()


def with_range(model: SpanNetwork, value_range: float) -> SpanNetwork:
    """Return the same function on another input range: the first conv's weights change by the ratio of the ranges."""
    return replace(model, **_ranged(model, value_range))


def _ranged(model: SpanNetwork, value_range: float) -> dict[str, Any]:
    key = "conv_1.eval_conv.weight"
    weight = (model.weights[key].astype(np.float64) * (model.range / value_range)).astype(np.float32)
    return {"weights": {**model.weights, key: weight}, "range": value_range}


def collapse_conv3xc(parts: Mapping[str, Any], einsum: Callable[..., Any] = np.einsum) -> tuple[Any, Any]:
    """Return the one 3x3 conv that equals a Conv3XC: 1x1, 3x3, 1x1 in a row plus a 1x1 skip.

    Exact everywhere, borders included, because the training form pads by zeros before its first 1x1, and by
    exactly the values that this 1x1 and its bias compute from zeros.

    Args:
        parts: `conv.{0,1,2}.{weight,bias}` and `sk.{weight,bias}`, numpy arrays or torch tensors.
        einsum: `numpy.einsum` or `torch.einsum` to match; with torch the result carries gradients.

    Returns:
        weight (out, in, 3, 3) and bias (out,).
    """
    first = parts["conv.0.weight"][:, :, 0, 0]
    middle = parts["conv.1.weight"]
    last = parts["conv.2.weight"][:, :, 0, 0]
    weight = einsum("om,miyx->oiyx", last, einsum("mnyx,ni->miyx", middle, first))
    weight[:, :, 1, 1] += parts["sk.weight"][:, :, 0, 0]
    inner = parts["conv.1.bias"] + einsum("mnyx,n->m", middle, parts["conv.0.bias"])
    return weight, last @ inner + parts["conv.2.bias"] + parts["sk.bias"]


def identify(tensors: Mapping[str, Any], what: str) -> tuple[int, int]:
    """Find channels and scale of plain SPAN tensors from their shapes.

    Args:
        tensors: arrays or tensors by plain key; only their `.shape` is read.
        what: the name of the file in errors.

    Raises:
        ModelError: not a plain SPAN; says what it looks like.
    """
    expected_keys = {f"{p}.{kind}" for p in PLAIN_PREFIXES for kind in ("weight", "bias")}
    missing, extra = sorted(expected_keys - set(tensors)), sorted(set(tensors) - expected_keys)
    if missing or extra:
        raise ModelError(f"{what}: {_looks_like(tensors, missing, extra)}")
    channels, outputs = (
        int(next(iter(tensors[key].shape), 0)) for key in ("conv_1.eval_conv.weight", "upsampler.0.weight")
    )
    scale = round((outputs / 3) ** 0.5)
    if channels < 1 or scale < 1 or 3 * scale * scale != outputs:
        raise ModelError(
            f"{what}: its last conv has {outputs} outputs, which is not 3 x scale x scale for any scale; "
            "only RGB models with a pixel shuffle are supported"
        )
    for prefix in PLAIN_PREFIXES:
        inputs = 3 if prefix == "conv_1.eval_conv" else 4 * channels if prefix == "conv_cat" else channels
        out = outputs if prefix == "upsampler.0" else channels
        kernel = 1 if prefix == "conv_cat" else 3
        shape = (out, inputs, kernel, kernel)
        for key, expected in ((f"{prefix}.weight", shape), (f"{prefix}.bias", (out,))):
            if tuple(tensors[key].shape) != expected:
                raise ModelError(
                    f"{what}: {key} has shape {tuple(tensors[key].shape)}, a SPAN of {channels} channels has {expected}"
                )
    return channels, scale


def _looks_like(tensors: Mapping[str, Any], missing: list[str], extra: list[str]) -> str:
    keys = list(tensors)
    if not keys:
        return "it holds no tensors; is it the file you meant?"
    if any(k.endswith(".lora_A") for k in keys):
        return "it is an adapter, not a base model; give it with --adapter and name a base with --model"
    if any(k.startswith(("head.", "cells.")) for k in keys):
        guess = "an EFDN (keys head.*, cells.*)"
    elif any(k.startswith(("conv_first", "body.", "model.1.sub", "RRDB")) for k in keys):
        guess = f"an ESRGAN- or RRDB-like network (keys such as {keys[0]})"
    elif "conv_1.eval_conv.weight" in keys or "conv_1.sk.weight" in keys:
        odd = (f"{len(missing)} missing, such as {missing[0]}" if missing else "") + (
            f"{'; ' if missing else ''}{len(extra)} unexpected, such as {extra[0]}" if extra else ""
        )
        return f"it looks like a SPAN variant, but its tensors differ from SPAN's: {odd}"
    else:
        guess = f"another network ({len(keys)} tensors, such as {keys[0]})"
    return f"it looks like {guess}; only SPAN models are supported"


def describe(model: SpanNetwork) -> dict[str, Any]:
    """Return the facts about a model, ready for JSON."""
    return {
        "name": model.name,
        "format": FORMAT,
        "architecture": "span",
        "scale": model.scale,
        "channels": model.channels,
        "parameters": model.parameters,
        "mean": list(model.mean),
        "range": model.range,
        "sha256": model.sha256,
        "license": model.license,
        "training": dict(model.training),
    }


def read(path: str | os.PathLike[str]) -> SpanNetwork:
    """Read a base-model file and verify its content against its hash.

    Raises:
        ModelError: missing, corrupt, of another format or a newer version; names the file and the remedy.
    """
    path = Path(path)
    tensors, header = read_safetensors(path)
    if header.get("format") != FORMAT:
        identify(tensors, str(path))  # raises a better error where the tensors are not a SPAN's
        raise ModelError(f"{path}: not a dsclora model file; convert it with: dsclora import {path} -o FILE")
    try:
        refuse_newer_version(path, header, FORMAT_VERSION)
        channels, scale = identify(tensors, str(path))
        mean = json.loads(header["mean"])
        model = SpanNetwork(
            tensors,
            scale,
            channels,
            (float(mean[0]), float(mean[1]), float(mean[2])),
            float(header["range"]),
            parse_object(header.get("training", "{}")),
            header.get("license", "unknown"),
            path.stem,
        )
        numbers = (*model.mean, model.range)
        if header["architecture"] != "span":
            raise ValueError("architecture")
        if not np.isfinite(numbers).all() or model.range <= 0:
            raise ValueError("mean or range")
        if (int(header["scale"]), int(header["channels"])) != (scale, channels):
            raise ModelError(
                f"{path}: the header says x{header['scale']}, {header['channels']} channels, "
                f"the tensors say x{scale}, {channels} channels; the file is damaged"
            )
    except (KeyError, ValueError, TypeError, IndexError, OverflowError, RecursionError) as error:
        raise ModelError(f"{path}: damaged header ({error!r}); get the file again") from error
    if not all(np.isfinite(t).all() for t in tensors.values()):
        raise ModelError(f"{path}: holds NaN or infinite weights; get the file again")
    if model.sha256 != header.get("sha256"):
        raise ModelError(
            f"{path}: content does not match its hash (has {model.sha256[:12]}, "
            f"header says {header.get('sha256', 'nothing')[:12]}); the file is damaged"
        )
    return model


def write(path: str | os.PathLike[str], model: SpanNetwork, overwrite: bool = False) -> None:
    """Write a base-model file: to a temporary file beside it, then renamed.

    Raises:
        OutputError: the target exists and `overwrite` is false, or cannot be written.
    """
    header = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "architecture": "span",
        "scale": str(model.scale),
        "channels": str(model.channels),
        "mean": json.dumps(model.mean),
        "range": str(model.range),
        "sha256": model.sha256,
        "training": json.dumps(model.training),
        "license": model.license,
    }
    write_safetensors(path, model.weights, header, overwrite)
