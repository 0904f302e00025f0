"""SPAN in PyTorch: the plain network, its training form, and the collapse of one into the other.

Swift Parameter-free Attention Network (Wan et al. 2023, arXiv 2311.12770). Six blocks (SPAB) of three 3x3 convs
and an attention without parameters; `conv_cat` joins four depths; a pixel shuffle enlarges.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from dsclora.networks.span import BLOCKS, SPAN_MEAN, SPAN_RANGE, SpanNetwork, collapse_conv3xc

Uint8 = npt.NDArray[np.uint8]

_NUMBERS = range(1, BLOCKS + 1)


class PlainConv(nn.Module):
    """A 3x3 conv, zero padding 1, under the key the official plain files use (`eval_conv`)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.eval_conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, h, w) to (N, outputs, h, w)."""
        return self.eval_conv(x)  # type: ignore[no-any-return]


class Conv3XC(nn.Module):
    """The training form of a 3x3 conv: 1x1 (to 2x inputs), 3x3, 1x1 (from 2x outputs), and a 1x1 skip.

    Nothing in it is non-linear, so the forward pass collapses the weights, with gradients, and runs one 3x3 conv: the
    same function and the same gradients as running the four, for about a fifth of the arithmetic.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.sk = nn.Conv2d(inputs, outputs, 1)
        self.conv = nn.Sequential(
            nn.Conv2d(inputs, 2 * inputs, 1),
            nn.Conv2d(2 * inputs, 2 * outputs, 3),
            nn.Conv2d(2 * outputs, outputs, 1),
        )

    def merged(self) -> tuple[Tensor, Tensor]:
        """Return weight (outputs, inputs, 3, 3) and bias (outputs,) of the equal plain conv, in full precision."""
        with torch.autocast(self.sk.weight.device.type, enabled=False):
            return collapse_conv3xc(dict(self.named_parameters()), torch.einsum)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, h, w) to (N, outputs, h, w)."""
        return functional.conv2d(x, *self.merged(), padding=1)


class SPAB(nn.Module):
    """Swift parameter-free attention block: `(o3 + x) * (sigmoid(o3) - 0.5)` of three convs with SiLU between."""

    def __init__(self, channels: int, conv: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.c1_r = conv(channels, channels)
        self.c2_r = conv(channels, channels)
        self.c3_r = conv(channels, channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (N, C, h, w) to the block's output and its first activation, both (N, C, h, w)."""
        inner = functional.silu(self.c1_r(x))
        o3 = self.c3_r(functional.silu(self.c2_r(inner)))
        return (o3 + x) * (torch.sigmoid(o3) - 0.5), inner


