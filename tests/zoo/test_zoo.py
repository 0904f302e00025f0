"""The bundled files are sound, the index tells what they hold, and the right one is taken where none is named."""

import json
import runpy
from pathlib import Path

import pytest

from dsclora import zoo
from dsclora.errors import ModelError
from dsclora.networks import adapter, span
from helpers import ROOT


def test_the_index_tells_what_the_files_hold() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "zoo_index.py"))
    folder = script["ZOO"]
    assert json.loads((folder / "index.json").read_text()) == script["index"](folder), "run scripts/zoo_index.py"


def test_choosing_a_base_reads_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    added = zoo.load_adapter("span-x2-docs")
    monkeypatch.setattr(span, "read", None)
    assert zoo.base_of(added) == "span-x2"
    assert zoo.best_bundled(4) == "span-x4"


def test_the_bundled_models_are_sound() -> None:
    assert zoo.DEFAULT in zoo.names()
    for name in zoo.names():
        bundled = zoo.load(name)
        assert bundled.training, name
        assert (Path(zoo.__file__).parent / f"{name}.md").exists(), "every model has a card"
    for name in zoo.adapter_names():
        fitting = zoo.load_adapter(name)
        adapter.check_fits(fitting, zoo.load(str(fitting.training["base"])))
        if fitting.ranges:
            assert fitting.training["int8"]["trained"] > fitting.training["int8"]["calibrated"], name
        else:
            assert fitting.training["result"]["accepted"], name
        assert (Path(zoo.__file__).parent / "adapters" / f"{name}.md").exists(), "every adapter has a card"
    for name in ("span-x9", "x" * 300):
        with pytest.raises(ModelError, match="no bundled model"):
            zoo.load(name)


def test_the_model_that_suits() -> None:
    assert zoo.best_bundled() == zoo.DEFAULT
    assert [zoo.best_bundled(factor) for factor in (1.5, 2, 2.1, 3, 3.5)] == ["span-x2"] * 2 + ["span-x3"] * 2 + [
        "span-x4"
    ]
    assert zoo.best_bundled(9) == zoo.DEFAULT
    for name in zoo.adapter_names():
        added = zoo.load_adapter(name)
        assert zoo.best_bundled(1, added) == added.training["base"], "the adapter decides"
    assert zoo.teacher_of("a file") is None
    assert zoo.teacher_of("span-x4-wide") is None
    assert {zoo.teacher_of(f"span-x{scale}") for scale in (2, 3, 4)} == {"span-x4-wide"}
