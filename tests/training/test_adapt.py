"""Adapting: it learns, it refuses to do harm, it goes on bit for bit after a kill, and bad input loses nothing."""

import json
import math
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from dsclora import zoo
from dsclora.engines import Setting
from dsclora.engines.choice import open_engine
from dsclora.errors import ImageError, OutputError, RecipeError, TrainingError
from dsclora.networks import adapter, span, span_torch
from dsclora.pictures import metrics
from dsclora.pictures.arrays import Uint8
from dsclora.pictures.degrade import Degradation, degrade
from dsclora.pictures.pairs import find_pairs, read_pair
from dsclora.pictures.resize import imresize
from dsclora.training import adapt, convlora, loop, losses, recipes, report_page
from dsclora.training.gate import Change, Outcome, judge, mean_interval
from dsclora.training.objective import Objective
from dsclora.training.patches import open_store
from dsclora.training.recipes import AdaptRecipe, Lora, Stage
from dsclora.training.selection import find_sources
from dsclora.training.teacher import enlarge_to_scale, self_ensemble
from helpers import ROOT, photo, random_model, save
from helpers_training import LORA, recipe


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for n in range(10):
        save(tmp_path / "photos" / f"p{n}x.png", photo(64, 70, seed=n))
    return tmp_path / "photos"


def run(
    r: AdaptRecipe,
    base: span.SpanNetwork,
    images: Path,
    folder: Path,
    teacher: span.SpanNetwork | None = None,
    **k: object,
) -> Outcome:
    guard = k.pop("guard", None)
    assert guard is None or isinstance(guard, Path)
    sources = find_sources(r, images, base.scale, guard=guard)
    folder.mkdir(parents=True, exist_ok=True)
    return adapt.adapt(r, base, sources, folder, teacher, **k)  # type: ignore[arg-type]


@pytest.mark.parametrize("optimiser", ["adam", "soap"])
def test_it_learns_and_only_on_pictures_to_train_on(pictures: Path, tmp_path: Path, optimiser: str) -> None:
    base = random_model(2, 6)
    r = recipe(optimiser=optimiser, iterations=120 if optimiser == "soap" else 40)  # its first ten give the bases
    sources = find_sources(r, pictures, 2)
    assert len(sources.train) == 6
    assert not {p.name for p in sources.train} & {p.name for p in sources.judge}
    said: list[loop.Progress] = []
    outcome = run(r, base, pictures, tmp_path / "run", report=said.append)
    assert said[0].step == 0, "the base's score comes first"
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


def test_pictures_at_several_sizes(pictures: Path, tmp_path: Path) -> None:
    for n in range(6):
        save(tmp_path / "others" / f"o{n}.png", photo(64, 70, seed=20 + n))
    r = recipe(sizes=[1.0, 0.5], iterations=2, patch=16)
    outcome = run(r, random_model(2, 6), pictures, tmp_path / "run", guard=tmp_path / "others")
    assert outcome.adapter.training["data"]["pictures"] == 6, "that many different ones"
    for folder, count in (("pictures", 6), ("guard", 3)):
        rows = json.loads((tmp_path / "run" / folder / "pairs.json").read_text())["lr"]
        assert [row[1:] for row in rows] == [[32, 35], [16, 17]] * count


