"""Recipes: a typo does not start, in a file or in Python, and the bundled ones say what they always said."""

from pathlib import Path

import pytest

from dsclora import zoo
from dsclora.errors import RecipeError
from dsclora.training import convlora, recipes
from helpers import ROOT


def load(tmp_path: Path, text: str) -> recipes.PretrainRecipe:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return recipes.load_pretrain(path)


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
def test_mistakes_in_a_recipe_of_a_base(tmp_path: Path, change: str, reason: str) -> None:
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
def test_mistakes_in_a_recipe_of_an_adapter(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "r.toml"
    tables = '[[lora]]\nconvs = "upsampler.0"\nrank = 1\nalpha = 1\n[[stage]]\niterations = 5\n'
    path.write_text(f"{text}\n{tables}")
    with pytest.raises(RecipeError, match=reason):
        recipes.load_adapt(path)
