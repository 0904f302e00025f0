"""Training: it learns, it goes on bit for bit after a kill, and a recipe with a typo does not start."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dsclora.errors import ImageError, OutputError, RecipeError, TrainingError
from dsclora.networks import span, span_torch
from dsclora.pictures.arrays import Uint8
from dsclora.pictures.pairs import find_pairs
from dsclora.pictures.read import read_rgb8
from dsclora.pictures.resize import imresize
from dsclora.training import loop, pretrain, recipes
from dsclora.training.patches import discard, open_store
from dsclora.training.teacher import self_ensemble
from helpers import ROOT, photo, random_model, save

RECIPE = """
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
SOAP = 'optimiser = "soap"\n' + RECIPE.replace("channels = 6", 'channels = 6\nform = "plain"')


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for n in range(3):
        save(tmp_path / "train" / f"{n}.png", photo(50 + n, 61, seed=n))
    save(tmp_path / "valid" / "v.png", photo(40, 40, seed=9))
    return tmp_path / "train", tmp_path / "valid"


def load(tmp_path: Path, text: str) -> recipes.PretrainRecipe:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return recipes.load_pretrain(path)


def test_it_learns(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    text = RECIPE.replace("iterations = 16", "iterations = 250").replace("validate_every = 10", "validate_every = 50")
    logged: list[loop.Progress] = []
    outcome = pretrain.pretrain(load(tmp_path, text), *folders, tmp_path / "out", report=logged.append)
    scores = [p.score for p in logged if p.score is not None]
    assert outcome.psnr == max(scores) > scores[0] + 3
    assert outcome.psnr > 20
    model = span.read(outcome.path)
    assert model.sha256 == outcome.model.sha256
    assert (model.scale, model.channels, model.range) == (2, 6, span.SPAN_RANGE)
    assert model.training["validation"]["psnr"] == pytest.approx(outcome.psnr, abs=1e-4)
    rows = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == rows[-1]["steps"] == 258


def test_soap_learns_faster_and_trains_the_plain_network(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    def train(text: str, name: str) -> pretrain.Outcome:
        text = text.replace("iterations = 16", "iterations = 100").replace("rate = 2e-3", "rate = 6e-3")
        return pretrain.pretrain(load(tmp_path, text), *folders, tmp_path / name)

    assert train(SOAP, "soap").psnr > train(RECIPE, "adam").psnr + 0.5
    state = torch.load(tmp_path / "soap/checkpoint.pt", weights_only=True)["net"]
    assert sorted(state) == sorted(span_torch.Span(6, 2).state_dict())


def test_a_teacher_pulls(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    teacher = random_model(2, 8)
    text = RECIPE.replace("warmup = 4", "warmup = 4\nteacher_weight = 1.0\nhr_weight = 0.0")
    recipe = load(tmp_path, text)
    with pytest.raises(RecipeError, match="name a teacher"):
        pretrain.pretrain(recipe, *folders, tmp_path / "a")
    with pytest.raises(RecipeError, match="teacher enlarges x1 only, the recipe asks for x2"):
        pretrain.pretrain(recipe, *folders, tmp_path / "a", random_model(1))
    outcome = pretrain.pretrain(recipe, *folders, tmp_path / "a", teacher)
    assert outcome.model.training["teacher_sha256"] == teacher.sha256
    alone = pretrain.pretrain(load(tmp_path, RECIPE), *folders, tmp_path / "b")
    assert outcome.model.sha256 != alone.model.sha256


def test_it_starts_where_another_model_is(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    text = RECIPE.replace("warmup = 4", "").replace("2e-3", "1e-9").replace("1e-3", "1e-9")
    first = pretrain.pretrain(load(tmp_path, RECIPE), *folders, tmp_path / "a")
    again = pretrain.pretrain(load(tmp_path, text), *folders, tmp_path / "b", start=first.model)
    assert again.psnr == pytest.approx(first.psnr, abs=0.05)  # 24 steps of at most 1e-6
    assert again.model.training["start_sha256"] == first.model.sha256
    with pytest.raises(TrainingError, match="another recipe"):
        pretrain.pretrain(load(tmp_path, text), *folders, tmp_path / "b", resume=True)
    with pytest.raises(RecipeError, match="has 8 channels, the recipe asks for 6"):
        pretrain.pretrain(load(tmp_path, text), *folders, tmp_path / "c", start=random_model(2, 8))
    moved = replace(first.model, mean=(0.0, 0.0, 0.0))
    with pytest.raises(RecipeError, match="not SPAN's mean"):
        pretrain.pretrain(load(tmp_path, text), *folders, tmp_path / "c", start=moved)


@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch, of itself
def test_compiled_it_learns_the_same(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    recipe = load(tmp_path, RECIPE[: RECIPE.rindex("[[stage]]")])  # a shape of patches is compiled once
    eager = pretrain.pretrain(recipe, *folders, tmp_path / "a")
    compiled = pretrain.pretrain(recipe, *folders, tmp_path / "b", compile=True)
    assert compiled.psnr == pytest.approx(eager.psnr, abs=0.01)


def test_nothing_to_compile_with(tmp_path: Path, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(TrainingError, match="is not here; go on without it"):
        pretrain.pretrain(load(tmp_path, RECIPE), *folders, tmp_path / "a", compile=True)


TRAIN = """
import sys; from pathlib import Path; import torch; torch.set_num_threads(1)
from dsclora import pretrain, recipes
base = Path(sys.argv[1])
recipe = recipes.load_pretrain(base / "recipe.toml")
pretrain.pretrain(recipe, base / "train", base / "valid", Path(sys.argv[2]), resume=True)
"""


@pytest.mark.parametrize("recipe", [RECIPE, SOAP], ids=["adam", "soap"])
def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path, folders: tuple[Path, Path], recipe: str) -> None:
    text = recipe.replace("iterations = 16", "iterations = 24").replace("checkpoint_every = 4", "checkpoint_every = 8")
    load(tmp_path, text)
    command = [sys.executable, "-c", TRAIN, str(tmp_path)]
    subprocess.run([*command, str(tmp_path / "whole")], check=True)
    kills = 0
    broken = tmp_path / "broken"
    for _ in range(30):
        process = subprocess.Popen([*command, str(broken)])
        reached = _step(broken)
        while process.poll() is None and _step(broken) == reached:
            time.sleep(0.005)
        if process.poll() is None:  # it has just written a checkpoint: kill it somewhere after
            time.sleep(0.01 * (kills % 3))
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
        if (broken / "model.safetensors").exists():
            break
    assert kills >= 2
    assert span.read(broken / "model.safetensors").sha256 == span.read(tmp_path / "whole/model.safetensors").sha256


def _step(folder: Path) -> int:
    try:
        return int(os.stat(folder / "checkpoint.pt").st_mtime_ns)  # noqa: PTH116
    except FileNotFoundError:
        return 0


def test_runs_are_not_mixed_up(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    pretrain.pretrain(load(tmp_path, RECIPE), *folders, tmp_path / "out")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "model.safetensors").write_text("precious")
    for resume in (False, True):
        with pytest.raises(OutputError, match=r"holds a model\.safetensors already"):
            pretrain.pretrain(load(tmp_path, RECIPE), *folders, tmp_path / "kept", resume=resume)
    assert (tmp_path / "kept" / "model.safetensors").read_text() == "precious"
    with pytest.raises(OutputError, match="--resume or choose another folder"):
        pretrain.pretrain(load(tmp_path, RECIPE), *folders, tmp_path / "out")
    other = load(tmp_path, RECIPE.replace("2e-3", "3e-3"))
    with pytest.raises(TrainingError, match="another recipe"):
        pretrain.pretrain(other, *folders, tmp_path / "out", resume=True)


def test_other_pictures_are_other_data(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    recipe = load(tmp_path, RECIPE)
    pretrain.pretrain(recipe, *folders, tmp_path / "out")
    save(folders[1] / "v.png", photo(40, 40, seed=10))
    with pytest.raises(TrainingError, match="other pictures"):
        pretrain.pretrain(recipe, *folders, tmp_path / "out", resume=True)


def test_a_damaged_checkpoint_is_one_line(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "checkpoint.pt").write_bytes(b"PK not really")
    with pytest.raises(TrainingError, match="damaged") as caught:
        pretrain.pretrain(load(tmp_path, RECIPE), *folders, tmp_path / "out", resume=True)
    assert "\n" not in str(caught.value)


def test_too_small_to_validate_on(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    save(folders[1] / "tiny.png", photo(4, 4))
    with pytest.raises(ImageError, match=r"tiny.png: too small"):
        pretrain.pretrain(load(tmp_path, RECIPE), *folders, tmp_path / "out")


def test_shares_make_up_the_batch(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    store = open_store(find_pairs(folders[0], 2), 2, tmp_path / "store")
    store.add_teacher("negative", lambda lr: 255 - lr.repeat(2, 0).repeat(2, 1))
    whole, parts = store.batch(3, 4, 6, 16), [store.batch(3, 4, 6, 16, (k, 3)) for k in range(3)]
    for field in ("lr", "hr", "teacher"):
        assert np.array_equal(np.concatenate([getattr(part, field) for part in parts]), getattr(whole, field))


def test_the_teacher_is_its_self_ensemble_where_the_recipe_says_so(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    teacher = random_model(2, 8)
    upright = span_torch.uint8_function(span_torch.from_network(teacher))
    for ensemble in (False, True):
        text = f"teacher_ensemble = {str(ensemble).lower()}\n{RECIPE}teacher_weight = 1.0\n"
        pretrain.pretrain(load(tmp_path, text), *folders, tmp_path / f"{ensemble}", teacher)
        (kept,) = (tmp_path / f"{ensemble}" / "pictures").glob("teacher-*.u8")
        lr = open_store(find_pairs(folders[0], 2), 2, tmp_path / "store").lr(0)
        target = self_ensemble(upright, lr) if ensemble else upright(lr)
        mistaken = np.abs(np.fromfile(kept, np.uint8, target.size).astype(int) - target.ravel())
        assert mistaken.max() <= 1, "engines round differently"
        assert (mistaken > 0).mean() < 0.01


def test_a_teacher_of_a_larger_scale_is_reduced(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    teacher = random_model(3, 8)
    pretrain.pretrain(load(tmp_path, f"{RECIPE}teacher_weight = 1.0\n"), *folders, tmp_path / "run", teacher)
    (kept,) = (tmp_path / "run" / "pictures").glob("teacher-*.u8")
    lr = open_store(find_pairs(folders[0], 2), 2, tmp_path / "store").lr(0)
    wanted = imresize(span_torch.uint8_function(span_torch.from_network(teacher))(lr), 2 / 3)
    assert wanted.shape == (lr.shape[0] * 2, lr.shape[1] * 2, 3)
    mistaken = np.abs(np.fromfile(kept, np.uint8, wanted.size).astype(int) - wanted.ravel())
    assert mistaken.max() <= 1, "engines round differently"
    assert (mistaken > 0).mean() < 0.01


def test_a_stage_has_its_own_precision(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    net = span_torch.from_network(random_model(2, 8))
    batch = open_store(find_pairs(folders[0], 2), 2, tmp_path / "store").batch(0, 0, 2, 16)
    exact = (net(span_torch.to_tensor(batch.lr)) - span_torch.to_tensor(batch.hr)).abs().mean().item()
    stages = [recipes.Stage.model_validate({"iterations": 1, "precision": precision}) for precision in ("fp32", "bf16")]
    full, half = (pretrain.loss_of(net, batch, stage).item() for stage in stages)
    assert full == pytest.approx(exact, rel=1e-6)
    assert half == pytest.approx(exact, rel=1e-2)
    assert abs(half - exact) > 1e-5 * exact


def test_the_precision_follows_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    for has in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda has=has: has, raising=False)
        for precision, half in (("auto", has), ("bf16", True), ("fp32", False)):
            with span_torch.autocast(precision, torch.device("cpu")):
                assert torch.is_autocast_enabled("cpu") == half
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")  # another PyTorch
    assert span_torch.resolve_precision("auto", torch.device("cpu")) == "fp32"
    for has in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, has=has: has)
        assert span_torch.resolve_precision("auto", torch.device("cuda")) == ("bf16" if has else "fp32")


def test_the_header_says_what_was_computed_in(
    tmp_path: Path, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        span_torch, "resolve_precision", lambda precision, _: "bf16" if precision == "auto" else precision
    )
    text = RECIPE.replace('precision = "fp32"', 'precision = "auto"', 1)
    made = pretrain.pretrain(load(tmp_path, text), *folders, tmp_path / "run").model
    assert [stage["precision"] for stage in made.training["recipe"]["stage"]] == ["bf16", "fp32"]


def test_pictures_at_several_sizes(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    plain = open_store(find_pairs(folders[0], 2), 2, tmp_path / "plain")
    store = open_store(find_pairs(folders[0], 2), 2, tmp_path / "store", sizes=[1.0, 0.5])
    assert len(store) == 2 * len(plain)
    assert np.array_equal(store.hr(0), plain.hr(0))
    half = imresize(read_rgb8(find_pairs(folders[0], 2)[0].hr), 0.5)
    assert np.array_equal(store.hr(1), half[: half.shape[0] // 2 * 2, : half.shape[1] // 2 * 2])
    assert np.array_equal(store.lr(1), imresize(store.hr(1), 0.5))


def test_patches_that_pictures_have_no_room_for_are_told_before_training(
    tmp_path: Path, folders: tuple[Path, Path]
) -> None:
    """Of all stages: the last one may begin after hours."""
    text = RECIPE.replace("[network]", "sizes = [1.0, 0.5]\n[network]", 1).replace("patch = 32", "patch = {}")
    said: list[str] = []
    pretrain.pretrain(load(tmp_path, text.format(28)), *folders, tmp_path / "out", say=said.append)
    assert said[-1] == "3 of 6 pictures are smaller than a patch of 28 pixels and left out"
    with pytest.raises(ImageError, match="no picture is 64 pixels high and wide"):
        pretrain.pretrain(load(tmp_path, text.format(64)), *folders, tmp_path / "other")
    assert not (tmp_path / "other" / "log.jsonl").exists()


def test_the_teacher_goes_on_where_it_was_interrupted(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    store = open_store(find_pairs(folders[0], 2), 2, tmp_path / "store")
    seen: list[int] = []

    def twice(lr: Uint8) -> Uint8:
        seen.append(lr.shape[0])
        if len(seen) == 3:
            raise KeyboardInterrupt
        return lr.repeat(2, 0).repeat(2, 1)

    with pytest.raises(KeyboardInterrupt):
        store.add_teacher("t", twice)
    (part,) = (tmp_path / "store").glob("*.part")
    part.write_bytes(part.read_bytes() + b"half a picture")
    store.add_teacher("t", twice)
    assert len(seen) == 4, "two pictures, the third in vain, and again"
    whole = np.concatenate([store.lr(n).repeat(2, 0).repeat(2, 1).ravel() for n in range(3)])
    assert np.array_equal(np.fromfile(tmp_path / "store" / "teacher-t.u8", np.uint8), whole)

    (tmp_path / "store" / "teacher-other.part").touch()
    discard(tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_disk_without_room_is_told_before_decoding(
    tmp_path: Path, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_pairs(folders[0], 2)
    store = open_store(found, 2, tmp_path / "a", sizes=[1.0, 0.5])
    taken = sum((tmp_path / "a" / name).stat().st_size for name in ("lr.u8", "hr.u8"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0.9 * taken))
    with pytest.raises(OutputError, match=r"the pictures take 0\.0 GB decoded, and 0\.0 GB are free"):
        open_store(found, 2, tmp_path / "b", sizes=[1.0, 0.5])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1.1 * taken))
    open_store(found, 2, tmp_path / "b", sizes=[1.0, 0.5])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0.5 * taken))
    with pytest.raises(OutputError, match="the teacher's pictures take"):
        store.add_teacher("t", lambda lr: lr.repeat(2, 0).repeat(2, 1))


def test_an_interrupted_store_is_made_anew(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    whole = open_store(find_pairs(folders[0], 2), 2, tmp_path / "store").hr(0).copy()
    save(folders[0] / "00.png", photo(50, 50, seed=5))

    class Killed(BaseException):
        pass

    def kill(_: str) -> None:
        raise Killed

    (folders[0] / "1x.png").write_bytes(b"no picture: is reported, and there the process dies")
    with pytest.raises(Killed):
        open_store(find_pairs(folders[0], 2), 2, tmp_path / "store", kill)
    (folders[0] / "00.png").unlink()
    (folders[0] / "1x.png").unlink()
    assert np.array_equal(open_store(find_pairs(folders[0], 2), 2, tmp_path / "store").hr(0), whole)


def test_output_that_is_a_file(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        pretrain.pretrain(load(tmp_path, RECIPE), *folders, tmp_path / "out")


@pytest.mark.parametrize("recipe", [RECIPE, SOAP], ids=["adam", "soap"])
def test_divergence_is_told(tmp_path: Path, folders: tuple[Path, Path], recipe: str) -> None:
    text = recipe.replace("learning_rate = 2e-3", "learning_rate = 1e30").replace("warmup = 4", "")
    with pytest.raises(TrainingError, match="diverged before iteration"):
        pretrain.pretrain(load(tmp_path, text), *folders, tmp_path / "out")


def test_unreadable_pictures_are_named_and_left_out(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    (folders[0] / "broken.jpg").write_bytes(b"\xff\xd8 no")
    said: list[str] = []
    store = open_store(find_pairs(folders[0], 2), 2, tmp_path / "store", said.append)
    assert len(store) == 3
    assert any("broken.jpg" in line for line in said)
    with pytest.raises(ImageError, match="no picture is 400 pixels"):
        store.batch(0, 0, 2, 200)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="no pictures"):
        find_pairs(tmp_path / "empty", 2)


def test_patches_depend_on_seed_and_step_alone_and_fit_together(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    store = open_store(find_pairs(folders[0], 2), 2, tmp_path / "store")
    store.add_teacher("double", lambda lr: lr.repeat(2, 0).repeat(2, 1))
    again = open_store(find_pairs(folders[0], 2), 2, tmp_path / "store")
    again.add_teacher("double", lambda lr: pytest.fail("the teacher's pictures are kept"))
    a, b, c = store.batch(1, 7, 4, 9), again.batch(1, 7, 4, 9), store.batch(1, 8, 4, 9)
    assert np.array_equal(a.hr, b.hr)
    assert not np.array_equal(a.hr, c.hr)
    assert a.lr.shape == (4, 3, 9, 9)
    assert a.hr.shape == (4, 3, 18, 18)
    assert a.teacher is not None
    assert np.array_equal(a.teacher, a.lr.repeat(2, 2).repeat(2, 3)), "LR and teacher are cut and turned alike"
    assert np.abs(a.hr[:, :, ::2, ::2].astype(int) - a.lr).mean() < 25


def test_learning_rate_curve() -> None:
    stage = recipes.Stage(iterations=100, warmup=10, learning_rate=1.0, final_learning_rate=0.0)
    curve = [loop.learning_rate(stage, s) for s in range(100)]
    assert curve[0] == pytest.approx(0.1)
    assert max(curve) == curve[9] == curve[10] == 1.0
    assert curve[55] == pytest.approx(0.5)
    assert curve[99] == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("iteratons = 5", r"stage\.0\.iteratons: extra inputs are not permitted"),
        ("patch = 25", "25 does not divide by the scale, 2"),
        ('loss = "l2"', r"stage\.0\.loss"),
        ("batch = 0", r"stage\.0\.batch"),
        ("learning_rate = inf", r"stage\.0\.learning_rate"),
        ("warmup = 3", "takes all 3 iterations"),
        ("hr_weight = 0", "nothing to learn from"),
        ("learning_rate = ", "not TOML"),
        ("a = " + "[" * 5000, "not TOML"),
        ("batch = " + "9" * 5000, "not TOML"),
    ],
)
def test_recipe_mistakes(tmp_path: Path, change: str, reason: str) -> None:
    with pytest.raises(RecipeError, match=reason):
        load(tmp_path, f"[network]\nscale = 2\n[[stage]]\niterations = 3\n{change}\n")


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"stage\.0\.batch.*sead"):
        load(tmp_path, "sead = 1\n[[stage]]\niterations = 3\nbatch = -1\n")
    with pytest.raises(RecipeError, match="seed"):
        load(tmp_path, "seed = 100000000000000000000000\n[[stage]]\niterations = 3\n")
    with pytest.raises(RecipeError, match="cannot be read"):
        recipes.load_pretrain(tmp_path / "none.toml")


def test_a_recipe_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("\ufeff[[stage]]\niterations = 3\n", encoding="utf-8")
    assert recipes.load_pretrain(tmp_path / "recipe.toml").stages[0].iterations == 3


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda p: p.name)
def test_the_recipes_that_come_with_it_are_valid(path: Path) -> None:
    assert recipes.load_pretrain(path).stages


def test_saved_model_equals_the_trained_network() -> None:
    from dsclora.networks import span_torch

    torch.manual_seed(0)
    net = span_torch.SpanTrain(6, 2, range=16.0).eval()
    model = span.with_range(span_torch.to_network(net, {}, "MIT"), 255.0)
    x = torch.rand(1, 3, 10, 10)
    with torch.inference_mode():
        assert torch.allclose(span_torch.from_network(model)(x), net(x), atol=1e-4)
    assert replace(model, name="x").sha256 == model.sha256
