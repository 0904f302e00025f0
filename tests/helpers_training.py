"""Recipes, runs and folders that tests of training share."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dsclora.networks import Network, span_graph, span_torch
from dsclora.networks.adapter import Adapter, Range
from dsclora.networks.span import SpanNetwork
from dsclora.training import adapt, fake_quant, loop
from dsclora.training.budget import Budget
from dsclora.training.gate import Outcome
from dsclora.training.recipes import AdaptRecipe, Lora, Stage
from dsclora.training.run import Progress, Run
from dsclora.training.selection import find_selection
from dsclora.training.task import prepare
from helpers import CPU_FLAGS, photo

LORA = [Lora(convs="block_?.c?_r.eval_conv", rank=1, alpha=2), Lora(convs="upsampler.0", rank=4, alpha=8)]

PRETRAIN = """
validate_every = 10
checkpoint_every = 4
ema = 0.9

[network]
scale = 2
channels = 6

[[stage]]
precision = "fp32"
iterations = 16
batch = 2
patch = 24
learning_rate = 2e-3
warmup = 4

[[stage]]
precision = "fp32"
iterations = 8
batch = 2
patch = 32
learning_rate = 1e-3
loss = "mse"
"""
"""A recipe of a base model that trains in a second."""

SOAP = 'optimiser = "soap"\n' + PRETRAIN.replace("channels = 6", 'channels = 6\nform = "plain"')

OVERFLOWS = "avx2" in CPU_FLAGS and not CPU_FLAGS & {"avx512_vnni", "avx_vnni"}
"""Whether OpenVINO's int8 does here what `adapter.WEIGHT_LEVELS` tells of."""


def recipe(**changes: object) -> AdaptRecipe:
    stage: dict[str, object] = {
        "iterations": 40,
        "batch": 4,
        "patch": 32,
        "learning_rate": 5e-3,
        "final_learning_rate": 1e-4,
        "precision": "fp32",
    }
    stage |= {key: changes.pop(key) for key in list(changes) if key in Stage.model_fields}
    content = {"lora": LORA, "stage": [stage], "ema": 0.9, "validations": 4, **changes}
    return AdaptRecipe.model_validate(content)


def adapted(
    r: AdaptRecipe,
    base: Network,
    images: Path,
    folder: Path,
    teacher: Network | None = None,
    *,
    guard: Path | None = None,
    start: Adapter | None = None,
    minutes: float | None = None,
    iterations: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    report: Callable[[Progress], None] = lambda _: None,
) -> Outcome:
    """Adapt a base to a folder, held-out pictures and all, without writing an adapter's file."""
    run = Run(folder, resume=resume, overwrite=overwrite, report=report)
    run.refuse_earlier_run()
    task = prepare(r, base, teacher, guarded=guard is not None, start=start)
    selection = find_selection(task.recipe, images, base.scale, guard=guard)
    return adapt.adapt(task, selection, run, Budget(minutes, iterations))


def fit(
    net: nn.Module,
    stage: Stage,
    loss: Callable[[nn.Module, Stage, int], Tensor],
    score: Callable[[nn.Module], float],
    folder: Path,
    *,
    validate_every: int,
    checkpoint_every: int,
    report_every: int = 100,
    resume: bool = False,
    report: Callable[[Progress], None] = lambda _: None,
) -> tuple[nn.Module, float]:
    """Train any module for one stage."""
    settings = loop.Settings(
        ema=0.5,
        clip=1.0,
        validate_every=validate_every,
        checkpoint_every=checkpoint_every,
        report_every=report_every,
    )
    run = Run(folder, resume=resume, report=report)
    return loop.Training(net, [stage], loss, score, run, settings, "").train()


def updates_of(adapter: Adapter) -> dict[str, tuple[bytes, bytes]]:
    """The bytes of an adapter's updates, by conv, to be compared."""
    return {conv: (update.a.tobytes(), update.b.tobytes()) for conv, update in adapter.updates.items()}


def on_ones(net: nn.Module) -> Tensor:
    """The square of what a linear layer makes of a one."""
    value: Tensor = net(torch.ones(1, 1)).square().sum()
    return value


def batch(height: int = 24, width: int = 20, seed: int = 0) -> torch.Tensor:
    return span_torch.to_tensor(photo(height, width, seed=seed).transpose(2, 0, 1)[None])


def avoid_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer levels where sums would overflow, so that OpenVINO computes what is simulated on any processor."""
    if OVERFLOWS:
        for module in (span_graph, fake_quant):
            monkeypatch.setattr(module, "WEIGHT_LEVELS", 64)


def calibrated(model: SpanNetwork, balance: float = 0.75) -> dict[str, Range]:
    return fake_quant.calibrate(span_torch.from_network(model), [batch(seed=n) for n in range(4)], balance)
