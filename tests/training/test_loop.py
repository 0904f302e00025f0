"""The training loop: what is left counts evenly, and a divergence loses nothing that was learnt before."""

import json
import math
import time
from pathlib import Path

import pytest
import torch

from dsclora.training import loop
from dsclora.training.recipes import Stage
from dsclora.training.run import Progress
from helpers_training import fit, on_ones


def test_what_is_left_counts_validations_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes a second, a validation thirty, right after a report or not."""
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    reports: list[Progress] = []

    def loss(net: torch.nn.Module, _: Stage, step: int) -> torch.Tensor:
        clock[0] += 1
        return on_ones(net)

    def score(_: torch.nn.Module) -> float:
        clock[0] += 30
        return 1.0

    net, stage = torch.nn.Linear(1, 1), Stage(iterations=60)
    report = reports.append
    fit(net, stage, loss, score, tmp_path, validate_every=21, checkpoint_every=60, report=report, report_every=20)
    left = {p.step: p.seconds_left for p in reports}
    assert left == {20: 40, 21: 39 * 51 / 21, 40: 20 * 70 / 40, 42: 18 * 102 / 42, 60: 0}


@pytest.mark.parametrize("how", ["nan", "score"])
def test_divergence_goes_back_with_half_the_rate(tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture) -> None:
    net = torch.nn.Linear(1, 1)
    stage = Stage(iterations=60, learning_rate=0.2, final_learning_rate=0.2)
    rates: list[float] = []

    def loss(net: torch.nn.Module, _: Stage, step: int) -> torch.Tensor:
        value = on_ones(net)
        return value * math.nan if how == "nan" and step == 30 and len(caplog.messages) < 2 else value

    def score(net: torch.nn.Module) -> float:
        return -20.0 if how == "score" and len(caplog.messages) < 2 and rates and len(rates) % 3 == 0 else 10.0

    def report(p: Progress) -> None:
        rates.append(p.learning_rate)

    fit(net, stage, loss, score, tmp_path, validate_every=5, checkpoint_every=10, report=report)
    assert len(caplog.messages) == 2
    assert all("with half the learning rate" in line for line in caplog.messages)
    assert rates[-1] == pytest.approx(0.05)
    assert all(p.isfinite().all() for p in net.parameters())
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["slowdowns"] for row in rows if "diverged" in row] == [1, 2]
    assert rows[-1]["step"] == 60


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_checkpoint_that_had_diverged_is_not_gone_back_to(
    tmp_path: Path, interrupted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    net = torch.nn.Linear(1, 1)

    def loss(net: torch.nn.Module, _: Stage, step: int) -> torch.Tensor:
        if step == 35 and interrupted and not (tmp_path / "stopped").exists():
            (tmp_path / "stopped").touch()
            raise KeyboardInterrupt
        if step == 25 and not caplog.messages:  # a checkpoint is due at 30, a validation at 40
            with torch.no_grad():
                next(net.parameters()).add_(1e6)
        value: torch.Tensor = net(torch.ones(1, 1)).abs().sum()
        return value

    def score(net: torch.nn.Module) -> float:
        return -20.0 if next(net.parameters()).abs().max() > 1e3 else 10.0

    def train(resume: bool) -> None:
        stage = Stage(iterations=60)
        fit(net, stage, loss, score, tmp_path, validate_every=20, checkpoint_every=10, resume=resume)

    if interrupted:
        with pytest.raises(KeyboardInterrupt):
            train(resume=False)
    train(resume=interrupted)
    assert caplog.messages == ["diverged before iteration 40; going back to 20 with half the learning rate"]


@pytest.mark.parametrize("lasting", [False, True])
def test_what_was_learnt_before_a_divergence_is_kept(
    tmp_path: Path, lasting: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A lasting one ends the run, with its best weights; passing ones, each got over, never do."""
    net, stage, reached = torch.nn.Linear(1, 1), Stage(iterations=120), set[int]()

    def loss(net: torch.nn.Module, _: Stage, step: int) -> torch.Tensor:
        value = on_ones(net)
        lost = step >= 45 if lasting else step % 10 == 5 and step not in reached
        reached.add(step)
        return value * math.nan if lost else value

    scores = iter([1.0, 2.0, 7.0, 6.0] + [5.0] * 200)
    kept, best = fit(net, stage, loss, lambda _: next(scores), tmp_path, validate_every=10, checkpoint_every=10)
    assert best == 7.0
    assert all(p.isfinite().all() for p in kept.parameters())
    slowed = [line for line in caplog.messages if "with half the learning rate" in line]
    assert len(slowed) == (loop.SLOWDOWNS if lasting else 12)
    rest = [line for line in caplog.messages if line not in slowed]
    assert len(rest) == lasting
    assert all(line.endswith("it ends here, with the best weights of the 40 iterations before") for line in rest)


def test_learning_rate_curve() -> None:
    stage = Stage(iterations=100, warmup=10, learning_rate=1.0, final_learning_rate=0.0)
    curve = [loop.learning_rate(stage, s) for s in range(100)]
    assert curve[0] == pytest.approx(0.1)
    assert max(curve) == curve[9] == curve[10] == 1.0
    assert curve[55] == pytest.approx(0.5)
    assert curve[99] == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))
