"""Training takes any `networks.Network`: a second one is adapted, with patches that its sides divide by."""

from pathlib import Path

import numpy as np
import pytest

from dsclora.errors import ModelError
from dsclora.networks import adapter
from dsclora.networks.adapter import Update
from dsclora.training import convlora
from dsclora.training.adapt import adapt_files
from dsclora.training.recipes import AdaptRecipe, Lora, Stage
from helpers import photo, save
from helpers_networks import tiny_network
from helpers_training import adapted, updates_of


def recipe(iterations: int = 60, **changes: object) -> AdaptRecipe:
    stage = Stage(
        iterations=iterations, batch=4, patch=30, learning_rate=1e-2, final_learning_rate=1e-3, precision="fp32"
    )
    lora = [Lora(convs="*", rank=2, alpha=4)]
    return AdaptRecipe.model_validate({"stage": [stage], "lora": lora, "ema": 0.9, "validations": 4, **changes})


@pytest.mark.parametrize(("scale", "global_mean"), [(3, False), (1, True)])
def test_another_network_is_adapted(pictures: Path, tmp_path: Path, scale: int, global_mean: bool) -> None:
    """x3 plainly reduced; x1, which sees the whole picture, from noise that the recipe adds."""
    base = tiny_network(scale, global_mean=global_mean)
    assert base.halo == (None if global_mean else 2)
    degrade = [{"kind": "noise", "strength": [10, 10]}] if scale == 1 else []
    outcome = adapted(recipe(degrade=degrade), base, pictures, tmp_path / "run")
    assert outcome.change.gain > 0.5
    assert outcome.accepted
    assert outcome.adapter.training["recipe"]["stage"][0]["patch"] == 30 // (4 * scale) * 4 * scale
    assert (outcome.adapter.architecture, outcome.adapter.channels) == ("tiny", None)
    assert sorted(outcome.adapter.updates) == ["head", "tail"]
    path = tmp_path / "a.safetensors"
    adapter.write(path, outcome.adapter)
    merged = adapter.merge(base, [(adapter.read(path), 1.0)])
    attached = convlora.detach(convlora.insert(base.to_torch(), outcome.adapter.updates), merged=True)
    for key, value in attached.state_dict().items():
        np.testing.assert_allclose(merged.weights[key], value.numpy(), atol=1e-6)


def test_another_network_teaches_and_guards(pictures: Path, tmp_path: Path) -> None:
    """A teacher of another architecture and a larger scale, live; and the base, of which a guard makes the teacher."""
    base, teacher = tiny_network(1), tiny_network(3, seed=1)
    distilling = recipe(2, stage=[recipe(2).stages[0].model_copy(update={"teacher_weight": 1.0, "patch": 32})])
    taught = adapted(distilling, base, pictures, tmp_path / "taught", teacher)
    assert taught.adapter.training["teacher"] == {"name": "tiny", "sha256": teacher.sha256}
    for n in range(8):
        save(tmp_path / "guard" / f"g{n}.png", photo(64, 64, seed=50 + n))
    guarded = adapted(distilling, base, pictures, tmp_path / "guarded", guard=tmp_path / "guard")
    assert guarded.adapter.training["teacher"]["sha256"] == base.sha256
    assert guarded.forgetting is not None


def test_python_writes_what_the_command_writes(pictures: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "mine.safetensors"
    done = adapt_files(pictures, base=tiny_network(3), recipe=recipe(), output=target)
    assert done.accepted
    assert done.path == target
    assert done.interval[0] <= done.gain <= done.interval[1]
    assert done.result["held_out"]["gain"] == pytest.approx(done.gain, abs=1e-4)
    assert done.report == target.with_suffix(".html")
    assert "Accepted" in done.report.read_text()
    assert updates_of(adapter.read(target)) == updates_of(done.adapter)
    left = {path.name for path in (tmp_path / "out").rglob("*") if not path.name.startswith("events.")}
    assert left == {
        "mine.safetensors", "mine.html", "mine.run", "checkpoint.pt", "log.jsonl", "plan.json", "precision",
    }  # fmt: skip


def test_an_update_of_another_network_is_refused(pictures: Path, tmp_path: Path) -> None:
    start = adapter.create(
        tiny_network(3, seed=9),
        {"head": Update(np.ones((2, 2), np.float32), np.ones((2, 2), np.float32), 1, 1)},
        {},
        "",
    )
    with pytest.raises(ModelError, match="was made for"):
        adapted(recipe(), tiny_network(3), pictures, tmp_path / "run", start=start)
