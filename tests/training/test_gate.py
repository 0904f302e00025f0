"""The do-no-harm gate: what is no gain is refused, and no interval promises too much."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dsclora.networks import adapter
from dsclora.training.gate import Change, judge, mean_interval
from dsclora.training.selection import find_selection
from helpers import random_model
from helpers_training import adapted, recipe


@pytest.mark.slow
def test_no_gain_is_refused(pictures: Path, tmp_path: Path) -> None:
    """What was merged already is too much when it is added once more."""
    good = adapted(recipe(iterations=100), random_model(2, 6), pictures, tmp_path / "good").adapter
    model = adapter.merge(random_model(2, 6), [(good, 1.0)])
    verdict = judge(model, replace(good, base_sha256=model.sha256), find_selection(recipe(), pictures, 2))
    assert verdict.change.gain < 0, "twice the same update is too much"
    assert not verdict.accepted


def test_the_interval_of_a_mean() -> None:
    assert mean_interval([0.5]) == (-math.inf, math.inf)
    gains = np.random.default_rng(0).normal(0.1, 0.2, 100)
    for confidence, z in ((0.95, 1.96), (0.99, 2.576)):
        low, high = mean_interval(gains.tolist(), confidence)
        half = z * gains.std() / 10
        assert low == pytest.approx(gains.mean() - half, abs=0.01)
        assert high == pytest.approx(gains.mean() + half, abs=0.01)


@pytest.mark.parametrize("confidence", [0.95, 0.99])
@pytest.mark.parametrize("count", [3, 5, 7])
def test_an_interval_of_few_values_covers_as_often_as_it_says(confidence: float, count: int) -> None:
    draws = np.random.default_rng(1).normal(0, 1, (4000, count))
    intervals = [mean_interval(row.tolist(), confidence) for row in draws]
    assert np.mean([low <= 0 <= high for low, high in intervals]) == pytest.approx(confidence, abs=0.012)


@pytest.mark.slow
@pytest.mark.parametrize(("confidence", "most"), [(0.95, 0.03), (0.99, 0.007)])
@pytest.mark.parametrize("count", [8, 10, 20])
def test_the_bootstrap_accepts_nothing_gained_no_oftener_than_it_says(
    confidence: float, most: float, count: int
) -> None:
    """Where nothing is gained the interval lies above zero in 2.5 or 0.5 of 100 cases (the margin is chance's)."""
    draws = np.random.default_rng(2).normal(0, 1, (500, count))
    lows = [mean_interval(row.tolist(), confidence)[0] for row in draws]
    assert np.mean([low > 0 for low in lows]) <= most + 2 * math.sqrt(most / 500)
    assert mean_interval([0.25] * count, confidence) == (0.25, 0.25)
    assert mean_interval([0.125] * (count - 1) + [-0.5], confidence)[0] < 0, "equal ones prove nothing"


def test_crops_of_one_picture_are_no_evidence_for_each_other() -> None:
    """Twenty crops of four pictures: the interval is that of four pictures."""
    gains = [1.0, 3.0, 2.0, 4.0]
    alone = Change(0.95, list("abcd"), [0.0] * 4, gains, [0, 1, 2, 3])
    crops = Change(0.95, ["x"] * 20, [0.0] * 20, gains * 5, [0, 1, 2, 3] * 5)
    assert crops.interval == pytest.approx(alone.interval)
    assert crops.gain == alone.gain
    uneven = Change(0.95, ["x"] * 7, [0.0] * 7, [0.5, 1.0, 1.0, 1.5, 3.0, 2.0, 4.0], [0, 0, 0, 0, 1, 2, 3])
    assert uneven.interval == pytest.approx(alone.interval)
    assert uneven.describe()["after"] == uneven.gain == alone.gain


@pytest.mark.slow
@pytest.mark.parametrize(("confidence", "most"), [(0.95, 0.03), (0.99, 0.007)])
@pytest.mark.parametrize("crops", [[33] + [1] * 7, [20, 10, 4] + [1] * 6, [10, 1, 1, 1]])
def test_a_picture_of_many_crops_decides_no_more_than_another(crops: list[int], confidence: float, most: float) -> None:
    """As `test_the_bootstrap_accepts_nothing_gained_no_oftener_than_it_says`; crops of a picture share its gain."""
    groups = np.repeat(np.arange(len(crops)), crops).tolist()
    accepted = 0
    for gains in np.random.default_rng(3).normal(0, 1, (400, len(crops))):
        of_crops = np.repeat(gains, crops).tolist()
        accepted += Change(confidence, ["x"] * len(groups), [0.0] * len(groups), of_crops, groups).interval[0] > 0
    assert accepted / 400 <= most + 2 * math.sqrt(most / 400)
