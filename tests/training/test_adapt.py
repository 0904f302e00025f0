"""Adapting: it learns, it refuses to do harm, and it goes on bit for bit after a kill."""

import json
import math
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dsclora.errors import ImageError, OutputError, RecipeError, TrainingError
from dsclora.networks import adapter, span_torch
from dsclora.pictures import metrics
from dsclora.pictures.arrays import Uint8
from dsclora.pictures.degrade import Degradation
from dsclora.pictures.pairs import read_pair
from dsclora.pictures.resize import imresize
from dsclora.training import adapt
from dsclora.training.gate import judge
from dsclora.training.patches import open_store
from dsclora.training.recipes import Lora
from dsclora.training.run import Progress, Run
from dsclora.training.selection import find_selection
from dsclora.training.task import prepare
from dsclora.training.teacher import self_ensemble
from dsclora.training.validation import ValidationSet
from helpers import ROOT, photo, random_model, save
from helpers_training import LORA, adapted, recipe

TRAIN = """
import sys; from pathlib import Path; import torch; torch.set_num_threads(1)
sys.path[:0] = {paths!r}
from helpers import random_model; from helpers_training import adapted, recipe
from dsclora.networks import adapter
out = Path(sys.argv[1])
r, teacher = recipe(iterations=60, validations=5, teacher_weight=1.0), random_model(2, 8, seed=1)
outcome = adapted(r, random_model(2, 6), Path({images!r}), out, teacher, resume=True)
adapter.write(out / "a.safetensors", outcome.adapter)
"""


@pytest.mark.slow
@pytest.mark.parametrize("optimiser", ["adam", "soap"])
def test_it_learns_and_only_on_pictures_to_train_on(pictures: Path, tmp_path: Path, optimiser: str) -> None:
    base = random_model(2, 6)
    r = recipe(optimiser=optimiser, iterations=120 if optimiser == "soap" else 40)  # its first ten give the bases
    selection = find_selection(r, pictures, 2)
    assert len(selection.train) == 6
    assert not {p.name for p in selection.train} & {p.name for p in selection.test}
    reported: list[Progress] = []
    outcome = adapted(r, base, pictures, tmp_path / "run", report=reported.append)
    assert reported[0].step == 0, "the base's score comes first"
    assert outcome.accepted
    assert outcome.change.interval[0] <= outcome.change.gain <= outcome.change.interval[1]
    assert outcome.change.gain > 1
    assert outcome.change.gains == pytest.approx(
        [b - a for a, b in zip(outcome.change.before, outcome.change.after, strict=True)]
    )
    merged = span_torch.uint8_function(span_torch.from_network(adapter.merge(base, [(outcome.adapter, 1.0)])))
    name, lr, _, after, hr = outcome.samples[0]
    assert np.array_equal(merged(lr), after)
    assert (
        metrics.protocol("classic-y", 2).score(after, hr)[0] == outcome.change.after[outcome.change.names.index(name)]
    )
    training = json.loads(json.dumps(dict(outcome.adapter.training)))
    assert training["result"]["held_out"]["gain"] == pytest.approx(outcome.change.gain, abs=1e-4)
    assert training["data"]["pictures"] == 6
    assert training["recipe"]["ema"] == (0.9 if optimiser == "soap" else 0.75), "what was used"
    assert {"recipe", "teacher", "base"} <= training.keys()


@pytest.mark.slow
def test_pictures_at_several_sizes(pictures: Path, tmp_path: Path) -> None:
    for n in range(6):
        save(tmp_path / "others" / f"o{n}.png", photo(64, 70, seed=20 + n))
    r = recipe(sizes=[1.0, 0.5], iterations=2, patch=16)
    outcome = adapted(r, random_model(2, 6), pictures, tmp_path / "run", guard=tmp_path / "others")
    assert outcome.adapter.training["data"]["pictures"] == 6, "that many different ones"
    for folder, count in (("pictures", 6), ("guard", 3)):
        rows = json.loads((tmp_path / "run" / folder / "pairs.json").read_text())["lr"]
        assert [row[1:] for row in rows] == [[32, 35], [16, 17]] * count


