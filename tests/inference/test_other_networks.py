"""Networks that are no SPAN go through the main path: sides that must divide, and one that sees everything."""

from pathlib import Path

import numpy as np
import pytest

from dsclora.engines import Setting
from dsclora.engines.choice import open_engine
from dsclora.inference.jobs import Options, plan_jobs
from dsclora.inference.strips import Border, enlarge
from dsclora.inference.upscale import upscale_files
from dsclora.pictures.read import read_rgb8
from helpers import photo, save
from helpers_networks import tiny_network

ENGINES = ["openvino", "onnxruntime", "torch"]


@pytest.mark.parametrize("border", ["reflect", "zero"])
@pytest.mark.parametrize("name", ENGINES)
def test_tiled_equals_whole(name: str, border: Border) -> None:
    pixels = photo(101, 150)
    for scale in (1, 3):
        engine = open_engine(tiny_network(scale), Setting(name, threads=1))
        whole = enlarge(engine, pixels, border=border, tile=1000)
        assert whole.shape == (101 * scale, 150 * scale, 3)
        tiled = enlarge(engine, pixels, border=border, tile=64)
        # runtimes add in another order in windows of another shape: a value between two levels may go either way
        difference = np.abs(tiled.astype(int) - whole)
        assert difference.max() <= 1
        assert (difference > 0).mean() < 1e-4


@pytest.mark.parametrize("name", ENGINES)
def test_a_network_that_sees_everything_is_not_cut(name: str) -> None:
    pixels = photo(100, 152)
    engine = open_engine(tiny_network(3, global_mean=True), Setting(name, threads=1))
    whole = engine(pixels.transpose(2, 0, 1)[None])[0].transpose(1, 2, 0)
    assert np.array_equal(enlarge(engine, pixels, border="zero", tile=64), whole)


@pytest.mark.parametrize("global_mean", [False, True])
def test_from_file_to_file(global_mean: bool, tmp_path: Path) -> None:
    pixels = photo(70, 90)
    source = save(tmp_path / "a.png", pixels)
    engine = open_engine(tiny_network(3, global_mean=global_mean), Setting(threads=1))
    options = Options()
    jobs, _ = plan_jobs([str(source)], tmp_path / "out.png", options, engine.scale, None)
    (result,) = upscale_files([engine], jobs, options)
    assert result.status == "done"
    assert np.array_equal(read_rgb8(tmp_path / "out.png"), enlarge(engine, pixels))