def test_the_terms_of_the_loss(pictures: Path, tmp_path: Path) -> None:
    """L_rec, L_TS and L_AD by the plain definitions, with a teacher of another width."""
    base, teacher = random_model(2, 6), random_model(2, 8, seed=1)
    r = recipe(hr_weight=0.5, teacher_weight=2.0, affinity_weight=3.0, affinity={"rows": 0})
    store = open_store(find_pairs(pictures, 2), 2, tmp_path / "store")
    net = convlora.attach(span_torch.from_network(base), [convlora.Target(x.convs, x.rank, x.alpha) for x in r.lora])
    taps = convlora.sconvlbs(net)
    terms = Objective(r, store, None, span_torch.from_network(teacher), taps).terms(net, r.stages[0], 3)
    batch = store.batch(r.seed, 3, 4, 16)
    lr, hr = span_torch.to_tensor(batch.lr), span_torch.to_tensor(batch.hr)
    student, other = span_torch.from_network(base), span_torch.from_network(teacher)
    assert terms["rec"].item() == pytest.approx(0.5 * (student(lr) - hr).abs().mean().item(), rel=1e-5)
    assert terms["ts"].item() == pytest.approx(2 * (student(lr) - other(lr)).abs().mean().item(), rel=1e-5)

    def taps_of(n: span_torch.Span) -> list[torch.Tensor]:
        x, found = n.conv_1((lr - n.mean) * n.range), []
        for tap in taps:
            x, _ = n.get_submodule(tap)(x)
            found.append(x)
        return found

    wanted = sum(losses.spatial_affinity(a, b).item() for a, b in zip(taps_of(student), taps_of(other), strict=True))
    assert terms["ad"].item() == pytest.approx(3 * wanted, rel=1e-5)
    assert taps == [f"block_{n}" for n in range(1, 7)]
    few = recipe(affinity_weight=3.0, affinity={"rows": 64})
    estimate = Objective(few, store, None, span_torch.from_network(teacher), taps).terms(net, few.stages[0], 3)["ad"]
    assert estimate.item() == pytest.approx(3 * wanted, rel=0.2)
    assert estimate.item() != pytest.approx(3 * wanted, rel=1e-6)
    enlarged = Objective(few, store)._rows(torch.zeros(1, 3, 64, 64), 3)
    assert enlarged is not None
    assert enlarged.max() > 3000, "of a tap that is larger than LR, all of it"


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_cached_and_live_teachers_agree(pictures: Path, tmp_path: Path, scale: int) -> None:
    """What the teacher makes of a whole picture and of a patch of it differs near the patch's edges alone."""
    base, teacher = random_model(2, 6), random_model(scale, 8, seed=1)
    r = recipe(teacher_weight=1.0)
    net = convlora.attach(span_torch.from_network(base))
    cached = open_store(find_pairs(pictures, 2), 2, tmp_path / "store")
    live = Objective(r, cached, None, span_torch.from_network(teacher)).terms(net, r.stages[0], 0)["ts"].item()
    cached.add_teacher("t", partial(enlarge_to_scale, open_engine(teacher, Setting(threads=1)), 2))
    assert Objective(r, cached).terms(net, r.stages[0], 0)["ts"].item() == pytest.approx(live, rel=0.3)


