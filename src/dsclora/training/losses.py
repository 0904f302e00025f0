"""The losses that training minimises."""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from dsclora.pictures.metrics import PSNR_CAP


def distance(kind: Literal["l1", "mse", "psnr"], a: Tensor, b: Tensor) -> Tensor:
    """Return the distance of two tensors of equal shape (N, ...), a scalar.

    "l1" is the mean absolute, "mse" the mean squared difference. "psnr" is the mean over the N of log10 of each one's
    mean squared difference, for values in 0..1: their mean PSNR in dB over -10. There an easy picture counts as much
    as a hard one, as it does in a table; beyond `metrics.PSNR_CAP` there is nothing to gain.

    To the original it is the reconstruction loss L_rec, to the teacher's picture pixel distillation L_TS
    (arXiv 2504.11271).
    """
    if kind == "psnr":
        return ((a - b).square().flatten(1).mean(1) + 10 ** (-PSNR_CAP / 10)).log10().mean()
    return functional.l1_loss(a, b) if kind == "l1" else functional.mse_loss(a, b)


def spatial_affinity(student: Tensor, teacher: Tensor, rows: Tensor | None = None, chunk: int = 128) -> Tensor:
    """Return the spatial feature affinity of one tap: mean |A_S - A_T|, a scalar (L_AD is its sum over taps).

    A = F^T F with F the features at the H * W positions, each of length 1 over the channels: the cosines between all
    pairs of positions, (N, HW, HW). It does not depend on the number of channels. From FAKD (He et al., ICIP 2020).

    A is never stored: value and gradient are computed together, `chunk` rows at a time, so memory grows with
    `chunk * HW` and not with `(HW)^2`.

    Args:
        student: (N, C, H, W), floating point; the gradient goes here.
        teacher: (N, D, H, W); gets no gradient.
        rows: indices (R,) of positions, int64. Then only these rows of A are compared. Drawn uniformly without
            replacement they make value and gradient unbiased estimates at R / HW of the cost.
        chunk: rows at a time.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    if student.ndim != 4 or student.shape[0] != teacher.shape[0] or student.shape[2:] != teacher.shape[2:]:
        raise ValueError(f"features of shapes {tuple(student.shape)} and {tuple(teacher.shape)} cannot be compared")
    value: Tensor = _Affinity.apply(_unit(student), _unit(teacher.detach()), rows, chunk)  # type: ignore[no-untyped-call]
    return value


def _unit(features: Tensor) -> Tensor:
    """Flatten (N, C, H, W) to (N, C, HW), every position of length 1; half precision becomes float32."""
    flat = features.flatten(2)
    return functional.normalize(flat if flat.dtype == torch.float64 else flat.float(), dim=1)


class _Affinity(torch.autograd.Function):
    """Mean |S^T S - T^T T| of unit features S (N, C, P) and T (N, D, P), with the gradient from the same pass."""

    @staticmethod
    def forward(ctx: Any, s: Tensor, t: Tensor, rows: Tensor | None, chunk: int) -> Tensor:
        n, _, positions = s.shape
        compared = torch.arange(positions, device=s.device) if rows is None else rows
        total = s.new_zeros(())
        gradient = torch.zeros_like(s) if ctx.needs_input_grad[0] else None
        with torch.autocast(s.device.type, enabled=False):
            for index in torch.split(compared, chunk):
                s_rows = s[:, :, index]
                difference = s_rows.mT @ s
                difference.baddbmm_(t[:, :, index].mT, t, alpha=-1)
                total += difference.abs().sum()
                if gradient is None:
                    continue
                sign = difference.sign_()
                by_row = s @ sign.mT  # the gradient that the rows get from all columns
                if rows is None:  # A is symmetric: over all chunks the columns get just as much
                    gradient[:, :, index] += 2 * by_row
                else:
                    gradient.index_add_(2, index, by_row)
                    gradient.baddbmm_(s_rows, sign)
        count = n * compared.numel() * positions
        if gradient is not None:
            ctx.save_for_backward(gradient.div_(count))
        return total / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return outer * gradient, None, None, None
