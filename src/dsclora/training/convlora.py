"""ConvLoRA: low-rank updates to the weights of frozen convs, in loralib's form (arXiv 2504.11271).

For a weight W of shape (out, in, kh, kw) the network computes with

    W' = W + alpha / rank * (B @ A).view(W.shape)      A: (rank * kh, in * kw), zero-mean random
                                                       B: (out * kh, rank * kh), zero

so it starts at the base exactly. "Rank" is loralib's: unfolded to (out, in * kh * kw) an update has a rank of up to
`rank * kh * kw`. It is not PEFT's convolution (k x k to rank channels, then 1 x 1).

An SConvLB is a SPAB whose three convs carry ConvLoRA.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dsclora.networks import Network
from dsclora.networks import adapter as adapters
from dsclora.networks.adapter import Adapter, Range, Update
from dsclora.networks.tensor_file import Float32


@dataclass(frozen=True)
class Target:
    """A choice of convs to adapt, with the rank and the alpha of their updates.

    Attributes:
        convs: module name, or pattern of module names (`*` and `?`).
        rank: r, in loralib's sense.
        alpha: the update is multiplied by `alpha / rank`.
    """

    convs: str
    rank: int
    alpha: float


SPAB_CONVS = {"c1_r", "c2_r", "c3_r"}
"""The children of a SPAB, by which it is recognised."""

LAYERED = (
    Target("block_?.c?_r.eval_conv", rank=2, alpha=4),
    Target("conv_2.eval_conv", rank=8, alpha=16),
    Target("upsampler.0", rank=8, alpha=16),
)
"""The authors' layered configuration: six SConvLBs, the pixel-shuffle conv and the 3x3 conv before it."""


class ConvLoRA(nn.Module):
    """A frozen conv with a low-rank update of its weight.

    Args:
        conv: any `nn.Conv2d`: strides, groups, dilation and padding of all kinds; becomes part of this module.
        rank, alpha: as in `Target`.
        generator: the source of A's random numbers.
    """

    def __init__(self, conv: nn.Conv2d, rank: int, alpha: float, generator: torch.Generator | None = None) -> None:
        super().__init__()
        rows, columns, inner = Update.shapes(tuple(conv.weight.shape), rank)
        self.conv, self.rank, self.alpha = conv, rank, alpha
        bound = 1 / math.sqrt(columns)  # Kaiming uniform with a = sqrt 5, as in loralib
        start = (2 * torch.rand(inner, columns, generator=generator) - 1) * bound
        self.lora_A = nn.Parameter(start.to(conv.weight))
        self.lora_B = nn.Parameter(conv.weight.new_zeros(rows, inner))

    @property
    def weight(self) -> Tensor:
        """The weight that the conv computes with, (out, in / groups, kh, kw)."""
        frozen = self.conv.weight
        return frozen + (self.alpha / self.rank) * (self.lora_B @ self.lora_A).view(frozen.shape)

    def forward(self, x: Tensor) -> Tensor:
        """Compute as the conv does, with the updated weight."""
        with torch.autocast(x.device.type, enabled=False):
            weight = self.weight
        return functional_call(self.conv, {"weight": weight}, (x,))  # type: ignore[no-any-return]


def attach(net: nn.Module, targets: Sequence[Target] = LAYERED, seed: int = 0) -> nn.Module:
    """Return a copy of a network that computes the same, bit for bit, in which only low-rank updates can be trained.

    Args:
        net: any module with `nn.Conv2d` inside; it is not changed.
        targets: the first that matches a conv's name counts; convs that none matches stay as they are.
        seed: the seed of A's random numbers.

    Raises:
        ValueError: a target matches no conv, or the network carries ConvLoRA already.
    """
    if not targets:
        raise ValueError("no convs are named; name some, or all by *")
    for target in targets:
        if not (isinstance(target.rank, int) and target.rank >= 1 and math.isfinite(target.alpha)):
            raise ValueError(f"rank {target.rank!r} and alpha {target.alpha!r}: a whole number from 1 on, and a number")
    if not isinstance(net, nn.Module) or isinstance(net, nn.Conv2d):
        raise TypeError(f"a network is an nn.Module with convs inside, not {type(net).__name__}")
    if _carriers(net):
        raise ValueError("the network carries ConvLoRA already; merge or detach it first")
    net = copy.deepcopy(net).requires_grad_(False)
    convs = {name: module for name, module in net.named_modules() if isinstance(module, nn.Conv2d)}
    for target in targets:
        if not any(fnmatchcase(name, target.convs) for name in convs):
            raise ValueError(f"no conv is called {target.convs!r}; there are: {', '.join(convs) or 'none'}")
    generator = torch.Generator().manual_seed(seed)
    for name, conv in convs.items():
        first = next((target for target in targets if fnmatchcase(name, target.convs)), None)
        if first is not None:
            net.set_submodule(name, ConvLoRA(conv, first.rank, first.alpha, generator))
    return net


def extract(net: nn.Module) -> dict[str, Update]:
    """Return the updates that a network carries, by conv name, as float32 arrays."""
    return {
        name: Update(_array(lora.lora_A), _array(lora.lora_B), lora.rank, lora.alpha)
        for name, lora in _carriers(net).items()
    }


def to_adapter(
    net: nn.Module, base: Network, training: Mapping[str, Any], license: str, ranges: Mapping[str, Range] | None = None
) -> Adapter:
    """Return the adapter of a base that a network carries.

    Args:
        net: a network that carries ConvLoRA.
        base: the network that it was attached to.
        training: the record for the header, any JSON object.
        license: SPDX identifier or a sentence.
        ranges: the input range of each conv that is computed in int8, by conv.
    """
    return adapters.create(base, extract(net), training, license, ranges)


def insert(net: nn.Module, updates: Mapping[str, Update]) -> nn.Module:
    """Return a copy of a network that carries updates, ready to be trained on: the inverse of `extract`.

    Raises:
        ValueError: an update for a conv that is not there or has another shape.
    """
    net = attach(net, [Target(name, update.rank, update.alpha) for name, update in updates.items()])
    with torch.no_grad():
        for name, lora in _carriers(net).items():
            for parameter, array in ((lora.lora_A, updates[name].a), (lora.lora_B, updates[name].b)):
                if tuple(parameter.shape) != array.shape:
                    raise ValueError(f"{name}: an update of shape {array.shape} where {tuple(parameter.shape)} fits")
                parameter.copy_(torch.from_numpy(array))
    return net


def detach(net: nn.Module, merged: bool = False) -> nn.Module:
    """Return a copy of a network without ConvLoRA: the base again, bit for bit, or with the updates merged in."""
    net = copy.deepcopy(net)
    for name, lora in _carriers(net).items():
        if merged:
            with torch.no_grad():
                lora.conv.weight.copy_(lora.weight)
        net.set_submodule(name, lora.conv)
    return net


def sconvlbs(net: nn.Module) -> list[str]:
    """List the SConvLBs: SPABs whose three convs all carry ConvLoRA, from input to output."""
    return [
        name
        for name, module in net.named_modules()
        if {child for child, _ in module.named_children()} == SPAB_CONVS
        and all(_carriers(child) for child in module.children())
    ]


def _carriers(net: nn.Module) -> dict[str, ConvLoRA]:
    return {name: module for name, module in net.named_modules() if isinstance(module, ConvLoRA)}


def _array(tensor: Tensor) -> Float32:
    return tensor.detach().float().cpu().numpy().copy()
