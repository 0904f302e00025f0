"""The budget: lengths by count and by time, against arithmetic by hand; a plan that outlives its process."""

import logging
import time
from pathlib import Path

import pytest

from dsclora.training.budget import Budget, Plan, divide, load_plan, median_seconds, save_plan
from dsclora.training.run import Run
from helpers_training import recipe


def test_by_count() -> None:
    r = recipe(iterations=40)
    assert (Budget().factor(r), Budget().is_limited, Budget().seconds) == (1, False, None)
    assert Budget(iterations=10).factor(r) == 0.25
    assert Budget(iterations=10).is_limited
    two = r.model_copy(update={"stages": [*r.stages, *r.stages]})
    assert Budget(iterations=20).factor(two) == 0.25


def test_by_time() -> None:
    budget = Budget(minutes=2)
    assert budget.is_limited
    assert budget.seconds is not None
    assert 100 < budget.seconds <= 120


def test_time_is_divided_between_judging_and_training(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "dsclora")
    r = recipe(iterations=40, validations=4)
    # 100 s: 10 for the gate, 5 validations of 2 s (the base's is one), 80 for 40 steps of 1 s
    assert divide(r, 100, [1.0], 2, 10) == (2.0, 4)
    # a validation of 10 s: no more than a quarter of 90 s, so 2 of them and the base's; 60 are left
    assert divide(r, 100, [1.0], 10, 10) == (1.5, 2)
    assert caplog.messages == []
    # less than nothing is left: five seconds all the same
    assert divide(r, 12, [0.5], 1, 10) == (0.25, 2)
    assert len(caplog.messages) == 1


def test_a_plan_holds_where_a_run_is_resumed(tmp_path: Path) -> None:
    folder, plan = tmp_path / "run", Plan(0.25, 3, True)
    folder.mkdir()
    assert load_plan(Run(folder, resume=True)) is None
    save_plan(Run(folder), plan)
    assert load_plan(Run(folder, resume=True)) is None, "nothing was computed by it"
    (folder / "checkpoint.pt").touch()
    assert load_plan(Run(folder, resume=True)) == plan
    assert load_plan(Run(folder, overwrite=True)) is None


def test_the_median_of_times_is_not_that_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = iter([5.0, 5.0, 1.0, 1.0, 9.0, 2.0, 2.0])
    clock = [0.0]

    def work() -> None:
        clock[0] += next(pauses)

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    assert median_seconds(work) == 2
