"""SOAP: what makes it more than Adam, and that its state is all there is."""

import copy
import io
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dsclora.training.soap import Soap


def path(start: Tensor, gradients: Iterable[Tensor], make: Callable[[list[Tensor]], torch.optim.Optimizer]) -> Tensor:
    weight = nn.Parameter(start.clone())
    optimiser = make([weight])
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimiser.step()
    return weight.detach()


def test_rotated_gradients_take_rotated_steps() -> None:
    torch.manual_seed(0)
    start, *gradients = torch.randn(26, 6, 6, dtype=torch.float64)
    left, right = (torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q for _ in range(2))

    def distance(make: Callable[[list[Tensor]], torch.optim.Optimizer]) -> float:
        there = path(left @ start @ right, [left @ g @ right for g in gradients], make)
        return float((there - left @ path(start, gradients, make) @ right).abs().max())

    assert distance(partial(Soap, lr=0.1, refresh=3)) < 1e-6
    assert distance(partial(torch.optim.Adam, lr=0.1)) > 0.1


def test_it_is_the_algorithm_of_the_paper() -> None:
    """Algorithm 3 of arXiv 2409.11321 in float64, the bases ordered anew at every refresh as its authors' code does."""
    random, decay, refresh = np.random.default_rng(0), 0.9, 2
    spread = [np.diag(random.permutation([8.0, 4, 2, 1, 0.5])) for _ in range(12)]  # their order changes
    gradients = [scale @ random.normal(size=(5, 4)) for scale in spread]
    weight = first = second = np.zeros((5, 4))
    left, right = np.zeros((5, 5)), np.zeros((4, 4))
    reordered = 0
    for step, g in enumerate(gradients, 1 - refresh):
        left, right = decay * left + (1 - decay) * g @ g.T, decay * right + (1 - decay) * g.T @ g
        if step == 0:
            bases = [np.linalg.eigh(left)[1], np.linalg.eigh(right)[1]]
        if step <= 0:
            continue
        turned = bases[0].T @ g @ bases[1]
        first, second = decay * first + (1 - decay) * g, decay * second + (1 - decay) * turned**2
        ahead = bases[0].T @ first @ bases[1] / (1 - decay**step)
        weight = weight - 0.1 * bases[0] @ (ahead / np.sqrt(second / (1 - decay**step))) @ bases[1].T
        if step % refresh == 0:
            for side, factor in enumerate((left, right)):
                order = np.argsort(-np.diag(bases[side].T @ factor @ bases[side]))
                reordered += step > refresh and bool((order != np.arange(len(order))).any())
                second = np.take(second, order, axis=side)
                bases[side] = np.linalg.qr(factor @ bases[side][:, order])[0]
    assert reordered > 1
    make = partial(Soap, lr=0.1, betas=(decay, decay), refresh=refresh)
    ours = path(torch.zeros(5, 4, dtype=torch.float64), [torch.from_numpy(g) for g in gradients], make)
    np.testing.assert_allclose(ours.numpy(), weight, atol=1e-4)


def test_a_bias_takes_adams_steps() -> None:
    torch.manual_seed(0)
    start, *gradients = torch.randn(21, 7)
    ours = path(start, gradients, partial(Soap, lr=0.1, betas=(0.9, 0.99)))
    theirs = path(start, gradients, partial(torch.optim.Adam, lr=0.1, betas=(0.9, 0.99), eps=1e-12))
    assert torch.allclose(ours, theirs, rtol=1e-5)


def test_its_bases_are_those_of_the_gradients() -> None:
    torch.manual_seed(0)
    factor = torch.randn(6, 6) @ torch.diag(torch.tensor([32.0, 16, 8, 4, 2, 1]))
    weight = nn.Parameter(torch.zeros(6, 10))
    optimiser = Soap([weight])
    for _ in range(500):
        weight.grad = factor @ torch.randn(6, 10)
        optimiser.step()
    basis = optimiser.state[weight]["basis0"]
    assert torch.allclose(basis.T @ basis, torch.eye(6), atol=1e-5)
    spread = basis.T @ factor @ factor.T @ basis
    assert torch.linalg.norm(spread - spread.diag().diag()) < 0.1 * torch.linalg.norm(spread)
    assert (spread.diag().diff() < 0).all()


def losses(make: Callable[..., torch.optim.Optimizer]) -> list[float]:
    """Of fitting a conv to another one on channels that are all nearly the same."""
    torch.manual_seed(0)
    mixed = torch.ones(8, 8) + 0.1 * torch.randn(8, 8)
    x = torch.einsum("oi,nihw->nohw", mixed, torch.randn(16, 8, 8, 8))
    goal, conv = nn.Conv2d(8, 6, 3), nn.Conv2d(8, 6, 3)
    target = goal(x).detach()
    steps = make(conv.parameters(), lr=0.01)
    values = []
    for step in range(300):
        steps.param_groups[0]["lr"] = 0.01 * (1 - step / 300)
        steps.zero_grad()
        loss = (conv(x) - target).square().mean()
        loss.backward()
        steps.step()
        values.append(loss.item())
    return values


def test_correlated_channels_do_not_hold_it_up() -> None:
    assert losses(Soap)[-1] < 0.1 * losses(torch.optim.Adam)[-1]


@pytest.mark.parametrize("shape", [(5, 3, 3, 3), (5, 40), (5,)])
def test_its_state_is_all_that_counts(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(shape))
    optimiser = Soap([weight], refresh=4)

    def walk(weight: nn.Parameter, optimiser: Soap, gradients: Tensor) -> Tensor:
        for gradient in gradients:
            weight.grad = gradient
            optimiser.step()
        return weight.detach().clone()

    walk(weight, optimiser, torch.randn(6, *shape))
    file = io.BytesIO()
    torch.save(optimiser.state_dict(), file)
    file.seek(0)
    other = copy.deepcopy(weight)
    resumed = Soap([other], refresh=4)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    more = torch.randn(7, *shape)
    assert torch.equal(walk(weight, optimiser, more), walk(other, resumed, more))


def test_gradients_of_nothing_and_not_finite() -> None:
    still = nn.Parameter(torch.ones(3, 4))
    optimiser = Soap([still, nn.Parameter(torch.ones(2))], refresh=2)
    for _ in range(5):
        still.grad = torch.zeros(3, 4)  # as of the first factor of a fresh low-rank update
        optimiser.step()
    assert torch.equal(still, torch.ones(3, 4))
    lost = nn.Parameter(torch.ones(3, 4))
    lost.grad = torch.full((3, 4), torch.nan)
    Soap([lost]).step()
    assert not lost.isfinite().all(), "left for the training loop to find"