def test_a_live_teacher_of_a_larger_scale_is_reduced_as_by_matlab(tmp_path: Path) -> None:
    net, teacher = (span_torch.from_network(zoo.load(name)) for name in ("span-x2", "span-x4"))
    save(tmp_path / "HR" / "noise.png", np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    store = open_store(find_pairs(tmp_path / "HR", 2), 2, tmp_path / "store")
    r = recipe(teacher_weight=1.0)
    live = Objective(r, store, None, teacher).terms(net, r.stages[0], 0)["ts"].item()
    lr = store.batch(r.seed, 0, r.stages[0].batch, r.stages[0].patch // 2).lr
    made = np.stack([imresize(span_torch.uint8_function(teacher)(x.transpose(1, 2, 0)), 0.5) for x in lr]) / 255
    wanted = np.abs(net(span_torch.to_tensor(lr)).detach().permute(0, 2, 3, 1).numpy() - made).mean()
    assert live == pytest.approx(wanted, rel=0.02)


def test_a_teacher_of_a_larger_scale(pictures: Path, tmp_path: Path) -> None:
    """Live where features are asked for: they are as large as the base's. Else its reduced pictures are kept."""
    run(
        recipe(teacher_weight=1.0, affinity_weight=1.0, iterations=2),
        random_model(2, 6),
        pictures,
        tmp_path / "a",
        random_model(3, 8),
    )
    r = recipe(teacher_weight=1.0, iterations=20)
    run(r, random_model(2, 6), pictures, tmp_path / "cached", random_model(4, 8))
    (kept,) = (tmp_path / "cached" / "pictures").glob("teacher-*.u8")
    assert kept.stat().st_size == (tmp_path / "cached" / "pictures" / "hr.u8").stat().st_size


def test_the_self_ensemble_teaches_where_the_recipe_says_so(pictures: Path, tmp_path: Path) -> None:
    teacher = random_model(2, 8, seed=1)
    r = recipe(teacher_weight=1.0, iterations=2, teacher_ensemble=True)
    run(r, random_model(2, 6), pictures, tmp_path / "run", teacher)
    (kept,) = (tmp_path / "run" / "pictures").glob("teacher-*.u8")  # though to teach live would be less work
    sources = find_sources(r, pictures, 2)
    lr = open_store(sources.train, 2, tmp_path / "run" / "pictures", window=sources.windows[0]).lr(0)
    target = self_ensemble(span_torch.uint8_function(span_torch.from_network(teacher)), lr)
    mistaken = np.abs(np.fromfile(kept, np.uint8, target.size).astype(int) - target.ravel())
    assert mistaken.max() <= 1, "engines round differently"
    assert (mistaken > 0).mean() < 0.01
    r = recipe(teacher_weight=1.0, affinity_weight=1.0, teacher_ensemble=True)
    with pytest.raises(RecipeError, match="leave out teacher_ensemble"):
        adapt.check(r, random_model(2, 6), tmp_path / "other", teacher)
    r = recipe(teacher_weight=1.0, teacher_ensemble=True)
    with pytest.raises(RecipeError, match=r"take \d+\.\d minutes.*allow more --minutes"):
        run(r, random_model(2, 6), pictures, tmp_path / "hurried", teacher, minutes=1e-6)
    made = run(r, random_model(2, 6), pictures, tmp_path / "alone").adapter
    assert not made.training["recipe"]["teacher_ensemble"], "nobody taught"


def test_a_guard_slows_forgetting(pictures: Path, tmp_path: Path) -> None:
    """On inverted colours, which pull hard, the guard's pictures keep what they look like."""
    base = run(recipe(iterations=150), random_model(2, 6), pictures, tmp_path / "base").adapter
    model = replace(adapter.merge(random_model(2, 6), [(base, 1.0)]), name="fair")
    for n in range(8):
        hr = photo(64, 64, seed=50 + n)
        save(tmp_path / "odd" / "HR" / f"{n}.png", hr)
        save(tmp_path / "odd" / "LRx2" / f"{n}.png", 255 - imresize(hr, 0.5))
    free = run(recipe(), model, tmp_path / "odd", tmp_path / "free")
    sources = find_sources(recipe(), tmp_path / "odd", 2, guard=pictures)
    assert len(sources.guard) == 6
    assert len(sources.general) == 4
    guarded = run(recipe(), model, tmp_path / "odd", tmp_path / "guarded", guard=pictures)
    forgotten = judge(model, free.adapter, sources).forgetting
    assert forgotten is not None
    assert guarded.forgetting is not None
    assert guarded.change.gain > 0
    assert guarded.forgetting.gain > forgotten.gain + 0.5


@pytest.mark.parametrize("cached", [False, True])
def test_what_distillation_looks_at_beside_a_guard(pictures: Path, tmp_path: Path, cached: bool) -> None:
    """The guard's patches alone, or all of the batch with `teach_own`; by the plain definition."""
    base, teacher = span_torch.from_network(random_model(2, 6)), span_torch.from_network(random_model(2, 8, seed=1))
    for n in range(8):
        save(tmp_path / "odd" / f"o{n}x.png", photo(64, 64, seed=50 + n))
    own = open_store(find_pairs(tmp_path / "odd", 2), 2, tmp_path / "own")
    guard = open_store(find_pairs(pictures, 2), 2, tmp_path / "guard")
    if cached:
        for store in (own, guard):
            store.add_teacher("t", span_torch.uint8_function(teacher))
    batches = [own.batch(0, 3, 2, 16), guard.batch(1, 3, 2, 16)]
    for teach_own, seen in ((False, batches[1:]), (True, batches)):
        r = recipe(teacher_weight=2.0, teach_own=teach_own)
        terms = Objective(r, own, guard, None if cached else teacher).terms(base, r.stages[0], 3)
        lr = span_torch.to_tensor(np.concatenate([b.lr for b in seen]))
        kept = [b.teacher for b in seen if b.teacher is not None]
        target = span_torch.to_tensor(np.concatenate(kept)) if cached else teacher(lr)
        assert terms["guard"].item() == pytest.approx(2 * (base(lr) - target).abs().mean().item(), rel=1e-5)
        assert set(terms) == {"rec", "guard"}


def test_a_stage_without_a_teacher_weight_is_not_taught_its_own_pictures(pictures: Path, tmp_path: Path) -> None:
    """The guard's patches keep their target with the originals' weight, those to adapt to have only the original."""
    base, teacher = span_torch.from_network(random_model(2, 6)), span_torch.from_network(random_model(2, 8, seed=1))
    store = open_store(find_pairs(pictures, 2), 2, tmp_path / "store")
    r = recipe(teacher_weight=0.0, teach_own=True, hr_weight=0.5)
    terms = Objective(r, store, store, teacher).terms(base, r.stages[0], 3)
    lr = span_torch.to_tensor(store.batch(1, 3, 2, 16).lr)
    assert terms["guard"].item() == pytest.approx(0.5 * (base(lr) - teacher(lr)).abs().mean().item(), rel=1e-5)


def test_a_blank_page_decides_nothing(pictures: Path, tmp_path: Path) -> None:
    """One level off in it costs more dB than any other page can gain, and cannot be seen."""
    hr = np.full((64, 64, 3), 255, np.uint8)
    protocol = metrics.protocol("classic-y", 2)
    studio_range = 48.13 + 1.32  # 219 levels, not 255
    assert protocol.capped_psnr(hr - 1, hr) == pytest.approx(studio_range, abs=0.01)
    assert protocol.capped_psnr(hr, hr) == metrics.PSNR_CAP == 50
    r = recipe()
    sources = find_sources(r, pictures, 2)
    assert sources.choose == sources.judge
    save(sources.judge[0].hr, np.zeros((64, 64, 3), np.uint8))
    mute = random_model(2, 6)  # makes any picture black, so that the blank one is exact
    mute = replace(mute, weights={k: np.zeros_like(v) if "upsampler" in k else v for k, v in mute.weights.items()})
    outcome = adapt.adapt(r, mute, sources, tmp_path / "run")
    assert outcome.change.before[0] == metrics.PSNR_CAP
    assert all(math.isfinite(x) for x in (*outcome.change.after, *outcome.change.interval))


def test_copies_of_a_picture_are_shown_to_the_teacher_once(pictures: Path, tmp_path: Path) -> None:
    seen: list[Uint8] = []

    def double(lr: Uint8) -> Uint8:
        seen.append(lr)
        return lr.repeat(2, 0).repeat(2, 1)

    def reduce(hr: Uint8, number: int) -> Uint8:
        return imresize(hr, 0.5) // (number + 1)

    pairs = find_pairs(pictures, 2)
    store = open_store(pairs, 2, tmp_path / "s", reduce=reduce, copies=3)
    store.add_teacher("t", double, undegraded=True)
    assert len(seen) == len(pairs) == len(store) // 3
    assert all(np.array_equal(lr, imresize(store.hr(3 * n), 0.5)) for n, lr in enumerate(seen)), "not the degraded ones"
    stored = np.fromfile(tmp_path / "s" / "teacher-t.u8", np.uint8)
    assert np.array_equal(stored, np.concatenate([double(lr).ravel() for lr in seen[: len(pairs)] for _ in range(3)]))


def test_every_size_of_a_large_picture_has_a_teacher_and_a_degradation_of_its_own(tmp_path: Path) -> None:
    """Cut to the window they are equally large, as copies are."""
    save(tmp_path / "photos" / "large.png", photo(96, 96))
    numbers: list[int] = []

    def reduce(hr: Uint8, number: int) -> Uint8:
        numbers.append(number)
        return imresize(hr, 0.5) // 2

    pairs = find_pairs(tmp_path / "photos", 2)
    store = open_store(pairs, 2, tmp_path / "s", reduce=reduce, copies=2, window=32, sizes=[1.0, 0.5])
    assert numbers == [0, 1, 2, 3]
    store.add_teacher("t", lambda lr: lr.repeat(2, 0).repeat(2, 1), undegraded=True)
    taught = np.fromfile(tmp_path / "s" / "teacher-t.u8", np.uint8).reshape(4, 32, 32, 3)
    for number in range(4):
        assert np.array_equal(taught[number][::2, ::2], imresize(store.hr(number), 0.5))


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
            adapt.check(r, random_model(2, 6), tmp_path / "new", against, guarded=True)
    with pytest.raises(OutputError, match="holds a run already"):
        adapt.check(recipe(), random_model(2, 6), tmp_path / "run", teacher)
    adapt.check(recipe(), random_model(2, 6), tmp_path / "run", teacher, resume=True)


def test_an_interrupted_start_anew_leaves_nothing_of_the_run_before(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, folder = random_model(2, 6), tmp_path / "run"
    run(recipe(), base, pictures, folder, iterations=3)
    assert json.loads((folder / "plan.json").read_text())["factor"] < 1

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(adapt, "_open_stores", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(recipe(), base, pictures, folder, overwrite=True)
    outcome = run(recipe(), base, pictures, folder, overwrite=True, resume=True)
    assert outcome.adapter.training["recipe"]["stage"][0]["iterations"] == 40, "not the three of the first run"


def test_a_teacher_that_is_not_asked_is_told(pictures: Path, tmp_path: Path) -> None:
    said: list[str] = []
    teacher = random_model(2, 8)
    run(
        recipe(teacher_weight=0.0, iterations=2),
        random_model(2, 6),
        pictures,
        tmp_path / "run",
        teacher,
        say=said.append,
    )
    assert f"the recipe has no use for a teacher: {teacher.name} is not asked" in said


def test_no_gain_is_refused(pictures: Path, tmp_path: Path) -> None:
    """What was merged already is too much when it is added once more."""
    good = run(recipe(iterations=100), random_model(2, 6), pictures, tmp_path / "good").adapter
    model = adapter.merge(random_model(2, 6), [(good, 1.0)])
    held = judge(model, replace(good, base_sha256=model.sha256), find_sources(recipe(), pictures, 2))
    assert held.change.gain < 0, "twice the same update is too much"
    assert not held.accepted


TRAIN = """
import sys; from pathlib import Path; import torch; torch.set_num_threads(1)
sys.path[:0] = {paths!r}
from helpers import random_model; from helpers_training import recipe; import test_adapt as t
from dsclora.networks import adapter
out = Path(sys.argv[1])
r, teacher = recipe(iterations=60, validations=12, teacher_weight=1.0), random_model(2, 8, seed=1)
made = t.run(r, random_model(2, 6), Path({images!r}), out, teacher, resume=True)
adapter.write(out / "a.safetensors", made.adapter)
"""


def test_killed_and_resumed_equals_uninterrupted(pictures: Path, tmp_path: Path) -> None:
    script = TRAIN.format(paths=[str(Path(__file__).parent), str(ROOT / "tests")], images=str(pictures))
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


def test_what_is_left_counts_validations_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes a second, a validation thirty, right after a report or not."""
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    seen: list[loop.Progress] = []

    def loss(net: torch.nn.Module, _: Stage, step: int) -> torch.Tensor:
        clock[0] += 1
        value: torch.Tensor = net(torch.ones(1, 1)).square().sum()
        return value

    def score(_: torch.nn.Module) -> float:
        clock[0] += 30
        return 1.0

    loop.fit(
        torch.nn.Linear(1, 1), [Stage(iterations=60)], loss, score, tmp_path, ema=0.5, clip=1.0, validate_every=21,
        checkpoint_every=60, identity="", report=seen.append, report_every=20,
    )  # fmt: skip
    left = {p.step: p.seconds_left for p in seen}
    assert left == {20: 40, 21: 39 * 51 / 21, 40: 20 * 70 / 40, 42: 18 * 102 / 42, 60: 0}


@pytest.mark.parametrize("how", ["nan", "score"])
def test_divergence_goes_back_with_half_the_rate(tmp_path: Path, how: str) -> None:
    net = torch.nn.Linear(1, 1)
    stage = Stage(iterations=60, learning_rate=0.2, final_learning_rate=0.2)
    said: list[str] = []
    rates: list[float] = []

    def loss(net: torch.nn.Module, _: Stage, step: int) -> torch.Tensor:
        value: torch.Tensor = net(torch.ones(1, 1)).square().sum()
        return value * math.nan if how == "nan" and step == 30 and len(said) < 2 else value

    def score(net: torch.nn.Module) -> float:
        return -20.0 if how == "score" and len(said) < 2 and rates and len(rates) % 3 == 0 else 10.0

    def report(p: loop.Progress) -> None:
        rates.append(p.learning_rate)

    loop.fit(
        net, [stage], loss, score, tmp_path, ema=0.5, clip=1.0, validate_every=5, checkpoint_every=10, identity="",
        say=said.append, report=report,
    )  # fmt: skip
    assert len(said) == 2
    assert all("on with half the learning rate" in line for line in said)
    assert rates[-1] == pytest.approx(0.05)
    assert all(p.isfinite().all() for p in net.parameters())
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["slowdowns"] for row in rows if "diverged" in row] == [1, 2]
    assert rows[-1]["step"] == 60


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_checkpoint_that_had_collapsed_is_not_gone_back_to(tmp_path: Path, interrupted: bool) -> None:
    net = torch.nn.Linear(1, 1)
    said: list[str] = []

    def loss(net: torch.nn.Module, _: Stage, step: int) -> torch.Tensor:
        if step == 35 and interrupted and not (tmp_path / "stopped").exists():
            (tmp_path / "stopped").touch()
            raise KeyboardInterrupt
        if step == 25 and not said:  # a checkpoint is due at 30, a validation at 40
            with torch.no_grad():
                next(net.parameters()).add_(1e6)
        value: torch.Tensor = net(torch.ones(1, 1)).abs().sum()
        return value

    def score(net: torch.nn.Module) -> float:
        return -20.0 if next(net.parameters()).abs().max() > 1e3 else 10.0

    def train(resume: bool) -> None:
        loop.fit(
            net, [Stage(iterations=60)], loss, score, tmp_path, ema=0.5, clip=1.0, validate_every=20,
            checkpoint_every=10, identity="", say=said.append, resume=resume,
        )  # fmt: skip

    if interrupted:
        with pytest.raises(KeyboardInterrupt):
            train(resume=False)
    train(resume=interrupted)
    assert said == ["diverged before iteration 40; back to 20, on with half the learning rate"]


@pytest.mark.parametrize("lasting", [False, True])
def test_what_was_learnt_before_a_divergence_is_kept(tmp_path: Path, lasting: bool) -> None:
    """A lasting one ends the run, with its best weights; passing ones, each got over, never do."""
    net, said = torch.nn.Linear(1, 1), list[str]()
    reached = set[int]()

    def loss(net: torch.nn.Module, _: Stage, step: int) -> torch.Tensor:
        value: torch.Tensor = net(torch.ones(1, 1)).square().sum()
        lost = step >= 45 if lasting else step % 10 == 5 and step not in reached
        reached.add(step)
        return value * math.nan if lost else value

    scores = iter([1.0, 2.0, 7.0, 6.0] + [5.0] * 200)
    kept, best = loop.fit(
        net, [Stage(iterations=120)], loss, lambda _: next(scores), tmp_path, ema=0.5, clip=1.0, validate_every=10,
        checkpoint_every=10, identity="", say=said.append,
    )  # fmt: skip
    assert best == 7.0
    assert all(p.isfinite().all() for p in kept.parameters())
    slowed = [line for line in said if "on with half the learning rate" in line]
    assert len(slowed) == (loop.SLOWDOWNS if lasting else 12)
    rest = [line for line in said if line not in slowed]
    assert len(rest) == lasting
    assert all(line.endswith("it ends here, with the best weights of the 40 iterations before") for line in rest)


def test_a_resumed_run_goes_on_in_the_precision_in_which_it_began(tmp_path: Path) -> None:
    said: list[str] = []
    assert loop.precision(tmp_path / "run", False, "fp32", said.append) == "fp32"
    assert loop.precision(tmp_path / "run", True, "bf16", said.append) == "fp32"
    assert "goes on in fp32, in which it began" in said[0]
    assert loop.precision(tmp_path / "run", False, "bf16", said.append) == "bf16"
    assert loop.precision(tmp_path / "run", True, "bf16", said.append) == "bf16"
    assert len(said) == 1
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        loop.precision(tmp_path / "file", False, "fp32", said.append)


def test_budgets(pictures: Path, tmp_path: Path) -> None:
    base = random_model(2, 6)
    two = recipe().model_copy(update={"stages": [recipe(iterations=30).stages[0], recipe(iterations=10).stages[0]]})
    outcome = run(two, base, pictures, tmp_path / "a", iterations=20)
    assert [s["iterations"] for s in outcome.adapter.training["recipe"]["stage"]] == [15, 5]
    outcome = run(two, base, pictures, tmp_path / "c", iterations=1)
    assert [s["iterations"] for s in outcome.adapter.training["recipe"]["stage"]] == [1]
    begin = time.perf_counter()
    run(two, base, pictures, tmp_path / "b", minutes=0.1)
    assert time.perf_counter() - begin < 60
    factor = json.loads((tmp_path / "b" / "plan.json").read_text())["factor"]
    assert factor > 0
    assert factor != 1


def test_going_on_from_an_adapter(pictures: Path, tmp_path: Path) -> None:
    base = random_model(2, 6)
    first = run(recipe(), base, pictures, tmp_path / "a")
    second = run(
        recipe(iterations=2, learning_rate=1e-9, final_learning_rate=0),
        base,
        pictures,
        tmp_path / "b",
        start=first.adapter,
    )
    assert second.change.gain == pytest.approx(first.change.gain, abs=1e-3)
    with pytest.raises(OutputError, match="--resume or choose another name"):
        run(recipe(), base, pictures, tmp_path / "a")
    with pytest.raises(TrainingError, match="another recipe"):
        run(recipe(seed=1), base, pictures, tmp_path / "a", resume=True)
    with pytest.raises(TrainingError, match="another recipe"):
        run(recipe(), base, pictures, tmp_path / "a", resume=True, start=first.adapter)
    anew = run(recipe(), base, pictures, tmp_path / "a", overwrite=True)
    assert anew.change == first.change


def test_small_pictures_get_small_patches(tmp_path: Path) -> None:
    for n in range(6):
        save(tmp_path / "small" / f"s{n}x.png", photo(30, 41, seed=n))
    said: list[str] = []
    outcome = run(
        recipe(patch=192, iterations=3), random_model(2, 6), tmp_path / "small", tmp_path / "a", say=said.append
    )
    assert outcome.adapter.training["recipe"]["stage"][0]["patch"] == 30
    assert any("patches of 30 pixels" in line for line in said)


def test_unreadable_pictures_are_named_before_training(pictures: Path) -> None:
    for name in ("bad1.png", "bad2.jpg"):
        (pictures / name).write_bytes(b"no picture")
    said: list[str] = []
    sources = find_sources(recipe(), pictures, 2, say=said.append)
    assert len(sources.train) == 6
    assert sum("left out" in line for line in said) == 2
    (pictures.parent / "none").mkdir()
    (pictures.parent / "none" / "bad.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match="no picture that can be used"):
        find_sources(recipe(), pictures.parent / "none", 2)


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
            run(r, base, pictures, tmp_path / "x", against)


def test_the_bundled_recipe_is_the_authors_two_stages() -> None:
    r = recipes.load_adapt(zoo.adapt_recipe())
    assert [stage.patch for stage in r.stages] == [192, 256]
    assert tuple(convlora.Target(x.convs, x.rank, x.alpha) for x in r.lora) == convlora.LAYERED


@pytest.mark.parametrize(
    "path",
    sorted([*(ROOT / "experiments").glob("*.toml"), *(ROOT / "recipes/adapters").glob("*.toml")]),
    ids=lambda p: p.name,
)
def test_the_recipes_of_the_experiments_are_valid(path: Path) -> None:
    assert recipes.load_adapt(path).stages


def test_degradations() -> None:
    hr, flat = photo(64, 64), np.full((64, 64, 3), 100, np.uint8)

    def made(picture: Uint8, *chain: Degradation, seed: int = 0) -> Uint8:
        return degrade(picture, 2, chain, np.random.default_rng(seed))

    plain = imresize(hr, 0.5)
    assert np.array_equal(made(hr), plain)
    noise = Degradation(kind="noise", strength=(8, 8))
    assert made(flat, noise).std() == pytest.approx(8, rel=0.1)
    assert made(flat, noise, Degradation(kind="downscale")).std() < 6, "averaged away by the reduction that follows"
    assert not np.array_equal(made(hr, noise), made(hr, noise, seed=1))
    assert np.array_equal(made(hr, noise), made(hr, noise))
    blurred = made(hr, Degradation(kind="blur", strength=(1.5, 1.5)))
    assert np.abs(np.diff(blurred.astype(int), axis=1)).mean() < 0.8 * np.abs(np.diff(plain.astype(int), axis=1)).mean()
    errors = [
        np.abs(made(hr, Degradation(kind="jpeg", strength=(q, q))).astype(int) - plain).mean() for q in (95, 50, 10)
    ]
    assert 0 < errors[0] < errors[1] < errors[2]
    rare = Degradation(kind="noise", strength=(8, 8), probability=0.25)
    untouched = [np.array_equal(made(flat, rare, seed=seed), flat[:32, :32]) for seed in range(200)]
    assert 0.65 < np.mean(untouched) < 0.85


def test_blur_has_the_width_it_is_given() -> None:
    edge = np.zeros((80, 80, 3), np.uint8)
    edge[:, 40:] = 255
    for sigma in (0.5, 1.0, 2.0, 4.0):
        chain = [Degradation(kind="blur", strength=(sigma, sigma)), Degradation(kind="downscale")]
        row = degrade(edge, 1, chain, np.random.default_rng(0))[40, :, 0].astype(float)
        slope = np.diff(row) / 255
        place = np.arange(79) + 0.5
        mean = (place * slope).sum()
        assert ((place - mean) ** 2 * slope).sum() ** 0.5 == pytest.approx(sigma, rel=0.1)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("extra", [0, 1])
def test_the_middle_of_a_pair_stays_a_pair(tmp_path: Path, scale: int, extra: int) -> None:
    lr = photo(33 + extra, 46 + extra)
    save(tmp_path / "HR" / "p.png", lr.repeat(scale, 0).repeat(scale, 1))
    save(tmp_path / f"LRx{scale}" / "p.png", lr)
    small, large = read_pair(find_pairs(tmp_path, scale)[0], scale, window=20 * scale + 1)
    assert small.shape == (20, 20, 3)
    assert np.array_equal(small.repeat(scale, 0).repeat(scale, 1), large)


def test_degraded_pictures_are_learnt_from(pictures: Path, tmp_path: Path) -> None:
    r = recipe(degrade=[{"kind": "noise", "strength": (5, 15)}, {"kind": "jpeg", "strength": (30, 60)}], copies=2)
    teacher = random_model(2, 8, seed=1)
    r = r.model_copy(update={"stages": recipe(teacher_weight=0.5).stages})
    outcome = run(r, random_model(2, 6), pictures, tmp_path / "a", teacher)
    assert outcome.change.gain > 0
    index = json.loads((tmp_path / "a" / "pictures" / "pairs.json").read_text())
    assert len(index["lr"]) == 12
    assert list((tmp_path / "a" / "pictures").glob("teacher-*-undegraded.u8"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('[[degrade]]\nkind = "jpeg"\nstrength = [0, 50]', "0 to 50 is no range for jpeg"),
        ('[[degrade]]\nkind = "noise"\nstrength = [9, 5]', "9 to 5 is no range"),
        ('[[degrade]]\nkind = "downscale"\n[[degrade]]\nkind = "downscale"', "named twice"),
        ('[[degrade]]\nkind = "downscale"\nprobability = 0.5', "the reduction is always taken"),
        ('[[degrade]]\nkind = "noise"\nprobability = 0.0', r"degrade\.0\.probability"),
        ('[[degrade]]\nkind = "fog"', r"degrade\.0\.kind"),
        ("holdout = 1.0", "holdout"),
        ("[network]\nscale = 4", "network: extra inputs"),
    ],
)
def test_recipe_mistakes(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "r.toml"
    tables = '[[lora]]\nconvs = "upsampler.0"\nrank = 1\nalpha = 1\n[[stage]]\niterations = 5\n'
    path.write_text(f"{text}\n{tables}")
    with pytest.raises(RecipeError, match=reason):
        recipes.load_adapt(path)


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


def test_the_weights_are_chosen_by_other_pictures_than_judge_them(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_sources(recipe(), pictures, 2)
    found = replace(found, choose=found.judge[:1], judge=found.judge[1:], judge_groups=found.judge_groups[1:])
    scored: list[Uint8] = []
    plain = adapt.mean_psnr

    def mean_psnr(net: torch.nn.Module, shown: list[tuple[Uint8, Uint8]]) -> float:
        scored.extend(hr for _, hr in shown)
        return plain(net, shown)

    monkeypatch.setattr(adapt, "mean_psnr", mean_psnr)
    outcome = adapt.adapt(recipe(iterations=2, validations=1), random_model(2, 6), found, tmp_path / "run")
    _, chosen_by = read_pair(found.choose[0], 2)
    assert scored
    assert all(np.array_equal(hr, chosen_by) for hr in scored)
    assert outcome.change.names == [pair.name for pair in found.judge]


def test_the_page_escapes_names(tmp_path: Path) -> None:
    change = {"pictures": 1, "before": 20.0, "after": 21.0, "gain": 1.0, "interval": [1.0, 1.0], "confidence": 0.95}
    result = {"held_out": change, "general": None, "accepted": True}
    lr, hr = photo(20, 20), photo(40, 40)
    report_page.write(
        tmp_path / "p.html", "<b>", result, {"recipe": "&"}, [("<i>", 20.0, 21.0)], [("<u>", lr, hr, hr, hr)]
    )
    text = (tmp_path / "p.html").read_text()
    assert "<title>&lt;b&gt;</title>" in text
    assert "&lt;i&gt;" in text
    assert "&lt;u&gt;" in text
    assert text.count("data:image/webp") == 3
    assert not re.search(r"https?://", text)
    report_page.write(tmp_path / "q.html", "x", result, {}, [("caf\udce9", 20.0, 21.0)], [])
    assert r"caf\udce9" in (tmp_path / "q.html").read_text()


CLI_RECIPE = """
ema = 0.9
validations = 2
[[lora]]
convs = "upsampler.0"
rank = 4
alpha = 8.0
[[stage]]
precision = "fp32"
iterations = 40
batch = 4
patch = 32
learning_rate = 5e-3
"""


def cli(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "dsclora.cli", "adapt", *map(str, arguments), "--threads", "1"]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_command_line(pictures: Path, model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(CLI_RECIPE)
    target = tmp_path / "out" / "mine.safetensors"
    common = [pictures, "--base", model_file, "--recipe", tmp_path / "r.toml", "-o", target]
    done = cli(*common, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["accepted"]
    assert result["held_out"]["interval"][0] > 0
    assert result["general"]["pictures"] == 6
    assert Path(result["adapter"]) == target
    assert adapter.read(target).training["result"]["held_out"] == result["held_out"]
    assert (tmp_path / "out" / "mine.html").exists()
    assert list((tmp_path / "out" / "mine.run").glob("events.*")), "TensorBoard"
    assert not (tmp_path / "out" / "mine.run" / "pictures").exists(), "gigabytes that nobody needs any more"
    again = cli(*common)
    assert again.returncode == 2
    assert "exists already" in again.stderr
    assert "Traceback" not in again.stderr


def test_a_rejected_adapter_exits_3(pictures: Path, model_file: Path, tmp_path: Path) -> None:
    """At a learning rate of nothing there is no gain."""
    (tmp_path / "r.toml").write_text(CLI_RECIPE.replace("5e-3", "1e-12\nfinal_learning_rate = 0"))
    target = tmp_path / "mine.safetensors"
    done = cli(pictures, "--base", model_file, "--recipe", tmp_path / "r.toml", "-o", target)
    assert done.returncode == 3, done.stderr
    assert "no gain beyond doubt" in done.stderr
    assert not target.exists()
    assert adapter.read(tmp_path / "mine.rejected.safetensors").training["result"]["accepted"] is False
    assert "Rejected" in (tmp_path / "mine.rejected.html").read_text()


def test_wrong_usage(pictures: Path, model_file: Path, tmp_path: Path) -> None:
    done = cli(pictures, "-o", tmp_path / "x.html")
    assert done.returncode == 2
    assert "ends in .safetensors" in done.stderr
    for arguments, reason in (
        (["--minutes", 1, "--iterations", 5], "exclude each other"),
        (["--minutes", -1], "must be positive"),
        (["--recipe", tmp_path / "none.toml"], "cannot be read"),
        (["--base", "span-x4", "--teacher", model_file], "the teacher enlarges x2 only"),
    ):
        done = cli(pictures, "-o", tmp_path / "x.safetensors", *arguments)
        assert done.returncode == 2
        assert reason in done.stderr
        assert "looking at" not in done.stderr
