"""The network: the collapse is exact, the training form is what its definition says."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from dsclora.networks import span, span_torch
from helpers import random_model


def test_collapse_is_exact_in_float64() -> None:
    torch.manual_seed(0)
    net = span_torch.SpanTrain(12, 3).double().eval()
    plain = span_torch.collapse(net)
    x = torch.rand(2, 3, 11, 7, dtype=torch.float64)
    with torch.inference_mode():
        assert (net(x) - plain(x)).abs().max() < 1e-12 * net(x).abs().max()
    assert not any(isinstance(m, span_torch.Conv3XC) for m in plain.modules())
    assert torch.equal(plain.mean, net.mean)


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (9, 9)])
def test_conv3xc_equals_its_definition(size: tuple[int, int]) -> None:
    torch.manual_seed(1)
    conv = span_torch.Conv3XC(4, 6).double()
    x = torch.randn(2, 4, *size, dtype=torch.float64, requires_grad=True)
    literal = conv.conv(functional.pad(x, (1, 1, 1, 1))) + conv.sk(x)
    assert (conv(x) - literal).abs().max() < 1e-12
    expected = torch.autograd.grad(literal.square().sum(), [x, *conv.parameters()])
    gradients = torch.autograd.grad(conv(x).square().sum(), [x, *conv.parameters()])
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-9) for a, b in zip(gradients, expected, strict=True))


def test_a_block_by_hand() -> None:
    # convs that pass their input on: o1 = x, o2 = silu(x), o3 = silu(silu(x))
    block = span_torch.SPAB(1, span_torch.PlainConv)
    for conv in (block.c1_r, block.c2_r, block.c3_r):
        assert isinstance(conv, span_torch.PlainConv)
        nn.init.dirac_(conv.eval_conv.weight)
        nn.init.zeros_(conv.eval_conv.bias)  # type: ignore[arg-type]
    out, inner = block(torch.full((1, 1, 1, 1), 2.0))
    silu2 = 2 / (1 + 2.718281828459045**-2)
    silu1 = silu2 / (1 + 2.718281828459045**-silu2)
    assert inner.item() == pytest.approx(silu2)
    assert out.item() == pytest.approx((silu1 + 2) * (1 / (1 + 2.718281828459045**-silu1) - 0.5))


def test_collapse_leaves_the_original_and_a_plain_net_unchanged() -> None:
    net = span_torch.SpanTrain(4, 2)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    plain = span_torch.collapse(net)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    again = span_torch.collapse(plain)
    assert again is not plain
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in plain.state_dict().items())


def test_spread_lets_every_conv_answer_alike() -> None:
    torch.manual_seed(0)
    net, lr = span_torch.SpanTrain(8, 2, range=1.0), torch.rand(4, 3, 16, 16)
    answers = {}
    for name, module in net.named_modules():
        if isinstance(module, span_torch.Conv3XC):
            module.register_forward_hook(lambda _, __, output, name=name: answers.update({name: output.std().item()}))
    net(lr)
    assert answers["block_6.c3_r"] < 0.5, "what it is for"
    span_torch.lsuv_init(net, lr, 1.5)
    net(lr)
    assert all(value == pytest.approx(1.5, rel=1e-3) for name, value in answers.items() if name != "conv_1")


def test_expand_and_collapse_return_the_model() -> None:
    torch.manual_seed(0)
    model = random_model(3, 8)
    net = span_torch.SpanTrain(8, 3, range=model.range)
    span_torch.to_training_form(net, model)
    back = span_torch.collapse(net).state_dict()
    for key, tensor in model.weights.items():
        assert torch.allclose(back[key], torch.from_numpy(tensor), rtol=1e-4, atol=1e-5), key


@pytest.mark.parametrize(("before", "after"), [(4, 2), (2, 4), (6, 3)])
def test_expand_to_another_scale_reduces_or_repeats_sub_pixels(before: int, after: int) -> None:
    torch.manual_seed(0)
    model = random_model(before, 8)
    net = span_torch.SpanTrain(8, after, range=model.range)
    span_torch.to_training_form(net, model)
    lr = torch.rand(1, 3, 9, 11)
    with torch.inference_mode():
        large = span_torch.from_network(model)(lr)
        of_size = functional.adaptive_avg_pool2d(large, (9 * after, 11 * after))
        assert (net(lr) - of_size).abs().max() < 1e-4 * large.abs().max()


def test_saved_model_equals_the_trained_network() -> None:
    torch.manual_seed(0)
    net = span_torch.SpanTrain(6, 2, range=16.0).eval()
    model = span.with_range(span_torch.to_network(net, {}, "MIT"), 255.0)
    x = torch.rand(1, 3, 10, 10)
    with torch.inference_mode():
        assert torch.allclose(span_torch.from_network(model)(x), net(x), atol=1e-4)
    assert replace(model, name="x").sha256 == model.sha256