class Span(nn.Module):
    """The network, plain by default.

    Args:
        channels: feature channels C.
        scale: factor of the pixel shuffle.
        mean, range: it computes on `(rgb - mean) * range`.
        conv: kind of 3x3 conv, made from (inputs, outputs): `PlainConv`, or `Conv3XC` for the training form.
    """

    mean: Tensor

    def __init__(
        self,
        channels: int,
        scale: int,
        mean: tuple[float, float, float] = SPAN_MEAN,
        range: float = SPAN_RANGE,
        conv: Callable[[int, int], nn.Module] = PlainConv,
    ) -> None:
        super().__init__()
        self.channels, self.scale, self.range = channels, scale, range
        self.conv_1 = conv(3, channels)
        for number in _NUMBERS:
            self.add_module(f"block_{number}", SPAB(channels, conv))
        self.conv_2 = conv(channels, channels)
        self.conv_cat = nn.Conv2d(4 * channels, channels, 1)
        self.upsampler = nn.Sequential(nn.Conv2d(channels, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)

    def forward(self, lr: Tensor) -> Tensor:
        """Enlarge a batch of pictures.

        Args:
            lr: (N, 3, h, w), RGB in 0..1, floating point.

        Returns:
            (N, 3, h * scale, w * scale), RGB around 0..1, not clipped.
        """
        first = self.conv_1((lr - self.mean) * self.range)
        x, depths = first, []
        for number in _NUMBERS:
            x, inner = self.get_submodule(f"block_{number}")(x)
            depths.append(x)
        joined = torch.cat([first, self.conv_2(x), depths[0], inner], dim=1)
        return self.upsampler(self.conv_cat(joined))  # type: ignore[no-any-return]


SpanTrain = partial(Span, conv=Conv3XC)
"""`SpanTrain(channels, scale)`: the form to train from scratch; `collapse` makes it plain."""


def lsuv_init(net: Span, lr: Tensor, deviation: float) -> None:
    """Scale a fresh training form in place, so that all its 3x3 convs but the first put out one deviation.

    Layer after layer, as in layer-sequential unit-variance initialisation (Mishkin and Matas, arXiv 1511.06422).

    Args:
        net: training form.
        lr: a batch of patches, (N, 3, h, w), RGB in 0..1.
        deviation: standard deviation of each conv's output on that batch.
    """
    answers: list[Tensor] = []
    for name, module in net.named_modules():
        if isinstance(module, Conv3XC) and name != "conv_1":
            hook = module.register_forward_hook(lambda _, __, output: answers.append(output))
            with torch.no_grad():
                net(lr)
                factor = deviation / answers.pop().std()
                for last in (module.conv[2], module.sk):
                    assert isinstance(last, nn.Conv2d)
                    assert last.bias is not None
                    last.weight.mul_(factor)
                    last.bias.mul_(factor)
            hook.remove()


def to_training_form(net: Span, plain: SpanNetwork) -> None:
    """Make a training form compute a plain model's function, in place; `collapse` undoes it, exactly but for rounding.

    The outer 1x1 convs are drawn orthogonal, so that a step along the inner weights is a step of the same length along
    the plain ones, and the 3x3 between them is solved for. A model of another scale lends everything but its pixel
    shuffle conv as it is; of that the sub-pixels are averaged (or repeated), as if its picture were reduced by a box.

    Args:
        net: training form, of the same mean and range as the model.
        plain: a model with as many channels.
    """
    state = {k: torch.from_numpy(v.copy()) for k, v in plain.weights.items()}
    with torch.no_grad():
        for name, module in net.named_modules():
            if isinstance(module, Conv3XC):
                weight, bias = (state.pop(f"{name}.eval_conv.{kind}") for kind in ("weight", "bias"))
                parts = dict(module.named_parameters())
                first, middle, last = (parts[f"conv.{n}.weight"] for n in range(3))
                nn.init.orthogonal_(first)
                nn.init.orthogonal_(last)
                weight[:, :, 1, 1] -= parts["sk.weight"][:, :, 0, 0]
                middle.copy_(torch.einsum("om,oiyx,ni->mnyx", last[:, :, 0, 0], weight, first[:, :, 0, 0]))
                parts["conv.2.bias"].add_(bias - module.merged()[1])
        for kind in ("weight", "bias"):
            key = f"upsampler.0.{kind}"
            sub = state[key].view(3, plain.scale, plain.scale, -1).permute(0, 3, 1, 2)
            sub = functional.adaptive_avg_pool2d(sub, net.scale).permute(0, 2, 3, 1)
            state[key] = sub.reshape(-1, *state[key].shape[1:])
        for key, value in state.items():
            net.get_parameter(key).copy_(value)


def collapse(net: Span) -> Span:
    """Return the plain network that computes the same function: every `Conv3XC` replaced by its one 3x3 conv.

    Args:
        net: training form (or plain: then this is a copy). It is not changed.

    Returns:
        a new plain network of the same dtype and device, in the same training mode.
    """
    plain = Span(net.channels, net.scale, (0.0, 0.0, 0.0), net.range)
    plain = plain.to(net.mean.device, net.mean.dtype).train(net.training)
    state = {k: v for k, v in net.state_dict().items() if ".sk." not in k and ".conv." not in k}
    with torch.no_grad():
        plain.mean.copy_(net.mean)
        for name, module in net.named_modules():
            if isinstance(module, Conv3XC):
                state[f"{name}.eval_conv.weight"], state[f"{name}.eval_conv.bias"] = module.merged()
    plain.load_state_dict(state)
    return plain


def from_network(model: SpanNetwork) -> Span:
    """Make a plain network in evaluation mode, float32 on the CPU."""
    net = Span(model.channels, model.scale, model.mean, model.range)
    net.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in model.weights.items()})
    return net.eval()


def to_network(net: Span, training: Mapping[str, Any], license: str) -> SpanNetwork:
    """Make the content of a model file from a network of either form."""
    plain = collapse(net)
    mean = [round(value, 6) for value in plain.mean.flatten().tolist()]  # float32 kept 0.4488 as 0.44879999...
    tensors = {k: v.float().cpu().numpy() for k, v in plain.state_dict().items()}
    return SpanNetwork(tensors, net.scale, net.channels, (mean[0], mean[1], mean[2]), net.range, training, license)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Return the context for a stage's forward pass.

    Args:
        precision: as `recipes.Stage.precision`.
        device: the device that computes.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=resolve_precision(precision, device) == "bf16")


def resolve_precision(precision: str, device: torch.device) -> str:
    """Return what "auto" means on a device: "bf16" on GPUs and x86 processors that have it (AVX512_BF16), else "fp32".

    On a processor without, a step took ten times as long in bf16 as in fp32 (measured, AVX2).
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # private: PyTorch 2.10 has no public one
    return "bf16" if supported is not None and supported() else "fp32"


def to_tensor(batch: Uint8, device: torch.device | str = "cpu") -> Tensor:
    """Convert (N, 3, h, w) uint8 to float32 in 0..1, channels last, on a device."""
    return torch.from_numpy(batch).to(device).float().div(255).to(memory_format=torch.channels_last)


def uint8_function(net: nn.Module) -> Callable[[Uint8], Uint8]:
    """Return a function, in full precision, from an LR picture (h, w, 3) to (h * scale, w * scale, 3)."""
    net = net.eval()
    device = next(net.parameters()).device

    def run(lr: Uint8) -> Uint8:
        with torch.inference_mode():
            sr = net(to_tensor(np.array(lr.transpose(2, 0, 1)[None]), device))  # a copy: stored pictures are read-only
            sr = sr.mul(255).round().clamp(0, 255).byte()
        return np.ascontiguousarray(sr[0].permute(1, 2, 0).cpu().numpy())

    return run