@pytest.mark.slow
def test_a_teacher_of_a_larger_scale(pictures: Path, tmp_path: Path) -> None:
    """Live where features are asked for: they are as large as the base's. Else its reduced pictures are kept."""
    adapted(
        recipe(teacher_weight=1.0, affinity_weight=1.0, iterations=2),
        random_model(2, 6),
        pictures,
        tmp_path / "a",
        random_model(3, 8),
    )
    r = recipe(teacher_weight=1.0, iterations=20)
    adapted(r, random_model(2, 6), pictures, tmp_path / "cached", random_model(4, 8))
    (kept,) = (tmp_path / "cached" / "pictures").glob("teacher-*.u8")
    assert kept.stat().st_size == (tmp_path / "cached" / "pictures" / "hr.u8").stat().st_size


@pytest.mark.slow
def test_the_self_ensemble_teaches_where_the_recipe_says_so(pictures: Path, tmp_path: Path) -> None:
    teacher = random_model(2, 8, seed=1)
    r = recipe(teacher_weight=1.0, iterations=2, teacher_ensemble=True)
    adapted(r, random_model(2, 6), pictures, tmp_path / "run", teacher)
    (kept,) = (tmp_path / "run" / "pictures").glob("teacher-*.u8")  # though to teach live would be less work
    selection = find_selection(r, pictures, 2)
    lr = open_store(selection.train, 2, tmp_path / "run" / "pictures", window=selection.windows[0]).lr(0)
    target = self_ensemble(span_torch.uint8_function(span_torch.from_network(teacher)), lr)
    mistaken = np.abs(np.fromfile(kept, np.uint8, target.size).astype(int) - target.ravel())
    assert mistaken.max() <= 1, "engines round differently"
    assert (mistaken > 0).mean() < 0.01
    r = recipe(teacher_weight=1.0, affinity_weight=1.0, teacher_ensemble=True)
    with pytest.raises(RecipeError, match="leave out teacher_ensemble"):
        prepare(r, random_model(2, 6), teacher)
    r = recipe(teacher_weight=1.0, teacher_ensemble=True)
    with pytest.raises(RecipeError, match=r"take \d+\.\d minutes.*allow more --minutes"):
        adapted(r, random_model(2, 6), pictures, tmp_path / "hurried", teacher, minutes=1e-6)
    untaught = adapted(r, random_model(2, 6), pictures, tmp_path / "alone").adapter
    assert not untaught.training["recipe"]["teacher_ensemble"], "nobody taught"


@pytest.mark.slow
def test_a_guard_slows_forgetting(pictures: Path, tmp_path: Path) -> None:
    """On inverted colours, which pull hard, the guard's pictures keep what they look like."""
    base = adapted(recipe(iterations=150), random_model(2, 6), pictures, tmp_path / "base").adapter
    model = replace(adapter.merge(random_model(2, 6), [(base, 1.0)]), name="fair")
    for n in range(8):
        hr = photo(64, 64, seed=50 + n)
        save(tmp_path / "odd" / "HR" / f"{n}.png", hr)
        save(tmp_path / "odd" / "LRx2" / f"{n}.png", 255 - imresize(hr, 0.5))
    free = adapted(recipe(), model, tmp_path / "odd", tmp_path / "free")
    selection = find_selection(recipe(), tmp_path / "odd", 2, guard=pictures)
    assert len(selection.guard) == 6
    assert len(selection.other) == 4
    guarded = adapted(recipe(), model, tmp_path / "odd", tmp_path / "guarded", guard=pictures)
    forgotten = judge(model, free.adapter, selection).forgetting
    assert forgotten is not None
    assert guarded.forgetting is not None
    assert guarded.change.gain > 0
    assert guarded.forgetting.gain > forgotten.gain + 0.5


@pytest.mark.slow
def test_a_blank_page_decides_nothing(pictures: Path, tmp_path: Path) -> None:
    """One level off in it costs more dB than any other page can gain, and cannot be seen."""
    hr = np.full((64, 64, 3), 255, np.uint8)
    protocol = metrics.protocol("classic-y", 2)
    studio_range = 48.13 + 1.32  # 219 levels, not 255
    assert protocol.capped_psnr(hr - 1, hr) == pytest.approx(studio_range, abs=0.01)
    assert protocol.capped_psnr(hr, hr) == metrics.PSNR_CAP == 50
    r = recipe()
    selection = find_selection(r, pictures, 2)
    assert selection.validation == selection.test
    save(selection.test[0].hr, np.zeros((64, 64, 3), np.uint8))
    mute = random_model(2, 6)  # makes any picture black, so that the blank one is exact
    mute = replace(mute, weights={k: np.zeros_like(v) if "upsampler" in k else v for k, v in mute.weights.items()})
    outcome = adapt.adapt(prepare(r, mute), selection, Run(tmp_path / "run"))
    assert outcome.change.before[0] == metrics.PSNR_CAP
    assert all(math.isfinite(x) for x in (*outcome.change.after, *outcome.change.interval))


