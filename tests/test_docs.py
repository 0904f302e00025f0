"""The documentation: it builds without a warning, and every command in it runs."""

import itertools
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dsclora import zoo
from dsclora.networks import span, span_graph, span_torch
from dsclora.pictures.read import find_pictures, read_rgb8
from helpers import ROOT, dsclora_, photo, random_model, save

PAGES = sorted(page for page in (ROOT / "docs").glob("*.md") if "```sh" in page.read_text())
RECIPE = """[network]
scale = {scale}
channels = {channels}
[[stage]]
iterations = 2
batch = 2
patch = 24
teacher_weight = {teacher}
"""


def commands(page: Path) -> list[str]:
    """Its shell lines that call dsclora, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("dsclora ")]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with what the pages speak of, small."""
    for path in find_pictures(zoo.general_pictures()):  # of noise int8 is refused where there is no VNNI
        save(tmp_path / "photographs" / f"{path.stem}.png", read_rgb8(path)[:192, :192])
    for number, name in itertools.product(range(6), ("scans", "others")):
        noise = np.random.default_rng((number, len(name))).integers(0, 256, (6, 6, 3), np.uint8)
        save(tmp_path / name / f"{number}.png", np.kron(noise, np.ones((32, 32, 1), np.uint8)))
    save(tmp_path / "photo.jpg", photo(30, 40))
    save(tmp_path / "page.png", photo(30, 40))
    save(tmp_path / "holiday" / "day" / "one.jpg", photo(30, 40))
    for number in range(2):
        save(tmp_path / "Set5" / "HR" / f"{number}.png", photo(48, 64, seed=number))
    import torch

    for channels in (26, 28):
        plain = random_model(4, channels)
        span.write(tmp_path / f"span_ch{channels}.safetensors", plain)
    torch.save(span_torch.from_network(random_model(4, 26)).state_dict(), tmp_path / "span_ch26.pth")
    (tmp_path / "span_ch26.safetensors").unlink()
    (tmp_path / "efdn.onnx").write_bytes(span_graph.build(random_model(4)).SerializeToString())
    (tmp_path / "recipes").mkdir()
    for scale, teacher in ((4, 1.0), (3, 0.0)):
        recipe = RECIPE.format(scale=scale, channels=26, teacher=teacher)
        (tmp_path / "recipes" / f"span-x{scale}.toml").write_text(recipe)
    lora = '[[lora]]\nconvs = "upsampler.0"\nrank = 1\nalpha = 1.0\n[[degrade]]\nkind = "jpeg"\nstrength = [30, 90]\n'
    stage = RECIPE.partition("[[stage]]")[2].format(teacher=1.0)
    (tmp_path / "recipes" / "jpeg.toml").write_text(f"{lora}[[stage]]{stage}")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_runs(page: Path, place: Path) -> None:
    assert commands(page)
    if "span_ch26.safetensors" in page.read_text() and "dsclora import" not in page.read_text():
        dsclora_("import", "span_ch26.pth", "-o", "span_ch26.safetensors", cwd=place)
    for command in commands(page):
        # a run of ten minutes is one of two steps here, and what it makes of noise may be refused (exit code 3)
        short = command.replace("--minutes 10", "--iterations 2 --overwrite").replace("640x360", "64x48")
        short = re.sub(r"pretrain (span-x\d) ", r"pretrain recipes/\1.toml ", short)  # not of hours, but of two steps
        short = short.replace("--recipe jpeg", "--recipe recipes/jpeg.toml")
        short += " --iterations 2" if command.startswith("dsclora quantize") else ""
        short += " --runs 1" if command.startswith("dsclora profile") else ""
        words = shlex.split(short, comments=True)[1:]
        done = subprocess.run(
            [sys.executable, "-m", "dsclora.cli", *words], capture_output=True, text=True, cwd=place, check=False
        )
        assert done.returncode in ((0, 3) if words[0] == "adapt" else (0,)), (command, done.stderr)
        if done.returncode == 3:
            named = words[words.index("-o") + 1] if "-o" in words else f"{Path(words[1]).name}.safetensors"
            shutil.move(place / named.replace(".safetensors", ".rejected.safetensors"), place / named)


@pytest.mark.slow
def test_the_python_examples_run(place: Path) -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) > 5
    for block in blocks:
        code = block.replace("minutes=10", "iterations=2")
        command = [sys.executable, "-W", "error", "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, cwd=place, check=False)
        assert done.returncode == 0, (block, done.stderr)


@pytest.mark.slow
def test_the_site_builds_without_a_warning() -> None:
    pytest.importorskip("zensical")
    script = ROOT / "scripts" / "site.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No issues found" in done.stdout + done.stderr
    assert "warning" not in (done.stdout + done.stderr).lower()
    assert "griffe" not in done.stdout + done.stderr
    reference = (ROOT / "build" / "site" / "reference" / "index.html").read_text()
    for verb in ("upscale", "adapt", "export", "profile", "quantize"):
        assert f"dsclora {verb}" in reference
    api = (ROOT / "build" / "site" / "api" / "index.html").read_text()
    assert "dsclora.api.load" in api


def test_the_gallery_shows_all_that_is_bundled() -> None:
    from dsclora import zoo

    page = (ROOT / "docs" / "gallery.md").read_text()
    for name in zoo.names() + [name for name in zoo.adapter_names() if not zoo.load_adapter(name).ranges]:
        assert f"images/{name}.webp" in page, f"{name}: run python scripts/gallery.py"
        assert (ROOT / "docs" / "images" / f"{name}.webp").exists()
