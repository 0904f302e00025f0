"""Training a base model: it learns, it goes on bit for bit after a kill, and runs are not mixed up."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dsclora.errors import ImageError, OutputError, RecipeError, TrainingError
from dsclora.networks import span, span_torch
from dsclora.networks.span import SpanNetwork
from dsclora.pictures.pairs import find_pairs
from dsclora.pictures.resize import imresize
from dsclora.training import pretrain, recipes
from dsclora.training.patches import open_store
from dsclora.training.run import Progress, Run
from dsclora.training.teacher import self_ensemble
from helpers import photo, random_model, save
from helpers_training import PRETRAIN, SOAP


def load(tmp_path: Path, text: str) -> recipes.PretrainRecipe:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return recipes.load_pretrain(path)


def train(
    recipe: recipes.PretrainRecipe,
    folders: tuple[Path, Path],
    folder: Path,
    teacher: SpanNetwork | None = None,
    *,
    start: SpanNetwork | None = None,
    compile: bool = False,
    resume: bool = False,
    report: Callable[[Progress], None] = lambda _: None,
) -> pretrain.Outcome:
    run = Run(folder, resume=resume, report=report)
    return pretrain.pretrain(recipe, *folders, run, teacher, start=start, compile=compile)


TRAIN = """
import sys; from pathlib import Path; import torch; torch.set_num_threads(1)
from dsclora.training import pretrain, recipes, run
base = Path(sys.argv[1])
recipe = recipes.load_pretrain(base / "recipe.toml")
pretrain.pretrain(recipe, base / "train", base / "valid", run.Run(Path(sys.argv[2]), resume=True))
"""


@pytest.mark.slow
def test_it_learns(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    text = PRETRAIN.replace("iterations = 16", "iterations = 250").replace("validate_every = 10", "validate_every = 50")
    logged: list[Progress] = []
    outcome = train(load(tmp_path, text), folders, tmp_path / "out", report=logged.append)
    scores = [p.score for p in logged if p.score is not None]
    assert outcome.psnr == max(scores) > scores[0] + 3
    assert outcome.psnr > 20
    model = span.read(outcome.path)
    assert model.sha256 == outcome.model.sha256
    assert (model.scale, model.channels, model.range) == (2, 6, span.SPAN_RANGE)
    assert model.training["validation"]["psnr"] == pytest.approx(outcome.psnr, abs=1e-4)
    rows = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == rows[-1]["steps"] == 258


@pytest.mark.slow
def test_soap_learns_faster_and_trains_the_plain_network(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    def trained(text: str, name: str) -> pretrain.Outcome:
        text = text.replace("iterations = 16", "iterations = 100").replace("rate = 2e-3", "rate = 6e-3")
        return train(load(tmp_path, text), folders, tmp_path / name)

    assert trained(SOAP, "soap").psnr > trained(PRETRAIN, "adam").psnr + 0.5
    state = torch.load(tmp_path / "soap/checkpoint.pt", weights_only=True)["net"]
    assert sorted(state) == sorted(span_torch.Span(6, 2).state_dict())


@pytest.mark.slow
def test_a_teacher_pulls(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    teacher = random_model(2, 8)
    text = PRETRAIN.replace("warmup = 4", "warmup = 4\nteacher_weight = 1.0\nhr_weight = 0.0")
    recipe = load(tmp_path, text)
    with pytest.raises(RecipeError, match="name a teacher"):
        train(recipe, folders, tmp_path / "a")
    with pytest.raises(RecipeError, match="teacher enlarges x1 only, the recipe asks for x2"):
        train(recipe, folders, tmp_path / "a", random_model(1))
    outcome = train(recipe, folders, tmp_path / "a", teacher)
    assert outcome.model.training["teacher_sha256"] == teacher.sha256
    alone = train(load(tmp_path, PRETRAIN), folders, tmp_path / "b")
    assert outcome.model.sha256 != alone.model.sha256


@pytest.mark.slow
def test_it_starts_where_another_model_is(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    text = PRETRAIN.replace("warmup = 4", "").replace("2e-3", "1e-9").replace("1e-3", "1e-9")
    first = train(load(tmp_path, PRETRAIN), folders, tmp_path / "a")
    again = train(load(tmp_path, text), folders, tmp_path / "b", start=first.model)
    assert again.psnr == pytest.approx(first.psnr, abs=0.05)  # 24 steps of at most 1e-6
    assert again.model.training["start_sha256"] == first.model.sha256
    with pytest.raises(TrainingError, match="another recipe"):
        train(load(tmp_path, text), folders, tmp_path / "b", resume=True)
    with pytest.raises(RecipeError, match="has 8 channels, the recipe asks for 6"):
        train(load(tmp_path, text), folders, tmp_path / "c", start=random_model(2, 8))
    moved = replace(first.model, mean=(0.0, 0.0, 0.0))
    with pytest.raises(RecipeError, match="not SPAN's mean"):
        train(load(tmp_path, text), folders, tmp_path / "c", start=moved)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch, of itself
def test_compiled_it_learns_the_same(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    recipe = load(tmp_path, PRETRAIN[: PRETRAIN.rindex("[[stage]]")])  # a shape of patches is compiled once
    eager = train(recipe, folders, tmp_path / "a")
    compiled = train(recipe, folders, tmp_path / "b", compile=True)
    assert compiled.psnr == pytest.approx(eager.psnr, abs=0.01)


def test_nothing_to_compile_with(tmp_path: Path, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(TrainingError, match="is not installed; leave it out"):
        train(load(tmp_path, PRETRAIN), folders, tmp_path / "a", compile=True)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [PRETRAIN, SOAP], ids=["adam", "soap"])
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


@pytest.mark.slow
def test_runs_are_not_mixed_up(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    train(load(tmp_path, PRETRAIN), folders, tmp_path / "out")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "model.safetensors").write_text("precious")
    for resume in (False, True):
        with pytest.raises(OutputError, match=r"holds a model\.safetensors already"):
            train(load(tmp_path, PRETRAIN), folders, tmp_path / "kept", resume=resume)
    assert (tmp_path / "kept" / "model.safetensors").read_text() == "precious"
    with pytest.raises(OutputError, match="--resume or choose another folder"):
        train(load(tmp_path, PRETRAIN), folders, tmp_path / "out")
    other = load(tmp_path, PRETRAIN.replace("2e-3", "3e-3"))
    with pytest.raises(TrainingError, match="another recipe"):
        train(other, folders, tmp_path / "out", resume=True)


@pytest.mark.slow
def test_other_pictures_are_other_data(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    recipe = load(tmp_path, PRETRAIN)
    train(recipe, folders, tmp_path / "out")
    save(folders[1] / "v.png", photo(40, 40, seed=10))
    with pytest.raises(TrainingError, match="other pictures"):
        train(recipe, folders, tmp_path / "out", resume=True)


def test_a_damaged_checkpoint_is_one_line(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "checkpoint.pt").write_bytes(b"PK not really")
    with pytest.raises(TrainingError, match="damaged") as caught:
        train(load(tmp_path, PRETRAIN), folders, tmp_path / "out", resume=True)
    assert "\n" not in str(caught.value)


def test_too_small_to_validate_on(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    save(folders[1] / "tiny.png", photo(4, 4))
    with pytest.raises(ImageError, match=r"tiny.png: too small"):
        train(load(tmp_path, PRETRAIN), folders, tmp_path / "out")


@pytest.mark.slow
def test_the_teacher_is_its_self_ensemble_where_the_recipe_says_so(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    teacher = random_model(2, 8)
    upright = span_torch.uint8_function(span_torch.from_network(teacher))
    for ensemble in (False, True):
        text = f"teacher_ensemble = {str(ensemble).lower()}\n{PRETRAIN}teacher_weight = 1.0\n"
        train(load(tmp_path, text), folders, tmp_path / f"{ensemble}", teacher)
        (kept,) = (tmp_path / f"{ensemble}" / "pictures").glob("teacher-*.u8")
        lr = open_store(find_pairs(folders[0], 2), 2, tmp_path / "store").lr(0)
        target = self_ensemble(upright, lr) if ensemble else upright(lr)
        mistaken = np.abs(np.fromfile(kept, np.uint8, target.size).astype(int) - target.ravel())
        assert mistaken.max() <= 1, "engines round differently"
        assert (mistaken > 0).mean() < 0.01


@pytest.mark.slow
def test_a_teacher_of_a_larger_scale_is_reduced(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    teacher = random_model(3, 8)
    train(load(tmp_path, f"{PRETRAIN}teacher_weight = 1.0\n"), folders, tmp_path / "run", teacher)
    (kept,) = (tmp_path / "run" / "pictures").glob("teacher-*.u8")
    lr = open_store(find_pairs(folders[0], 2), 2, tmp_path / "store").lr(0)
    expected = imresize(span_torch.uint8_function(span_torch.from_network(teacher))(lr), 2 / 3)
    assert expected.shape == (lr.shape[0] * 2, lr.shape[1] * 2, 3)
    mistaken = np.abs(np.fromfile(kept, np.uint8, expected.size).astype(int) - expected.ravel())
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


@pytest.mark.slow
def test_the_header_says_what_was_computed_in(
    tmp_path: Path, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        span_torch, "resolve_precision", lambda precision, _: "bf16" if precision == "auto" else precision
    )
    text = PRETRAIN.replace('precision = "fp32"', 'precision = "auto"', 1)
    model = train(load(tmp_path, text), folders, tmp_path / "run").model
    assert [stage["precision"] for stage in model.training["recipe"]["stage"]] == ["bf16", "fp32"]


@pytest.mark.slow
def test_patches_that_pictures_have_no_room_for_are_told_before_training(
    tmp_path: Path, folders: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    """Of all stages: the last one may begin after hours."""
    text = PRETRAIN.replace("[network]", "sizes = [1.0, 0.5]\n[network]", 1).replace("patch = 32", "patch = {}")
    train(load(tmp_path, text.format(28)), folders, tmp_path / "out")
    assert caplog.messages[-1] == "3 of 6 pictures are smaller than a patch of 28 pixels and left out"
    with pytest.raises(ImageError, match="no picture is 64 pixels high and wide"):
        train(load(tmp_path, text.format(64)), folders, tmp_path / "other")
    assert not (tmp_path / "other" / "log.jsonl").exists()


def test_output_that_is_a_file(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        train(load(tmp_path, PRETRAIN), folders, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [PRETRAIN, SOAP], ids=["adam", "soap"])
def test_divergence_is_told(tmp_path: Path, folders: tuple[Path, Path], recipe: str) -> None:
    text = recipe.replace("learning_rate = 2e-3", "learning_rate = 1e6").replace("warmup = 4", "")
    with pytest.raises(TrainingError, match="diverged before iteration"):
        train(load(tmp_path, text), folders, tmp_path / "out")


CHAIN = (
    PRETRAIN
    + """