def test_what_is_wrong_is_said_before_any_picture_is_looked_at(tmp_path: Path) -> None:
    teacher = random_model(2, 8)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.pt").touch()
    for r, against, reason in (
        (recipe(teach_own=True), None, "the base cannot teach itself"),
        (recipe(), random_model(1), "the teacher enlarges x1 only"),
        (recipe(affinity_weight=1, affinity={"taps": ["block_7"]}), teacher, "block_7 is not a module"),
    ):
        with pytest.raises(RecipeError, match=reason):
            prepare(r, random_model(2, 6), against, guarded=True)
    with pytest.raises(OutputError, match="holds a run already"):
        Run(tmp_path / "run").refuse_earlier_run()
    Run(tmp_path / "run", resume=True).refuse_earlier_run()


@pytest.mark.slow
def test_an_interrupted_start_anew_leaves_nothing_of_the_run_before(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, folder = random_model(2, 6), tmp_path / "run"
    adapted(recipe(), base, pictures, folder, iterations=3)
    assert json.loads((folder / "plan.json").read_text())["factor"] < 1

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(adapt, "open_stores", interrupt)
        with pytest.raises(KeyboardInterrupt):
            adapted(recipe(), base, pictures, folder, overwrite=True)
    outcome = adapted(recipe(), base, pictures, folder, overwrite=True, resume=True)
    assert outcome.adapter.training["recipe"]["stage"][0]["iterations"] == 40, "not the three of the first run"


def test_a_teacher_that_is_not_asked_is_told(pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    teacher = random_model(2, 8)
    adapted(recipe(teacher_weight=0.0, iterations=2), random_model(2, 6), pictures, tmp_path / "run", teacher)
    assert f"the recipe has no use for a teacher: {teacher.name} is not used" in caplog.messages


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(pictures: Path, tmp_path: Path) -> None:
    script = TRAIN.format(paths=[str(ROOT / "tests")], images=str(pictures))
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "whole")], check=True)
    broken, kills = tmp_path / "broken", 0
    random = np.random.default_rng(0)
    for _ in range(20):
        process = subprocess.Popen([sys.executable, "-c", script, str(broken)])
        begun = _stamp(broken)
        while process.poll() is None and _stamp(broken) == begun:
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.2))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
        if (broken / "a.safetensors").exists():
            break
    assert kills >= 2
    whole, resumed = (adapter.read(tmp_path / name / "a.safetensors") for name in ("whole", "broken"))
    for conv, update in whole.updates.items():
        assert np.array_equal(update.a, resumed.updates[conv].a)
        assert np.array_equal(update.b, resumed.updates[conv].b)
    assert whole.training["result"] == resumed.training["result"]


def _stamp(folder: Path) -> int:
    path = folder / "checkpoint.pt"
    return path.stat().st_mtime_ns if path.exists() else 0


@pytest.mark.slow
def test_budgets(pictures: Path, tmp_path: Path) -> None:
    base = random_model(2, 6)
    two = recipe().model_copy(update={"stages": [recipe(iterations=30).stages[0], recipe(iterations=10).stages[0]]})
    outcome = adapted(two, base, pictures, tmp_path / "a", iterations=20)
    assert [s["iterations"] for s in outcome.adapter.training["recipe"]["stage"]] == [15, 5]
    outcome = adapted(two, base, pictures, tmp_path / "c", iterations=1)
    assert [s["iterations"] for s in outcome.adapter.training["recipe"]["stage"]] == [1]
    adapted(two, base, pictures, tmp_path / "b", minutes=0.1)
    factor = json.loads((tmp_path / "b" / "plan.json").read_text())["factor"]
    assert factor > 0
    assert factor != 1


