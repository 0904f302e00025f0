"""Networks as values: weights, their files, their ONNX graph and their PyTorch module.

`Network` says what is computed; `engines.Engine` says where. A network is never changed, only replaced.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from dsclora.errors import ModelError, UsageError

if TYPE_CHECKING:
    import onnx
    from torch import nn

Float32 = npt.NDArray[np.float32]

INPUT, OUTPUT = "input", "output"
"""The names of the two ends of every ONNX model that `Network.to_onnx` returns."""


class Network(Protocol):
    """A trained network, ready to be merged with adapters, run, exported or trained.

    Everything that is not specific to one architecture takes this type.
    """

    @property
    def name(self) -> str:
        """The name in reports and file names; not part of the content."""
        ...

    @property
    def architecture(self) -> str:
        """The kind of network: "span", or what its library calls it."""
        ...

    @property
    def scale(self) -> int:
        """The factor that it enlarges by; 1 for denoising, deblurring and the like."""
        ...

    @property
    def halo(self) -> int | None:
        """The receptive radius in input pixels; None for a network that sees the whole picture."""
        ...

    @property
    def multiple(self) -> int:
        """The number that both input sides must divide by; 1 for any size."""
        ...

    @property
    def weights(self) -> Mapping[str, Float32]:
        """The float32 arrays by state-dict name, which an adapter may change."""
        ...

    @property
    def parameters(self) -> int:
        """The number of trained values."""
        ...

    @property
    def license(self) -> str:
        """An SPDX identifier or a sentence."""
        ...

    @property
    def training(self) -> Mapping[str, Any]:
        """The record of its training, as a JSON object."""
        ...

    @property
    def sha256(self) -> str:
        """The hash of its weights, by which an adapter names its base."""
        ...

    @property
    def fingerprint(self) -> str:
        """The hash of what it computes."""
        ...

    def with_weights(
        self,
        weights: Mapping[str, Float32],
        *,
        name: str | None = None,
        training: Mapping[str, Any] | None = None,
        license: str | None = None,
    ) -> Self:
        """Return a copy with other weights under the same names; None keeps name, record or license. No torch."""
        ...

    def scaled_for_fp16(self) -> Self:
        """Return a network that computes the same with weights in the range of fp16; itself where they are."""
        ...

    def to_onnx(
        self,
        dtype: npt.DTypeLike = np.float32,
        *,
        half: bool = False,
        size: tuple[int, int] | None = None,
        ranges: Mapping[str, Any] | None = None,
    ) -> "onnx.ModelProto":
        """Return the network as an ONNX model with the input `input` and the output `output`, both NCHW.

        Args:
            dtype: the type of input and output. float32 is RGB in 0..1; uint8 and uint16 are RGB in 0..255 and
                0..65535, which the model converts and rounds inside.
            half: compute in fp16.
            size: (height, width) of the only pictures that it takes; by default any.
            ranges: the input range (`networks.adapter.Range`) of each conv that is computed in int8, by conv.

        Raises:
            ModelError: the network has no such form.
        """
        ...

    def to_torch(self) -> "nn.Module":
        """Return a PyTorch module, (N, 3, h, w) RGB in 0..1 to (N, 3, h * scale, w * scale), not clipped."""
        ...


def check_size(network: Network, height: int, width: int) -> None:
    """Check that a network takes pictures of a size as they are.

    Raises:
        UsageError: a side does not divide by `network.multiple`.
    """
    if not all(isinstance(side, int) and side >= 1 for side in (height, width)):
        raise UsageError(f"a size is two whole numbers from 1 on, not {width!r}x{height!r}")
    if height % network.multiple or width % network.multiple:
        raise UsageError(
            f"{network.name}: its input sides must divide by {network.multiple}; {width}x{height} does not"
        )


def open_file(path: str | os.PathLike[str]) -> Network:
    """Read any file that holds a network: ours, anybody's SPAN (`.pth`, `.safetensors`), or ONNX.

    Raises:
        ModelError: it holds no network that we know; says what it looks like.
        MissingExtraError: a `.pth` without torch installed.
    """
    from dsclora.networks import onnx_network, span_import

    if Path(path).suffix.lower() == ".onnx":
        return onnx_network.read(path)
    return span_import.import_file(path)


def write_file(path: str | os.PathLike[str], network: Network, overwrite: bool = False) -> None:
    """Write a network as a model file: to a temporary file beside it, then renamed.

    Raises:
        ModelError: a network that has no model file.
        OutputError: the target exists and `overwrite` is false, or cannot be written.
    """
    from dsclora.networks import span

    if not isinstance(network, span.SpanNetwork):
        raise ModelError(f"{network.name}: only SPAN has a model file, this is {network.architecture}; keep its own")
    span.write(path, network, overwrite)


def describe(network: Network) -> dict[str, Any]:
    """Return the facts about a network, ready for JSON."""
    from dsclora.networks import span

    if isinstance(network, span.SpanNetwork):
        return span.describe(network)
    return {
        "name": network.name,
        "architecture": network.architecture,
        "scale": network.scale,
        "parameters": network.parameters,
        "sha256": network.sha256,
        "license": network.license,
        "training": dict(network.training),
    }
