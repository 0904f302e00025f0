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
from dsclora.training.patches import PairStore
from dsclora.training.recipes import AdaptRecipe, Stage


def taught(store: PairStore, guard: PairStore | None, teach_own: bool) -> list[PairStore]:
    """The stores whose pictures a teacher is asked about: the guard alone where there is one, unless `teach_own`."""
    if guard is None:
        return [store]
    return [store, guard] if teach_own else [guard]


def guard_patches(batch: int, share: float) -> int:
    """How many patches of a batch are cut from guard pictures: that share, but one at least, and not all."""
    return min(batch - 1, max(1, round(batch * share)))


class Objective:
    """The loss of a step: a batch, the student's and the teacher's picture of it, and the three terms.

    L = hr_weight * L_rec + teacher_weight * L_TS + affinity_weight * L_AD. With guard pictures a share of each batch is
    cut from them: there the target is the teacher's picture alone, and the distillation terms look only there; in
    stages with a teacher_weight, the recipe's `teach_own` lets them look everywhere.

    Args:
        recipe: weights and the rest.
        store: pictures to train on.
        guard: pictures of other kinds, or None.
        teacher: frozen, of the stores' scale or a larger one; None for no distillation, or where all its pictures are
            in the stores.
        taps: names of the modules whose features are compared.
        device: to compute on.
    """

    def __init__(
        self,
        recipe: AdaptRecipe,
        store: PairStore,
        guard: PairStore | None = None,
        teacher: span_torch.Span | None = None,
        taps: Sequence[str] = (),
        device: torch.device | str = "cpu",
    ) -> None:
        self._recipe, self._store, self._guard, self._taps = recipe, store, guard, list(taps)
        self._device = torch.device(device)
        self._teacher = teacher.eval().requires_grad_(False) if teacher is not None else None

    def __call__(self, net: nn.Module, stage: Stage, step: int) -> Tensor:
        """The loss, a scalar."""
        return sum(self.terms(net, stage, step).values(), torch.zeros(()))

    def terms(self, net: nn.Module, stage: Stage, step: int) -> dict[str, Tensor]:
        """The weighted terms: `rec`, `ts`, `ad`, and `guard`, as far as there are any."""
        seed, patch = self._recipe.seed, stage.patch // self._store.scale
        share = processes.shard()
        guards = guard_patches(stage.batch, self._recipe.guard_share) if self._guard is not None else 0
        own = self._store.batch(seed, step, stage.batch - guards, patch, share)
        batches = [own]
        if self._guard is not None and guards:
            batches.append(self._guard.batch(seed + 1, step, guards, patch, share))
        lr = span_torch.to_tensor(np.concatenate([b.lr for b in batches]), self._device)
        count = len(own.lr)
        sr, features = self._run(net, lr, stage)
        terms = {
            "rec": stage.hr_weight * losses.distance(stage.loss, sr[:count], span_torch.to_tensor(own.hr, self._device))
        }

        alone = bool(guards) and not (self._recipe.teach_own and stage.teacher_weight)
        part = slice(count if alone else 0, None)
        made = [batch.teacher for batch in (batches[1:] if alone else batches)]
        cached = [picture for picture in made if picture is not None]
        live = self._teacher is not None and (len(cached) < len(made) or bool(stage.affinity_weight))
        if live and (stage.teacher_weight or stage.affinity_weight or guards):
            assert self._teacher is not None
            with torch.no_grad():
                target, wanted = self._run(self._teacher, lr[part], stage)
            if target.shape[-1] > sr.shape[-1]:  # of a teacher of a larger scale; reduced with MATLAB's kernel
                target = functional.interpolate(target, size=sr.shape[-2:], mode="bicubic", antialias=True)
        elif cached:
            target, wanted = span_torch.to_tensor(np.concatenate(cached), self._device), {}
        else:
            return terms
        weight = stage.teacher_weight or (stage.hr_weight if guards else 0.0)  # which a guard asks for: `adapt`
        if weight:
            terms["guard" if guards else "ts"] = weight * losses.distance(stage.loss, sr[part], target)
        if stage.affinity_weight and features:
            affinities = [
                losses.spatial_affinity(features[t][part], wanted[t], self._rows(wanted[t], step)) for t in self._taps
            ]
            terms["ad"] = stage.affinity_weight * sum(affinities, torch.zeros(()))
        return terms

    def _rows(self, features: Tensor, step: int) -> Tensor | None:
        """The positions of a tap that are compared, the same for taps of one size; None for all."""
        positions, wanted = features.shape[-2] * features.shape[-1], self._recipe.affinity.rows
        if not 0 < wanted < positions:
            return None
        generator = torch.Generator().manual_seed(self._recipe.seed * 1_000_003 + step)
        return torch.randperm(positions, generator=generator)[:wanted].to(self._device)

    def _run(self, net: nn.Module, lr: Tensor, stage: Stage) -> tuple[Tensor, dict[str, Tensor]]:
        features: dict[str, Tensor] = {}

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
