"""Extract an adapter from two models: the low-rank update nearest to their difference."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dsclora.errors import ModelError, UsageError
from dsclora.networks import Network
from dsclora.networks.adapter import Adapter, Update, create, describe_kind


@dataclass(frozen=True)
class Remainder:
    """The part of a difference that an extracted adapter leaves out.

    Attributes:
        convs: by conv, the share of the weight's change that is lost: Frobenius norm over Frobenius norm, 0..1.
        total: the same over all weights and biases.
    """

    convs: Mapping[str, float]
    total: float


def extract(base: Network, tuned: Network, rank: int, license: str | None = None) -> tuple[Adapter, Remainder]:
    """Find the low-rank adapter nearest to the difference of two models: truncated SVD in loralib's layout.

    Args:
        base, tuned: two models of one kind that differ in their weights alone.
        rank: the rank of every conv's update, in loralib's sense: rank * kh singular values are kept, or all where a
            conv has fewer. Convs that are equal in both are left out.
        license: the adapter's license; by default the tuned model's.

    Returns:
        the adapter, with alpha = rank, and its error. Biases cannot be in an adapter and count as lost.

    Raises:
        ModelError: the models are not of one kind, or equal.
        UsageError: rank below 1.
    """
    if rank < 1:
        raise UsageError(f"--rank must be at least 1, got {rank}")
    shapes = [{key: value.shape for key, value in network.weights.items()} for network in (base, tuned)]
    if shapes[0] != shapes[1] or base.with_weights(tuned.weights).fingerprint != tuned.fingerprint:
        kinds = [f"{network.name} is {describe_kind(network, detailed=True)}" for network in (base, tuned)]
        raise ModelError(f"{kinds[0]}; {kinds[1]}; an adapter needs two models of one kind")
    updates, lost, losses, changes = {}, {}, 0.0, 0.0
    for key, before in base.weights.items():
        change = tuned.weights[key].astype(np.float64) - before
        square = float((change**2).sum())
        changes += square
        if not square:
            continue
        if not key.endswith(".weight") or before.ndim != 4:
            losses += square
            continue
        conv, height = key.removesuffix(".weight"), before.shape[2]
        rows, columns, inner = Update.shapes(before.shape, rank)
        u, s, v = np.linalg.svd(change.reshape(rows, columns), full_matrices=False)
        kept = min(inner, s.size // height * height)
        root = np.sqrt(s[:kept])
        r = kept // height
        updates[conv] = Update(
            (root[:, None] * v[:kept]).astype(np.float32), (u[:, :kept] * root).astype(np.float32), r, r
        )
        rest = float((s[kept:] ** 2).sum())
        lost[conv] = math.sqrt(rest / square)
        losses += rest
    if not updates:
        raise ModelError(f"{base.name} and {tuned.name} have the same conv weights; there is nothing to extract")
    remainder = Remainder(lost, math.sqrt(losses / changes))
    training = {"extracted_from": tuned.name, "rank": rank, "lost": round(remainder.total, 6)}
    return create(base, updates, training, tuned.license if license is None else license), remainder
