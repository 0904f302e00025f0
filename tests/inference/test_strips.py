"""Pictures through an engine: no seams, no tint, no halo, whatever the tile."""

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dsclora import zoo
from dsclora.engines import CroppingEngine, Engine
from dsclora.engines.choice import open_engine
from dsclora.errors import OutOfMemoryError
from dsclora.inference import tiles
from dsclora.inference.strips import Border, enlarge, smallest_tile
from dsclora.networks import span_torch
from dsclora.networks.span import HALO, SpanNetwork
from dsclora.training.teacher import self_ensemble
from helpers import Aligned, Global, Nearest, Wide, photo

BORDERS: list[Border] = ["reflect", "zero"]


@given(st.integers(1, 150), st.integers(1, 150), st.integers(64, 120), st.sampled_from(["reflect", "zero"]))
@settings(max_examples=60, deadline=None)
def test_tiled_equals_whole(height: int, width: int, tile: int, border: Border) -> None:
    pixels = np.random.default_rng(height * 151 + width).integers(0, 256, (height, width, 3), np.uint8)
    whole = enlarge(Wide(), pixels, border=border, tile=1000)
    assert np.array_equal(enlarge(Wide(), pixels, border=border, tile=tile), whole)
    if border == "zero":
        assert np.array_equal(whole, Wide()(pixels.transpose(2, 0, 1)[None])[0].transpose(1, 2, 0))


@given(st.integers(1, 150), st.integers(1, 150), st.integers(64, 120))
@settings(max_examples=60, deadline=None)
def test_sides_that_must_divide_are_reflected_and_cut_again(height: int, width: int, tile: int) -> None:
    pixels = np.random.default_rng(height * 151 + width).integers(0, 256, (height, width, 3), np.uint8)
    for border in BORDERS:
        whole = enlarge(Aligned(), pixels, border=border, tile=1000)
        assert np.array_equal(enlarge(Aligned(), pixels, border=border, tile=tile), whole)
    continued = np.pad(pixels, ((0, -height % 4), (0, -width % 4), (0, 0)), "reflect")
    result = Aligned()(continued.transpose(2, 0, 1)[None])[0].transpose(1, 2, 0)
    assert np.array_equal(whole, result[: height * 2, : width * 2])