@pytest.mark.slow
def test_going_on_from_an_adapter(pictures: Path, tmp_path: Path) -> None:
    base = random_model(2, 6)
    first = adapted(recipe(), base, pictures, tmp_path / "a")
    second = adapted(
        recipe(iterations=2, learning_rate=1e-9, final_learning_rate=0),
        base,
        pictures,
        tmp_path / "b",
        start=first.adapter,
    )
    assert second.change.gain == pytest.approx(first.change.gain, abs=1e-3)
    with pytest.raises(OutputError, match="--resume or choose another name"):
        adapted(recipe(), base, pictures, tmp_path / "a")
    with pytest.raises(TrainingError, match="another recipe"):
        adapted(recipe(seed=1), base, pictures, tmp_path / "a", resume=True)
    with pytest.raises(TrainingError, match="another recipe"):
        adapted(recipe(), base, pictures, tmp_path / "a", resume=True, start=first.adapter)
    anew = adapted(recipe(), base, pictures, tmp_path / "a", overwrite=True)
    assert anew.change == first.change


def test_small_pictures_get_small_patches(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for n in range(6):
        save(tmp_path / "small" / f"s{n}x.png", photo(30, 41, seed=n))
    outcome = adapted(recipe(patch=192, iterations=3), random_model(2, 6), tmp_path / "small", tmp_path / "a")
    assert outcome.adapter.training["recipe"]["stage"][0]["patch"] == 30
    assert any("patches of 30 pixels" in line for line in caplog.messages)


def test_unreadable_pictures_are_named_before_training(pictures: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("bad1.png", "bad2.jpg"):
        (pictures / name).write_bytes(b"no picture")
    selection = find_selection(recipe(), pictures, 2)
    assert len(selection.train) == 6
    assert sum("left out" in line for line in caplog.messages) == 2
    (pictures.parent / "none").mkdir()
    (pictures.parent / "none" / "bad.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match="no picture that can be used"):
        find_selection(recipe(), pictures.parent / "none", 2)


def test_a_recipe_that_does_not_fit(pictures: Path, tmp_path: Path) -> None:
    base, teacher = random_model(2, 6), random_model(2, 8)
    for r, against, reason in (
        (recipe(lora=[Lora(convs="nothing*", rank=1, alpha=1)]), None, "no conv is called 'nothing"),
        (recipe(), random_model(1), "the teacher enlarges x1 only, the base x2"),
        (recipe(hr_weight=0, teacher_weight=1), None, "name a teacher"),
        (recipe(affinity_weight=1, affinity={"taps": ["block_7"]}), teacher, "block_7 is not a module"),
        (recipe(affinity_weight=1, lora=LORA[1:]), teacher, "no SConvLB"),
        (recipe(affinity_weight=1, degrade=[Degradation(kind="noise", strength=(1, 2))]), teacher, "add a guard"),
    ):
        with pytest.raises(RecipeError, match=re.escape(reason)):
            adapted(r, base, pictures, tmp_path / "x", against)


@pytest.mark.slow
def test_degraded_pictures_are_learnt_from(pictures: Path, tmp_path: Path) -> None:
    r = recipe(degrade=[{"kind": "noise", "strength": (5, 15)}, {"kind": "jpeg", "strength": (30, 60)}], copies=2)
    teacher = random_model(2, 8, seed=1)
    r = r.model_copy(update={"stages": recipe(teacher_weight=0.5).stages})
    outcome = adapted(r, random_model(2, 6), pictures, tmp_path / "a", teacher)
    assert outcome.change.gain > 0
    index = json.loads((tmp_path / "a" / "pictures" / "pairs.json").read_text())
    assert len(index["lr"]) == 12
    assert list((tmp_path / "a" / "pictures").glob("teacher-*-undegraded.u8"))


def test_the_weights_are_chosen_by_other_pictures_than_judge_them(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = find_selection(recipe(), pictures, 2)
    test, groups = drawn.test, drawn.test_groups
    selection = replace(drawn, validation=test[:1], test=test[1:], test_groups=groups[1:])
    scored: list[Uint8] = []
    plain = ValidationSet.score

    def score(validation: ValidationSet, net: torch.nn.Module) -> float:
        scored.extend(hr for _, hr in validation.pictures)
        return plain(validation, net)

    monkeypatch.setattr(ValidationSet, "score", score)
    task = prepare(recipe(iterations=2, validations=1), random_model(2, 6))
    outcome = adapt.adapt(task, selection, Run(tmp_path / "run"))
    _, chosen_by = read_pair(selection.validation[0], 2)
    assert scored
    assert all(np.array_equal(hr, chosen_by) for hr in scored)
    assert outcome.change.names == [pair.name for pair in selection.test]
