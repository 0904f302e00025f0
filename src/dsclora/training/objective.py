"""The loss of an adaptation's step: L_rec to the originals, L_TS and L_AD to a teacher (DSCLoRA, arXiv 2504.11271)."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dsclora.networks import span_torch
from dsclora.training import losses, processes
from dsclora.training.patches import Batch, PairStore
from dsclora.training.recipes import AdaptRecipe, Stage

Features = dict[str, Tensor]


def guard_patches(batch: int, share: float) -> int:
    """Return how many patches of a batch are cut from guard pictures: that share, but one at least, and not all."""
    return min(batch - 1, max(1, round(batch * share)))


class Objective:
    """The loss of a step: a batch, the student's and the teacher's picture of it, and the three terms.

    L = hr_weight * L_rec + teacher_weight * L_TS + affinity_weight * L_AD. With guard pictures a share of each batch is
    cut from them: there the target is the teacher's picture alone, and the distillation terms look only there; in
    stages with a teacher_weight, the recipe's `teach_own` lets them look everywhere.

    Args:
        recipe: the recipe, with the weights of the terms.
        store: pictures to train on.
        guard: pictures of other kinds, or None.
        teacher: frozen, of the stores' scale or a larger one; None for no distillation, or where all its pictures are
            in the stores.
        taps: modules that both networks have, whose features are compared.
        device: the device of both networks.
    """

    def __init__(
        self,
        recipe: AdaptRecipe,
        store: PairStore,
        guard: PairStore | None = None,
        teacher: nn.Module | None = None,
        taps: Sequence[str] = (),
        device: torch.device | str = "cpu",
    ) -> None:
        self._recipe, self._store, self._guard, self._taps = recipe, store, guard, list(taps)
        self._device = torch.device(device)
        self._teacher = teacher.eval().requires_grad_(False) if teacher is not None else None

    def __call__(self, net: nn.Module, stage: Stage, step: int) -> Tensor:
        """Return the loss, a scalar."""
        return sum(self.terms(net, stage, step).values(), torch.zeros(()))

    def terms(self, net: nn.Module, stage: Stage, step: int) -> dict[str, Tensor]:
        """Return the weighted terms: `rec`, `ts`, `ad`, and `guard`, as far as there are any."""
        batches = self._cut(stage, step)
        pictures, guarded = batches[0], len(batches) > 1
        lr = span_torch.to_tensor(np.concatenate([b.lr for b in batches]), self._device)
        count = len(pictures.lr)
        sr, features = self._run(net, lr, stage)
        hr = span_torch.to_tensor(pictures.hr, self._device)
        terms = {"rec": stage.hr_weight * losses.distance(stage.loss, sr[:count], hr)}

        guard_alone = guarded and not (self._recipe.teach_own and stage.teacher_weight)
        part = slice(count if guard_alone else 0, None)
        cached = [batch.teacher for batch in (batches[1:] if guard_alone else batches)]
        target, teacher_features = self._teach(cached, lr[part], stage, guarded, sr.shape[-2:])
        if target is None:
            return terms
        weight = stage.teacher_weight or (stage.hr_weight if guarded else 0.0)  # a guard needs one: see `task`
        if weight:
            terms["guard" if guarded else "ts"] = weight * losses.distance(stage.loss, sr[part], target)
        if stage.affinity_weight and features:
            affinities = [
                losses.spatial_affinity(
                    features[tap][part], teacher_features[tap], self.rows(teacher_features[tap], step)
                )
                for tap in self._taps
            ]
            terms["ad"] = stage.affinity_weight * sum(affinities, torch.zeros(()))
        return terms

    def _cut(self, stage: Stage, step: int) -> list[Batch]:
        """Cut this process's share of the patches: of the pictures to adapt to, then of the guard if there is one."""
        seed, patch, share = self._recipe.seed, stage.patch // self._store.scale, processes.shard()
        guards = guard_patches(stage.batch, self._recipe.guard_share) if self._guard is not None else 0
        batches = [self._store.batch(seed, step, stage.batch - guards, patch, share)]
        if self._guard is not None and guards:
            batches.append(self._guard.batch(seed + 1, step, guards, patch, share))
        return batches

    def _teach(
        self, cached: Sequence[Any], lr: Tensor, stage: Stage, guarded: bool, size: torch.Size
    ) -> tuple[Tensor | None, Features]:
        """Return the teacher's picture and features of patches; None where this stage does not use it.

        Args:
            cached: the teacher's patches of each batch, None where a store has none.
            lr: the patches.
            stage: the stage, for its weights and precision.
            guarded: whether there is a guard.
            size: the height and width of the picture to return.
        """
        pictures = [picture for picture in cached if picture is not None]
        is_live = len(pictures) < len(cached) or bool(stage.affinity_weight)
        if self._teacher is not None and is_live and (stage.teacher_weight or stage.affinity_weight or guarded):
            with torch.no_grad():
                target, features = self._run(self._teacher, lr, stage)
            if target.shape[-1] > size[-1]:  # the teacher's scale is larger: reduce with MATLAB's kernel
                target = functional.interpolate(target, size=size, mode="bicubic", antialias=True)
            return target, features
        if pictures:
            return span_torch.to_tensor(np.concatenate(pictures), self._device), {}
        return None, {}

    def rows(self, features: Tensor, step: int) -> Tensor | None:
        """Draw the positions of a tap that are compared, the same for taps of one size; None for all."""
        positions, count = features.shape[-2] * features.shape[-1], self._recipe.affinity.rows
        if not 0 < count < positions:
            return None
        generator = torch.Generator().manual_seed(self._recipe.seed * 1_000_003 + step)
        return torch.randperm(positions, generator=generator)[:count].to(self._device)

    def _run(self, net: nn.Module, lr: Tensor, stage: Stage) -> tuple[Tensor, Features]:
        features: Features = {}

        def keep(name: str, _: nn.Module, __: Any, output: Any) -> None:
            features[name] = output[0] if isinstance(output, tuple) else output

        taps = self._taps if stage.affinity_weight else []
        hooks = [net.get_submodule(tap).register_forward_hook(partial(keep, tap)) for tap in taps]
        try:
            with span_torch.autocast(stage.precision, self._device):
                sr = net(lr).float()
        finally:
            for hook in hooks:
                hook.remove()
        return sr, features
