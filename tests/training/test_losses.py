"""The affinity loss: its plain definition in value and gradient; a subset of rows is unbiased; memory stays small."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from dsclora.training.losses import distance, spatial_affinity


def plain(student: Tensor, teacher: Tensor) -> Tensor:
    """FAKD's definition, A held whole."""
    s, t = (functional.normalize(f.flatten(2), dim=1) for f in (student, teacher))
    return (s.mT @ s - t.mT @ t).abs().mean()


def features(height: int = 6, width: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    s = torch.randn(2, 5, height, width, dtype=torch.float64, generator=generator)
    t = torch.randn(2, 9, height, width, dtype=torch.float64, generator=generator)
    return s.requires_grad_(), t


def value_and_gradient(loss: Tensor, student: Tensor) -> tuple[float, Tensor]:
    (gradient,) = torch.autograd.grad(loss, student)
    return loss.item(), gradient


@pytest.mark.parametrize("chunk", [1, 10, 42, 1000])
def test_it_equals_the_definition(chunk: int) -> None:
    s, t = features()
    value, gradient = value_and_gradient(spatial_affinity(s, t, chunk=chunk), s)
    expected, expected_gradient = value_and_gradient(plain(s, t), s)
    assert value == pytest.approx(expected, rel=1e-14)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-12, atol=1e-16)


def test_all_rows_drawn_are_the_whole() -> None:
    s, t = features()
    drawn = spatial_affinity(s, t, torch.randperm(42), chunk=5)
    value, gradient = value_and_gradient(3 * drawn, s)
    expected, expected_gradient = value_and_gradient(3 * plain(s, t), s)
    assert value == pytest.approx(expected, rel=1e-14)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-12, atol=1e-16)


def test_two_positions_by_hand() -> None:
    """Student's positions are equal (cosine 1), the teacher's at right angles (0): two of four entries differ by 1."""
    s = torch.tensor([[1.0, 2.0], [0.0, 0.0]], requires_grad=True).view(1, 2, 1, 2)
    t = torch.tensor([[1.0, 0.0], [0.0, 5.0]]).view(1, 2, 1, 2)
    assert spatial_affinity(s, t).item() == 0.5


@pytest.mark.slow
def test_a_subset_of_rows_is_unbiased() -> None:
    s, t = features()
    expected, expected_gradient = value_and_gradient(plain(s, t), s)
    generator = torch.Generator().manual_seed(0)
    values, gradients = [], []
    for _ in range(2000):
        rows = torch.randperm(42, generator=generator)[:6]
        value, gradient = value_and_gradient(spatial_affinity(s, t, rows), s)
        values.append(value)
        gradients.append(gradient)
    drawn = torch.tensor(values, dtype=torch.float64)
    error = drawn.std().item() / 2000**0.5
    assert abs(drawn.mean().item() - expected) < 4 * error
    stacked = torch.stack(gradients)
    z = (stacked.mean(0) - expected_gradient) / (stacked.std(0) / 2000**0.5)
    assert z.abs().max() < 5
    assert 0.8 < z.std() < 1.2


def test_no_gradient_to_the_teacher_and_none_where_the_student_is_frozen() -> None:
    s, t = features()
    t.requires_grad_()
    spatial_affinity(s, t).backward()  # type: ignore[no-untyped-call]
    assert t.grad is None
    assert not spatial_affinity(s.detach(), t).requires_grad


def test_half_precision_features_are_compared_in_single() -> None:
    s, t = (f.detach().to(torch.bfloat16) for f in features())
    with torch.autocast("cpu", torch.bfloat16):
        assert spatial_affinity(s, t).item() == pytest.approx(plain(s.double(), t.double()).item(), rel=1e-5)


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        spatial_affinity(torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 5))


def test_distances_by_hand() -> None:
    a, b = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 4.0])
    assert (distance("l1", a, b).item(), distance("mse", a, b).item()) == (2.0, 5.0)
    zero, off = torch.zeros(3, 2, 4), torch.tensor([0.1, 0.01, 0.0]).view(3, 1, 1).expand(3, 2, 4)  # 20, 40 dB, equal
    assert distance("psnr", zero, off).item() == pytest.approx(-(20 + 40 + 50) / 30, abs=0.02)


PEAK = """
import re, sys, torch
from pathlib import Path
from torch.nn import functional
from dsclora.training.losses import spatial_affinity
torch.set_num_threads(1)
def peak():  # not ru_maxrss, which a process inherits from its parent
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
def plain(s, t):
    s, t = (functional.normalize(f.flatten(2), dim=1) for f in (s, t))
    return (s.mT @ s - t.mT @ t).abs().mean()
side, batch, taps = 64, 4, 2
s = [torch.rand(batch, 26, side, side, requires_grad=True) for _ in range(taps)]
t = [torch.rand(batch, 48, side, side) for _ in range(taps)]
spatial_affinity(s[0][:1, :, :4, :4], t[0][:1, :, :4, :4]).backward()  # what torch loads once
before = peak()
measure = spatial_affinity if sys.argv[1] == "chunked" else plain
sum(measure(a, b) for a, b in zip(s, t)).backward()
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_a_tenth_of_the_definitions() -> None:
    """At 64 x 64, batch 4, two taps."""
    peak = {
        kind: int(subprocess.run([sys.executable, "-c", PEAK, kind], check=True, capture_output=True).stdout)
        for kind in ("plain", "chunked")
    }
    assert peak["plain"] > 800_000, "the definition holds several matrices of 268 MB"
    assert peak["chunked"] < peak["plain"] / 10
