"""Adapter files: low-rank updates of a base model's convs; read, write, merge, extract. No torch.

An adapter is one safetensors file (docs/formats.md). It fits one base, known by the hash of its weights.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dsclora.errors import ModelError, UsageError
from dsclora.networks import Network
from dsclora.networks.span import SpanNetwork
from dsclora.networks.tensor_file import (
    Float32,
    parse_object,
    read_safetensors,
    refuse_newer_version,
    write_safetensors,
)

FORMAT = "dsclora.adapter"
FORMAT_VERSION = 3
"""The newest version: 3 is written for bases other than SPAN, 2 where there are int8 ranges, else 1."""

N = TypeVar("N", bound=Network)

LEVELS = 255
"""The largest level of an int8 runtime's activations, which are uint8."""

WEIGHT_LEVELS = 127
"""The largest level of an int8 runtime's weights, on either side of 0. With 64 no sum would overflow on x86 without
VNNI, where pairs of products are added in 16 bits; but the bundled network loses more by that than by the overflow
(docs/export.md)."""


@dataclass(frozen=True)
class Update:
    """A low-rank update of one conv's weight (out, in, kh, kw), in loralib's layout.

    Attributes:
        a: lora_A, (rank * kh, in * kw), float32.
        b: lora_B, (out * kh, rank * kh), float32.
        rank: r, in loralib's sense.
        alpha: the update is multiplied by `alpha / rank`.
    """

    a: Float32
    b: Float32
    rank: int
    alpha: float

    @property
    def multiplier(self) -> float:
        """The factor of B @ A."""
        return self.alpha / self.rank

    @staticmethod
    def shapes(weight: tuple[int, ...], rank: int) -> tuple[int, int, int]:
        """Return rows, columns and inner size of B @ A for a weight of shape (out, in / groups, kh, kw)."""
        out, inputs, height, width = weight
        return out * height, inputs * width, rank * height

    def delta(self, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the update in the shape of the weight that it is added to, float64."""
        return self.multiplier * (self.b.astype(np.float64) @ self.a.astype(np.float64)).reshape(shape)


@dataclass(frozen=True)
class Range:
    """The rounding of a conv's input where the conv is computed in int8: to uint8, with one scale for all channels.

    Attributes:
        low, high: ends of the range, after the division; zero lies between.
        divisor: (channels,); each channel is divided by its value, and the weights are multiplied by it.
    """

    low: float
    high: float
    divisor: Float32

    @property
    def scale(self) -> float:
        """The size of one level."""
        return (self.high - self.low) / LEVELS

    @property
    def zero_point(self) -> int:
        """The level that is zero."""
        return min(max(round(-self.low / self.scale), 0), LEVELS)


@dataclass(frozen=True)
class Adapter:
    """The content of an adapter file.

    Attributes:
        updates: the update of each conv, by its key in the base without `.weight`.
        base_sha256: the hash of the base that it was made for.
        scale: the base's factor.
        channels: the feature channels of a SPAN base; None for other networks.
        training: the record of its training, any JSON object.
        license: SPDX identifier or a sentence.
        name: its name in reports; not stored.
        ranges: the input range of each conv that is computed in int8, by conv; empty in most adapters.
        architecture: the base's kind of network.
    """

    updates: Mapping[str, Update]
    base_sha256: str
    scale: int
    channels: int | None
    training: Mapping[str, Any] = field(default_factory=dict)
    license: str = "unknown"
    name: str = ""
    ranges: Mapping[str, Range] = field(default_factory=dict)
    architecture: str = "span"

    @property
    def parameters(self) -> int:
        """The number of values in its updates."""
        return sum(u.a.size + u.b.size for u in self.updates.values())


def create(
    base: Network,
    updates: Mapping[str, Update],
    training: Mapping[str, Any],
    license: str,
    ranges: Mapping[str, Range] | None = None,
) -> Adapter:
    """Make an adapter of a base; arguments as the attributes of `Adapter`."""
    channels = base.channels if isinstance(base, SpanNetwork) else None
    return Adapter(
        updates,
        base.sha256,
        base.scale,
        channels,
        training,
        license,
        ranges=ranges or {},
        architecture=base.architecture,
    )


def merge(base: N, adapters: Sequence[tuple[Adapter, float]]) -> N:
    """Add adapters to the weights of a base: same size, same speed.

    Args:
        base: the network; it is not changed.
        adapters: each with its strength, a factor of its update: 1 as trained, 0 without effect. They add up.

    Raises:
        UsageError: a strength that makes no sense.
        ModelError: an adapter of another base; says what both are.
    """
    weights = dict(base.weights)
    sums: dict[str, Any] = {}
    for adapter, strength in adapters:
        check_strength(strength, adapter.name)
        check_fits(adapter, base)
        for conv, update in adapter.updates.items():
            key = f"{conv}.weight"
            sums[key] = sums.get(key, 0.0) + strength * update.delta(base.weights[key].shape)
    for key, total in sums.items():  # all updates are added up before the one rounding
        weights[key] = (base.weights[key].astype(np.float64) + total).astype(np.float32)
        if not np.isfinite(weights[key]).all():
            raise ModelError(f"{key}: infinite after merging; use a smaller strength")
    merged = [{"adapter": a.name, "strength": s, "training": dict(a.training)} for a, s in adapters]
    name = "+".join([base.name, *(a.name if s == 1 else f"{a.name}:{s:g}" for a, s in adapters)])
    earlier = base.training.get("merged")
    training = {**base.training, "merged": [*(earlier if isinstance(earlier, list) else []), *merged]}
    license = " AND ".join(dict.fromkeys([base.license, *(a.license for a, _ in adapters)]))
    return base.with_weights(weights, name=name, training=training, license=license)


def check_strength(strength: float, name: str) -> None:
    """Refuse a strength that makes no sense.

    Raises:
        UsageError: not a number, or beyond a hundred.
    """
    if not (isinstance(strength, int | float) and abs(strength) <= 100):
        raise UsageError(f"{name}: a strength of {strength!r} makes no sense; 1 is as trained")


def check_fits(adapter: Adapter, base: Network) -> None:
    """Check that an adapter was made for a base.

    Raises:
        ModelError: says what both are.
    """
    if adapter.base_sha256 != base.sha256:
        kind = f"of {adapter.channels} channels" if adapter.channels else f"of the kind {adapter.architecture!r}"
        raise ModelError(
            f"adapter {adapter.name} was made for a x{adapter.scale} base {kind}, sha256 "
            f"{adapter.base_sha256[:12]}; {base.name or 'the base'} is {describe_kind(base)}, "
            f"sha256 {base.sha256[:12]}; use the base it was made for"
        )
    for conv, update in adapter.updates.items():
        weight = base.weights.get(f"{conv}.weight")
        if weight is None or weight.ndim != 4:
            raise ModelError(f"adapter {adapter.name} updates {conv}, which the base does not have")
        rows, columns, inner = Update.shapes(weight.shape, update.rank)
        if update.a.shape != (inner, columns) or update.b.shape != (rows, inner):
            raise ModelError(
                f"adapter {adapter.name}: {conv} has lora_A {update.a.shape} and lora_B {update.b.shape}; rank "
                f"{update.rank} of the base's conv has {(inner, columns)} and {(rows, inner)}"
            )
    for conv, bounds in adapter.ranges.items():
        weight = base.weights.get(f"{conv}.weight")
        if weight is None or bounds.divisor.shape != weight.shape[1:2]:
            raise ModelError(f"adapter {adapter.name} has a range for {conv} that does not fit the base")


def describe(adapter: Adapter) -> dict[str, Any]:
    """Return the facts about an adapter, ready for JSON."""
    facts = {
        "name": adapter.name,
        "format": FORMAT,
        "variant": "convlora",
        "base_sha256": adapter.base_sha256,
        "scale": adapter.scale,
        "channels": adapter.channels,
        "parameters": adapter.parameters,
        "ranks": {conv: u.rank for conv, u in adapter.updates.items()},
        "alphas": {conv: u.alpha for conv, u in adapter.updates.items()},
        "int8": list(adapter.ranges),
        "license": adapter.license,
        "training": dict(adapter.training),
    }
    return facts if adapter.channels else facts | {"architecture": adapter.architecture}


def is_adapter(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is safetensors and says that it is an adapter."""
    try:
        return read_safetensors(Path(path))[1].get("format") == FORMAT
    except ModelError:
        return False


def read(path: str | os.PathLike[str]) -> Adapter:
    """Read an adapter file.

    Raises:
        ModelError: missing, corrupt, of another format or a newer version; names the file and the remedy.
    """
    path = Path(path)
    tensors, header = read_safetensors(path)
    if header.get("format") != FORMAT:
        what = "a base model; give it with --model" if "conv_cat.weight" in tensors else "not a dsclora adapter"
        raise ModelError(f"{path}: {what}")
    try:
        refuse_newer_version(path, header, FORMAT_VERSION)
        adapter = _parse(tensors, header, path.stem)
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ModelError(f"{path}: damaged header ({error!r}); get the file again") from error
    if not all(np.isfinite(t).all() for u in adapter.updates.values() for t in (u.a, u.b)):
        raise ModelError(f"{path}: holds NaN or infinite numbers; get the file again")
    return adapter


def _parse(tensors: dict[str, Float32], header: Mapping[str, str], name: str) -> Adapter:
    """Make an adapter of the content of a file.

    Raises:
        KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError: the content is damaged.
    """
    ranks, alphas = parse_object(header["ranks"]), parse_object(header["alphas"])
    if header["variant"] != "convlora" or ranks.keys() != alphas.keys() or not ranks:
        raise ValueError("variant, ranks or alphas")
    updates = {}
    for conv, rank in ranks.items():
        if not (isinstance(rank, int) and 1 <= rank <= 4096 and math.isfinite(float(alphas[conv]))):
            raise ValueError(f"rank or alpha of {conv}")
        updates[conv] = Update(tensors.pop(f"{conv}.lora_A"), tensors.pop(f"{conv}.lora_B"), rank, float(alphas[conv]))
    convs = [key.removesuffix(".range") for key in tensors if key.endswith(".range")]
    ranges = {conv: _parse_range(tensors, conv) for conv in convs}
    if tensors:
        raise ValueError(f"unexpected {next(iter(tensors))}")
    foreign = int(header["format_version"]) >= 3 and "channels" not in header
    return Adapter(
        updates,
        header["base_sha256"],
        int(header["scale"]),
        None if foreign else int(header["channels"]),
        parse_object(header.get("training", "{}")),
        header.get("license", "unknown"),
        name,
        ranges,
        header["architecture"] if foreign else "span",
    )


def _parse_range(tensors: dict[str, Float32], conv: str) -> Range:
    """Take the range of a conv out of the tensors of a file."""
    low, high = (float(end) for end in tensors.pop(f"{conv}.range"))
    divisor = tensors.pop(f"{conv}.divisor")
    if not (-math.inf < low <= 0 <= high < math.inf and low < high):
        raise ValueError(f"range of {conv}")
    if not (np.isfinite(divisor).all() and (divisor > 0).all()):
        raise ValueError(f"range of {conv}")
    return Range(low, high, divisor)


def write(path: str | os.PathLike[str], adapter: Adapter, overwrite: bool = False) -> None:
    """Write an adapter file: to a temporary file beside it, then renamed.

    Raises:
        OutputError: the target exists and `overwrite` is false, or cannot be written.
    """
    header = {
        "format": FORMAT,
        "format_version": "3" if adapter.channels is None else "2" if adapter.ranges else "1",
        "variant": "convlora",
        "base_sha256": adapter.base_sha256,
        "scale": str(adapter.scale),
        **({"architecture": adapter.architecture} if adapter.channels is None else {"channels": str(adapter.channels)}),
        "ranks": json.dumps({conv: u.rank for conv, u in adapter.updates.items()}),
        "alphas": json.dumps({conv: u.alpha for conv, u in adapter.updates.items()}),
        "training": json.dumps(adapter.training),
        "license": adapter.license,
    }
    tensors = {}
    for conv, update in adapter.updates.items():
        tensors[f"{conv}.lora_A"], tensors[f"{conv}.lora_B"] = update.a, update.b
    for conv, ends in adapter.ranges.items():
        tensors[f"{conv}.range"] = np.array([ends.low, ends.high], np.float32)
        tensors[f"{conv}.divisor"] = ends.divisor
    write_safetensors(path, tensors, header, overwrite)


def describe_kind(network: Network, detailed: bool = False) -> str:
    """Return a few words on a network's kind, for messages."""
    if not isinstance(network, SpanNetwork):
        return f"x{network.scale}, of the kind {network.architecture!r}"
    return f"x{network.scale}, {network.channels} channels" + (f", range {network.range:g}" if detailed else "")
