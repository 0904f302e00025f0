"""ConvLoRA: starts at the base bit for bit, touches only what it is told to, comes off without a trace."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dsclora.networks import adapter, span_torch
from dsclora.training import convlora
from dsclora.training.convlora import LAYERED, Target
from helpers import random_model

X = torch.rand(2, 3, 13, 11, generator=torch.Generator().manual_seed(0))


class Edge(nn.Module):
    """EFDN-like: stem, parallel branches of 3x3, 1x1 and depthwise convs, strides, a tail with a pixel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect")
        self.cells = nn.ModuleList(
            nn.ModuleDict(
                {
                    "wide": nn.Conv2d(8, 8, 3, padding=1),
                    "point": nn.Conv2d(8, 8, 1, bias=False),
                    "deep": nn.Conv2d(8, 8, (3, 5), padding=(1, 2), groups=4),
                    "gate": nn.Conv2d(8, 8, 3, stride=2, padding=1, dilation=1),
                }
            )
            for _ in range(2)
        )
        self.tail = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        for cell in self.cells:
            assert isinstance(cell, nn.ModuleDict)
            gate = functional.interpolate(torch.sigmoid(cell["gate"](x)), x.shape[2:])
            x = x + functional.silu(cell["wide"](x) + cell["point"](x) + cell["deep"](x)) * gate
        return self.tail(x)  # type: ignore[no-any-return]


class Residual(nn.Module):
    """EDSR-like, with a batch norm: buffers must survive."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 3, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)  # type: ignore[no-any-return]


def nets() -> list[tuple[nn.Module, tuple[Target, ...]]]:
    torch.manual_seed(0)
    return [
        (span_torch.from_network(random_model(2, 6)), LAYERED),
        (Edge().eval(), (Target("cells.*.deep", 2, 2), Target("*", 1, 3))),
        (Residual().eval(), (Target("body.3", 4, 4),)),
    ]


def stir(net: nn.Module) -> nn.Module:
    """Give the updates numbers."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return net


@pytest.mark.parametrize(("net", "targets"), nets(), ids=["span", "edge", "residual"])
def test_attach_starts_at_the_base_and_detach_returns_to_it(net: nn.Module, targets: tuple[Target, ...]) -> None:
    before = copy.deepcopy(net.state_dict())
    attached = convlora.attach(net, targets)
    assert torch.equal(attached(X), net(X))
    moved = stir(attached)
    assert not torch.allclose(moved(X), net(X), atol=1e-3)
    assert torch.equal(convlora.detach(moved)(X), net(X))
    after = convlora.detach(moved).state_dict()
    for state in (net.state_dict(), after):
        assert state.keys() == before.keys()
        assert all(torch.equal(state[key], before[key]) for key in before)
    merged = convlora.detach(moved, merged=True)
    assert merged.state_dict().keys() == before.keys()
    torch.testing.assert_close(merged(X), moved(X))
    again = convlora.insert(net, convlora.extract(moved))
    assert torch.equal(again(X), moved(X))


@pytest.mark.parametrize(("net", "targets"), nets(), ids=["span", "edge", "residual"])
def test_only_the_chosen_convs_learn(net: nn.Module, targets: tuple[Target, ...]) -> None:
    attached = convlora.attach(net, targets)
    frozen = {name: p.clone() for name, p in attached.named_parameters() if not p.requires_grad}
    assert all("lora_" in name for name, p in attached.named_parameters() if p.requires_grad)
    optimiser = torch.optim.Adam([p for p in attached.parameters() if p.requires_grad], lr=0.01)
    losses = []
    for _ in range(12):
        optimiser.zero_grad()
        loss = (attached(X) - 0.5).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(torch.equal(p, frozen[name]) for name, p in attached.named_parameters() if name in frozen)


def test_the_authors_layered_set() -> None:
    net = convlora.attach(span_torch.Span(26, 4))
    assert sum(p.numel() for p in net.parameters() if p.requires_grad) == 25_920
    updates = convlora.extract(net)
    assert len(updates) == 20
    assert updates["block_3.c2_r.eval_conv"].a.shape == (6, 78)
    assert updates["upsampler.0"].b.shape == (144, 24)
    assert updates["conv_2.eval_conv"].multiplier == 2
    assert "conv_1.eval_conv" not in updates
    assert convlora.sconvlbs(net) == [f"block_{n}" for n in range(1, 7)]
    assert convlora.sconvlbs(convlora.attach(span_torch.Span(8, 2), [Target("block_1.c?_r.eval_conv", 1, 1)])) == [
        "block_1"
    ]
    assert convlora.sconvlbs(convlora.attach(span_torch.Span(8, 2), [Target("*.c1_r.eval_conv", 1, 1)])) == []


def test_an_update_by_hand() -> None:
    """W (1, 1, 2, 2) with r = 1: B (2, 2) @ A (2, 2), times alpha."""
    conv = nn.Sequential(nn.Conv2d(1, 1, 2, bias=False))
    net = convlora.attach(conv, [Target("0", 1, 3.0)])
    lora = net.get_submodule("0")
    assert isinstance(lora, convlora.ConvLoRA)
    with torch.no_grad():
        lora.conv.weight.zero_()
        lora.lora_A.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        lora.lora_B.copy_(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    assert lora.weight.flatten().tolist() == [3.0, 6.0, 12.0, 18.0]


def test_merging_with_numpy_equals_the_attached_network() -> None:
    base = random_model(2, 6)
    attached = stir(convlora.attach(span_torch.from_network(base)))
    update = adapter.Adapter(convlora.extract(attached), base.sha256, 2, 6)
    merged = span_torch.from_network(adapter.merge(base, [(update, 1.0)]))
    for name, tensor in convlora.detach(attached, merged=True).state_dict().items():
        np.testing.assert_allclose(merged.state_dict()[name], tensor, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(merged(X), attached(X))


def test_mistakes_of_the_caller() -> None:
    net = span_torch.Span(6, 2)
    with pytest.raises(ValueError, match=r"no conv is called 'block_9.*'; there are: conv_1.eval_conv, block_1"):
        convlora.attach(net, [Target("block_9.*", 1, 1)])
    attached = convlora.attach(net)
    with pytest.raises(ValueError, match="carries ConvLoRA already"):
        convlora.attach(attached)
    updates = convlora.extract(convlora.attach(span_torch.Span(8, 2)))
    with pytest.raises(ValueError, match="an update of shape"):
        convlora.insert(net, updates)


def test_seeds_tell_updates_apart() -> None:
    a, b, c = (convlora.extract(convlora.attach(span_torch.Span(6, 2), seed=s))["upsampler.0"].a for s in (1, 1, 2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
