"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al. 2024, arXiv 2409.11321)."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

ROUNDING = 1e-6
"""A share of a factor's trace that is added, so that rounding does not turn directions without gradients."""


class Soap(torch.optim.Optimizer):
    """The optimiser SOAP, for convs and other small matrices.

    A weight (out, ...) counts as a matrix (out, rest) with gradient G. Averages of G Gᵀ and Gᵀ G (its factors) have an
    eigenbasis each, in which the numbers hardly depend on each other, and there Adam works; a bias is Adam's alone. A
    weight's first `refresh` gradients give its bases and no step; one would depend on rounding. Then every so many the
    bases take one step of orthogonal iteration. The first moment is kept in the weight's own basis.

    Args:
        params: the parameters to optimise; float32.
        lr: the learning rate; up to three times Adam's.
        betas: decay of the first moment, and of the second moment and the factors.
        eps: added to the root of the second moment.
        refresh: steps from one basis to the next.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 3e-3,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-12,
        refresh: int = 10,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "refresh": refresh})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take a step along the gradients; a parameter without one stays. No closure."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update = _update(self.state[parameter], parameter.grad, group)
                    parameter.add_(update.view_as(parameter), alpha=-group["lr"])


def _update(state: dict[str, Any], gradient: Tensor, group: dict[str, Any]) -> Tensor:
    """Return the direction for a parameter, (out, rest), to be multiplied by the learning rate; its state moves on."""
    first_decay, second_decay = group["betas"]
    g = gradient.reshape(gradient.shape[0], -1)
    factors = (g @ g.T, g.T @ g) if gradient.dim() > 1 else ()
    if not state:
        state |= {"gradients": 0, "first": torch.zeros_like(g), "second": torch.zeros_like(g)}
        state |= {f"factor{side}": torch.zeros_like(factor) for side, factor in enumerate(factors)}
    state["gradients"] += 1
    averages = [state[f"factor{side}"].lerp_(factor, 1 - second_decay) for side, factor in enumerate(factors)]
    step = state["gradients"] - (group["refresh"] if factors else 0)
    if step == 0:
        for side, average in enumerate(averages):
            state[f"basis{side}"] = torch.linalg.eigh(average.nan_to_num()).eigenvectors
    if step <= 0:
        return g * 0  # or not a number, for the training loop to find

    first, second = state["first"], state["second"]
    bases = [state[f"basis{side}"] for side in range(len(factors))]
    turned = _turn(g, bases)
    first.lerp_(g, 1 - first_decay)
    second.mul_(second_decay).addcmul_(turned, turned, value=1 - second_decay)
    deviation = (second / (1 - second_decay**step)).sqrt_().add_(group["eps"])
    update = _turn(first, bases).div_(1 - first_decay**step).div_(deviation)
    update = _turn(update, [basis.T for basis in bases])

    if step % group["refresh"] == 0:
        for side, (average, basis) in enumerate(zip(averages, bases, strict=True)):
            image = average @ basis + ROUNDING * average.trace() * basis
            order = (basis * image).sum(0).argsort(descending=True)  # QR takes the first for the largest
            state["second"] = state["second"].index_select(side, order)
            state[f"basis{side}"] = torch.linalg.qr(image[:, order]).Q
    return update


def _turn(matrix: Tensor, bases: list[Tensor]) -> Tensor:
    """Turn a matrix into the bases of its sides; copy it where there are none."""
    return bases[0].T @ matrix @ bases[1] if bases else matrix.clone()