def test_a_network_that_sees_everything_is_given_everything() -> None:
    pixels = photo(200, 300)
    for border in BORDERS:
        whole = enlarge(Global(), pixels, border=border, tile=64)
        assert np.array_equal(enlarge(Global(), pixels, border=border, tile=1000), whole)
    assert np.array_equal(whole, Global()(pixels.transpose(2, 0, 1)[None])[0].transpose(1, 2, 0))

    class Small(Global):
        def __call__(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
            raise OutOfMemoryError("out of memory")

    with pytest.raises(OutOfMemoryError, match=r"300 x 200 pixels, which cannot be cut .* reduce it first"):
        enlarge(Small(), pixels)


def test_the_smallest_tile_leaves_a_core() -> None:
    far: Any = Wide()
    far.halo = 50
    far.multiple = 16
    assert smallest_tile(Wide()) == smallest_tile(Global()) == smallest_tile(Nearest()) == 64
    assert smallest_tile(far) == 160  # 2 * 64 + 22, up to a multiple of 16
    cut = tiles.cuts(1008, 160, far.halo, far.multiple)
    assert len(cut) == 28


def test_floats_are_not_rounded() -> None:
    pixels = np.linspace(0, 1, 60 * 70 * 4, dtype=np.float32).reshape(60, 70, 4)
    result = enlarge(Nearest(), pixels, alpha=True, tile=64)
    assert result.dtype == np.float32
    expected = pixels.repeat(2, 0).repeat(2, 1)
    assert np.array_equal(result[..., :3], expected[..., :3])
    assert np.allclose(result[..., 3], expected[..., 3], rtol=0, atol=1e-6), "a sum of three weights"
    assert result.max() == 1


class WideCropping(Wide):
    """`Wide` as a `CroppingEngine`; remembers the windows it saw."""

    def __init__(self) -> None:
        self.windows: list[tuple[int, ...]] = []

    def enlarge_crop(self, source: npt.NDArray[Any], target: npt.NDArray[Any], top: int, left: int) -> None:
        self.windows.append(source.shape)
        whole = self(source.transpose(2, 0, 1)[None])[0].transpose(1, 2, 0)
        target[...] = whole[2 * top :, 2 * left :][: target.shape[0], : target.shape[1]]


@given(st.integers(1, 150), st.integers(1, 150), st.integers(64, 120), st.sampled_from(["reflect", "zero"]))
@settings(max_examples=60, deadline=None)
def test_a_cropping_engine_gets_the_picture_and_8_reflected_pixels(
    height: int, width: int, tile: int, border: Border
) -> None:
    pixels = np.random.default_rng(height * 151 + width).integers(0, 256, (height, width, 3), np.uint8)
    around = 8 if border == "reflect" else 0
    padded = np.pad(pixels, ((around, around), (around, around), (0, 0)), "reflect")
    end = (2 * (around + height), 2 * (around + width))
    expected = Wide()(padded.transpose(2, 0, 1)[None])[0].transpose(1, 2, 0)[2 * around : end[0], 2 * around : end[1]]
    engine = WideCropping()
    assert np.array_equal(enlarge(engine, pixels, border=border), expected)
    assert engine.windows == [padded.shape]
    assert np.array_equal(enlarge(engine, pixels, border=border, tile=tile), expected)


@pytest.mark.parametrize(("bands", "alpha"), [(1, False), (2, True), (3, False), (4, True)])
def test_a_cropping_engine_makes_the_same_of_colour_grey_and_alpha(bands: int, alpha: bool) -> None:
    pixels = photo(48, 80, bands)  # with its border a multiple of 16, so that both kinds of engine get the same window
    expected = enlarge(Wide(), pixels, alpha=alpha)
    for tile in (512, 64):
        assert np.array_equal(enlarge(WideCropping(), pixels, alpha=alpha, tile=tile), expected)


class Exact:
    """The real network in float64, where the order of sums cannot tip a rounding."""

    name = "float64"
    halo = HALO
    multiple = 1
    tile = 512

    def __init__(self, model: SpanNetwork) -> None:
        self.scale = model.scale
        self._net = span_torch.from_network(model).double()

    def __call__(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        peak = 1.0 if batch.dtype == np.float32 else float(np.iinfo(batch.dtype).max)
        with torch.inference_mode():
            result = self._net(torch.from_numpy(batch.astype(np.float64) / peak)).clamp(0, 1).numpy() * peak
        return np.asarray(result.round() if peak > 1 else result).astype(batch.dtype)


@pytest.mark.slow
@pytest.mark.parametrize("border", ["reflect", "zero"])
@pytest.mark.parametrize(("bands", "alpha", "dtype"), [(3, False, np.uint8), (2, True, np.uint8), (4, True, np.uint16)])
def test_tiled_equals_whole_with_the_network(border: Border, bands: int, alpha: bool, dtype: Any) -> None:
    engine = Exact(zoo.load(zoo.DEFAULT))
    pixels = photo(90, 131, bands, dtype=dtype)
    whole = enlarge(engine, pixels, alpha=alpha, border=border)
    tiled = enlarge(engine, pixels, alpha=alpha, border=border, tile=64)
    assert whole.dtype == dtype
    assert whole.shape == (360, 524, bands)
    assert np.array_equal(whole, tiled)


def test_self_ensemble_is_the_mean_of_eight_orientations() -> None:
    upscale = partial(enlarge, Exact(zoo.load(zoo.DEFAULT)), border="zero")
    pixels, eight = photo(20, 33, 3), []
    for axes in ((), (0,), (1,), (0, 1)):
        mirrored = np.flip(pixels, axes)
        eight.append(np.flip(upscale(mirrored), axes))
        eight.append(np.flip(upscale(mirrored.swapaxes(0, 1)).swapaxes(0, 1), axes))
    result = self_ensemble(upscale, pixels)
    assert result.dtype == np.uint8
    assert np.array_equal(result, np.mean(eight, 0).round())
    assert not np.array_equal(result, eight[0]), "the network is not the same from all sides"
    assert np.array_equal(self_ensemble(upscale, np.rot90(pixels)), np.rot90(result))


@pytest.fixture(scope="module")
def engine() -> Engine:
    return open_engine(zoo.load(zoo.DEFAULT))


@pytest.mark.parametrize(("height", "width"), [(30, 41), (64, 80), (7, 200)])
def test_every_pixel_is_what_reflection_by_8_makes_it(engine: Engine, height: int, width: int) -> None:
    pixels = photo(height, width)
    padded = np.pad(pixels, ((8, 8), (8, 8), (0, 0)), "reflect")  # to and fro where the picture is lower
    expected = engine(padded.transpose(2, 0, 1)[None])[0].transpose(1, 2, 0)[32 : 32 + 4 * height, 32 : 32 + 4 * width]
    difference = np.abs(enlarge(engine, pixels).astype(int) - expected)
    if isinstance(engine, CroppingEngine):
        assert (difference == 0).all()
    else:  # continued further, to a multiple of 16
        assert difference.max() <= 1


def test_windows_share_one_shape() -> None:
    nearest = Nearest()
    enlarge(nearest, photo(300, 500), tile=128)
    assert len(set(nearest.shapes)) == 1
    # small pictures of similar size share a shape too, so that an engine compiles once
    sizes = Nearest()
    for height in range(50, 60):
        enlarge(sizes, photo(height, 48))
    assert len(set(sizes.shapes)) <= 2


def test_a_grey_picture_takes_no_more_memory_than_one_of_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its windows are three bands of float32, of which an engine without a tile of its own would take all at once."""
    monkeypatch.setattr("dsclora.inference.strips._STRIP_BYTES", 2**20)
    largest = {}
    for bands in (1, 3, 4):
        engine = Nearest()
        engine.tile = 2048
        pixels = photo(700, 300, bands)
        result = enlarge(engine, pixels, alpha=bands == 4)
        assert np.array_equal(result[..., :1], pixels.repeat(2, 0).repeat(2, 1)[..., :1])
        largest[bands] = max(shape[2] * shape[3] for shape in engine.shapes) * 4  # pixels made
    assert 3 * largest[3] <= 1.3 * 2**20
    assert 16 * max(largest[1], largest[4]) <= 1.3 * 2**20


@pytest.mark.parametrize("value", [0, 128, 255])
def test_flat_pictures_stay_flat_up_to_the_border(engine: Engine, value: int) -> None:
    result = enlarge(engine, np.full((40, 50, 3), value, np.uint8))
    assert np.abs(result.astype(int) - value).max() <= 2
    if value == 255:
        assert (result >= 254).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_stays_grey(engine: Engine, dtype: Any) -> None:
    grey = photo(30, 40, 1, dtype=dtype)
    result = enlarge(engine, grey)
    assert result.shape == (120, 160, 1)
    assert result.dtype == dtype
    colour = enlarge(engine, grey.repeat(3, 2)).astype(float)
    assert np.abs(result[..., 0] - colour.mean(2)).max() < 0.06 * np.iinfo(dtype).max


def test_16_bits_agree_with_8_and_are_finer(engine: Engine) -> None:
    pixels = photo(30, 40)
    deep = enlarge(engine, pixels.astype(np.uint16) * 257)
    assert np.abs(deep / 257 - enlarge(engine, pixels)).max() <= 0.51
    assert len(np.unique(deep)) > 300


def test_opaque_stays_opaque_and_clear_stays_clear(engine: Engine) -> None:
    y, x = np.mgrid[:60, :60]
    disc = (np.hypot(y - 30, x - 30) < 20).astype(np.uint8)[..., None] * 255
    result = enlarge(engine, np.concatenate([photo(60, 60), disc], 2), alpha=True)
    large = np.hypot(*(np.mgrid[:240, :240] / 4 - 30 + 0.375))
    assert (result[large < 17, 3] == 255).all()
    assert (result[large > 23, 3] == 0).all()
    edge = result[(large > 17) & (large < 23), 3]
    assert len(np.unique(edge)) > 50, "the edge is smooth"
    opaque = enlarge(engine, np.concatenate([photo(60, 60), np.full_like(disc, 255)], 2), alpha=True)
    assert (opaque[..., 3] == 255).all()


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)],
)
def test_refuses_what_is_no_picture(pixels: npt.NDArray[Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        enlarge(Nearest(), pixels)