[[stage]]
seed = 7
sizes = [1.0, 0.6]
optimiser = "soap"
form = "plain"
teacher_ensemble = true
validate_every = 6
precision = "fp32"
iterations = 14
batch = 2
patch = 16
learning_rate = 3e-3
teacher_weight = 0.5

[[stage]]
precision = "fp32"
iterations = 4
batch = 2
patch = 24
learning_rate = 1e-3
loss = "mse"
"""
)
"""Two parts: the second on other pictures, by another optimiser, in another form, taught."""


@pytest.mark.slow
def test_a_chain_in_one_file_equals_its_parts(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    """Each part begins with the best weights of the one before, as with --start; bit for bit."""
    teacher, reported = random_model(2, 8, seed=1), list[Progress]()
    recipe = load(tmp_path, CHAIN)
    whole = train(recipe, folders, tmp_path / "whole", teacher, report=reported.append)
    first, second = recipe.parts()
    assert (first.optimiser, second.optimiser) == ("adam", "soap")
    assert (first.network.form, second.network.form) == ("training", "plain")
    half = train(first, folders, tmp_path / "first", teacher)
    end = train(second, folders, tmp_path / "second", teacher, start=span.read(half.path))
    assert whole.model.sha256 == end.model.sha256
    assert whole.psnr == end.psnr
    assert whole.model.training["recipe"]["stage"][2]["optimiser"] == "soap"
    steps = [p.step for p in reported]
    assert steps == sorted(steps), "counted over all parts"
    assert {p.steps for p in reported} == {42}
    assert steps[-1] == 42


@pytest.mark.slow
@pytest.mark.parametrize("stop", [20, 24, 30, 36])
def test_a_chain_resumed_equals_uninterrupted(tmp_path: Path, folders: tuple[Path, Path], stop: int) -> None:
    """Interrupted in the first part, at its end, before the second part's first checkpoint, and after it."""
    text = CHAIN.replace("teacher_weight = 0.5", "").replace("teacher_ensemble = true", "")
    recipe = load(tmp_path, text)

    def interrupt(progress: Progress) -> None:
        if progress.step >= stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, folders, tmp_path / "broken", report=interrupt)
    broken = train(recipe, folders, tmp_path / "broken", resume=True)
    whole = train(recipe, folders, tmp_path / "whole")
    assert broken.model.sha256 == whole.model.sha256
    with pytest.raises(TrainingError, match="another recipe"):
        train(load(tmp_path, text.replace("seed = 7", "seed = 8")), folders, tmp_path / "broken", resume=True)
