"""`dsclora models` and `doctor`, and that the figures are the README's and the cards'."""

import re

import torch

from dsclora import zoo
from dsclora.engines.choice import choose
from dsclora.networks import span_torch
from dsclora.zoo.figures import load_figures
from helpers import ROOT, dsclora_, parsed

FIGURES = load_figures()


def test_models_is_a_table() -> None:
    text = dsclora_("models").stdout
    rows = [re.split(r"  +", line) for line in text.splitlines()]
    assert rows[0] == ["name", "scale", "for", "gain, dB", "clean, dB", "licence", "kB"]
    table = {row[0].removesuffix(" (default)"): row[1:] for row in rows[1:-2]}
    assert list(table) == zoo.names() + zoo.adapter_names()
    assert table["span-x4-docs"] == ["x4", "pages of text", "+3.84", "-0.22", "MIT", "313"]
    assert table["span-x4"][1] == "photographs; 130,828 parameters"
    assert f"{zoo.DEFAULT} (default)" in text


def test_models_as_json() -> None:
    listed = parsed(dsclora_("models", "--json"))
    assert set(listed) == {"default", "models", "adapters"}
    assert listed["default"] == zoo.DEFAULT
    assert [row["name"] for row in listed["models"]] == zoo.names()
    assert [row["name"] for row in listed["adapters"]] == zoo.adapter_names()


def test_every_adapter_says_what_it_is_for_and_has_figures() -> None:
    assert [name for name in zoo.adapter_names() if not zoo.purpose(name).startswith("for ")] == ["span-x4-int8"]
    assert set(FIGURES) == set(zoo.adapter_names()) - {"span-x4-int8"}


def test_the_figures_are_the_readme_s() -> None:
    rows = dict(
        re.findall(r"^\| `([\w-]+)` \| .*? \| (\S+ to \*\*\S+\*\* \| \S+) \|$", (ROOT / "README.md").read_text(), re.M)
    )
    assert rows == {name: f"{f.before:.3f} to **{f.after:.3f}** | {f.clean:+.2f}" for name, f in FIGURES.items()}


def test_the_figures_are_the_cards() -> None:
    for name, figures in FIGURES.items():
        card = (zoo.adapters() / f"{name}.md").read_text(encoding="utf-8")
        for value in (f"{figures.before:.3f}", f"{figures.after:.3f}", f"({figures.clean:+.2f};"):
            assert value in card, (name, value)


def test_doctor() -> None:
    report = parsed(dsclora_("doctor", "--json"))
    assert [r["engine"] for r in report["runtimes"] if r["used"]] == [choose().name]
    assert "openvino" in dsclora_("doctor").stdout
    assert report["cpu_trains_in"] == span_torch.resolve_precision("auto", torch.device("cpu"))
    assert f"; on the CPU in {report['cpu_trains_in']}" in dsclora_("doctor").stdout
