"""Recipes: a typo does not start, in a file or in Python, and the bundled ones say what they always said."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from dsclora import zoo
from dsclora.errors import RecipeError
from dsclora.training import convlora, recipes
from dsclora.training.recipes import AdaptRecipe, PretrainRecipe
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


PARTS = {
    "span-x4": (4, 26, [20000, 19000, 46000, 6800, 26000], ["adam"] * 3 + ["soap"] * 2),
    "span-x4-wide": (4, 48, [24000, 29000, 12000, 7800, 13700], ["adam"] * 2 + ["soap"] * 3),
    "span-x3": (3, 26, [11000, 32000, 6800, 4500], ["adam"] * 2 + ["soap"] * 2),
    "span-x2": (2, 26, [11000, 32000, 6800, 7800, 21500, 6000], ["adam"] * 2 + ["soap"] * 4),
    "quick": (4, 26, [2500], ["soap"]),
}


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "recipes").glob("*.toml")))
def test_one_bundled_model_is_one_file(name: str) -> None:
    recipe = recipes.load_pretrain(name)
    scale, channels, steps, optimisers = PARTS[name]
    assert (recipe.network.scale, recipe.network.channels) == (scale, channels)
    parts = recipe.parts()
    assert [sum(stage.iterations for stage in part.stages) for part in parts] == steps
    assert [part.optimiser for part in parts] == optimisers
    assert [part.network.form == "plain" for part in parts] == [kind == "soap" for kind in optimisers]
    assert all(not stage.changes for part in parts for stage in part.stages)


def test_a_stage_changes_what_it_names_and_the_rest_goes_on(tmp_path: Path) -> None:
    text = "seed = 1\nsizes = [0.5]\n[[stage]]\niterations = 3\n[[stage]]\niterations = 4\n"
    text += '[[stage]]\niterations = 5\noptimiser = "soap"\n[[stage]]\niterations = 6\nseed = 2\nsizes = [1.0]\n'
    recipe = load(tmp_path, text)
    facts = [(p.seed, p.sizes, p.optimiser, [s.iterations for s in p.stages]) for p in recipe.parts()]
    assert facts == [(1, [0.5], "adam", [3, 4]), (1, [0.5], "soap", [5]), (2, [1.0], "soap", [6])]
    assert recipe.describe()["stage"][2].keys() - recipe.describe()["stage"][0].keys() == {"optimiser"}


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "recipes" / "adapters").glob("*.toml")))
def test_one_recipe_of_an_adapter_is_for_all_scales(name: str) -> None:
    recipe = recipes.load_adapt(name)
    assert [entry.rank for entry in recipe.lora] == [8, 8, 8]
    for scale in (2, 3, 4):
        there = recipe.at_scale(scale)
        assert [stage.patch for stage in there.stages] == [48 * scale]
        assert there.at_scale(scale) is there
        blurs = [step.strength for step in there.degrade if step.kind == "blur"]
        ends = {"blur": (0.125, 1.0), "photo": (0.0, 0.5)}
        assert blurs == [tuple(end * scale for end in ends[key]) for key in ends if key == name]
        assert "pixels" not in there.describe(), "in HR pixels the header is as it always was"


def test_pixels_of_a_blur_after_the_reduction_are_lr_already() -> None:
    blur, down = {"kind": "blur", "strength": [1.0, 2.0]}, {"kind": "downscale"}
    stage = [{"iterations": 1, "patch": 16}]
    for chain, strength in (([down, blur], 1.0), ([blur], 1.0), ([blur, down], 4.0)):
        recipe = AdaptRecipe.model_validate({"pixels": "lr", "stage": stage, "degrade": chain}).at_scale(4)
        assert next(step.strength[0] for step in recipe.degrade if step.kind == "blur") == strength


def test_what_a_recipe_of_an_adapter_leaves_out_is_the_bundled_one() -> None:
    default = recipes.load_adapt(zoo.adapt_recipe())
    recipe = AdaptRecipe.model_validate({"copies": 2})
    assert (recipe.lora, recipe.stages) == (default.lora, default.stages)


@pytest.mark.parametrize(
    ("kind", "content", "reason"),
    [
        (AdaptRecipe, {"stage": [{"iterations": 3, "warmup": 3}]}, "takes all 3 iterations"),
        (AdaptRecipe, {"degrade": [{"kind": "downscale"}] * 2}, "named twice"),
        (AdaptRecipe, {"pixels": "lr"}, "name a stage with its patch"),
        (AdaptRecipe, {"pixels": "lr", "stage": [{"iterations": 3}]}, "the default is in HR pixels"),
        (AdaptRecipe, {"stage": [{"iterations": 3, "optimiser": "soap"}]}, "Extra inputs"),
        (PretrainRecipe, {"stage": [{"iterations": 3, "affinity_weight": 1}]}, "is for adapt"),
        (PretrainRecipe, {"stage": [{"iterations": 3, "patch": 33}]}, "does not divide by the scale"),
    ],
)
def test_python_is_refused_the_same_mistakes(kind: type[recipes.Recipe], content: object, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        kind.model_validate(content)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("batch", "9223372036854775807"),
        ("batch", "1" + "0" * 400),
        ("iterations", "1" + "0" * 400),
        ("learning_rate", "1e308"),
        ("final_learning_rate", "1e308"),
    ],
)
def test_numbers_without_measure_are_one_line(tmp_path: Path, key: str, value: str) -> None:
    (tmp_path / "r.toml").write_text("[[stage]]\niterations = 4\n".replace("iterations = 4", f"{key} = {value}"))
    with pytest.raises(RecipeError, match=rf"r\.toml: .*stage\.0\.{key}: input should be less than") as caught:
        recipes.load_adapt(tmp_path / "r.toml")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_recipe_that_is_not_bundled_is_told() -> None:
    with pytest.raises(RecipeError, match=r"'doc' \(did you mean docs\?\), .*bundled: blur, comic, docs"):
        recipes.load_adapt("doc")
    with pytest.raises(RecipeError, match="bundled: quick, span-x2"):
        recipes.load_pretrain("docs")


def test_the_bundled_recipe_is_the_authors_two_stages() -> None:
    r = recipes.load_adapt(zoo.adapt_recipe())
    assert [stage.patch for stage in r.stages] == [192, 256]
    assert tuple(convlora.Target(x.convs, x.rank, x.alpha) for x in r.lora) == convlora.LAYERED


@pytest.mark.parametrize(
    "path",
    sorted([*(ROOT / "experiments").rglob("*.toml")]),
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
