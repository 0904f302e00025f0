"""What training minimises."""

from typing import Literal

from torch import Tensor
from torch.nn import functional


def distance(kind: Literal["l1", "mse"], a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute or mean squared difference of two tensors of equal shape; a scalar.

    To the original it is the reconstruction loss L_rec, to the teacher's picture pixel distillation L_TS
    (arXiv 2504.11271).
    """
    return functional.l1_loss(a, b) if kind == "l1" else functional.mse_loss(a, b)
