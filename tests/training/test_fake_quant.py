"""int8 as simulated, as numpy counts it, and as the runtimes compute it."""

import numpy as np
import pytest
import torch
from torch import nn

from dsclora.engines.no_telemetry import import_onnxruntime, import_openvino
from dsclora.networks import INPUT, span_graph, span_torch
from dsclora.networks.adapter import Range
from dsclora.pictures.metrics import psnr
from dsclora.training import convlora, fake_quant
from helpers import random_model
from helpers_training import avoid_overflow, batch, calibrated


def test_a_conv_is_rounded_as_the_formula_says() -> None:
    """By hand: a 1x1 conv of two channels, divisors 1 and 10, range -1 to 4: a level is 5/255, zero is level 51."""
    conv = nn.Conv2d(2, 1, 1)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([0.5, -0.02]).view(1, 2, 1, 1))
        nn.init.constant_(conv.bias, 0.25)  # type: ignore[arg-type]
    interval = Range(-1.0, 4.0, np.array([1, 10], np.float32))
    assert interval.zero_point == 51
    net = fake_quant.QuantizedConv(conv, interval)
    x = torch.tensor([[1.2345, 0.0], [30.0, -90.0]]).view(1, 2, 1, 2)  # -9 is below the range: -1 is the least
    levels = np.array([[round(1.2345 / (5 / 255)), 0], [round(3.0 / (5 / 255)), -51]]) * (5 / 255)
    weights = np.array([0.5, round(-0.2 / (0.5 / 127)) * (0.5 / 127)])  # -0.02 x 10, of a scale of 0.5 / 127
    np.testing.assert_allclose(net(x).detach().numpy().ravel(), weights @ levels + 0.25, atol=1e-6)


def test_zero_stays_zero_and_borders_with_it() -> None:
    conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    net = fake_quant.QuantizedConv(conv, Range(-0.7, 2.9, np.ones(1, np.float32)))
    assert not net(torch.zeros(1, 1, 5, 5)).any()


def test_gradients_reach_the_update_and_the_range() -> None:
    student = convlora.attach(span_torch.from_network(random_model()))
    net = fake_quant.insert_fake_quant(student, calibrated(random_model()))
    net(batch()).square().sum().backward()
    gradients = {name: p.grad for name, p in net.named_parameters() if p.requires_grad}
    assert {name.rsplit(".", 1)[1] for name in gradients} == {"lora_A", "lora_B", "stretch"}
    names = [name for name, g in gradients.items() if g is not None and g.abs().sum() > 0]
    assert sum(name.endswith("lora_B") for name in names) == 20
    assert sum(name.endswith("stretch") for name in names) == 20


@pytest.mark.parametrize("balance", [0.0, 0.75])
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_runtimes_compute_what_is_simulated(runtime: str, balance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(runtime)
    if runtime == "openvino":
        avoid_overflow(monkeypatch)
    model = random_model(3, 8)
    ranges = calibrated(model, balance)
    proto = span_graph.build(model, ranges=ranges).SerializeToString()
    lr = batch(19, 23, seed=9)
    with torch.inference_mode():
        expected = fake_quant.insert_fake_quant(span_torch.from_network(model), ranges)(lr).clamp(0, 1).numpy()
        exact = span_torch.from_network(model)(lr).clamp(0, 1).numpy()
    if runtime == "onnxruntime":
        session = import_onnxruntime().InferenceSession(proto, providers=["CPUExecutionProvider"])
        output = session.run(None, {INPUT: lr.numpy()})[0]
    else:
        openvino = import_openvino()

        core = openvino.Core()
        output = core.compile_model(core.read_model(proto), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([lr.numpy()])[0]
    # a value between two levels may go either way, and then goes on through the network
    assert psnr(255 * output, 255 * expected) > psnr(255 * exact, 255 * expected) + 3
    assert psnr(255 * output, 255 * exact) > 30
