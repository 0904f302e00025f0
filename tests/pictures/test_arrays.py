"""Pictures as Python programs hold them: what comes in is what the network gets, and the same kind comes back."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dsclora.errors import ImageError
from dsclora.inference.strips import enlarge
from dsclora.pictures.arrays import from_pixels, to_pixels
from dsclora.pictures.read import open_picture
from helpers import Nearest, photo, save

DTYPES = ["<u1", "<u2", ">u2", "<f2", ">f2", "<f4", ">f4", "<f8", ">f8"]


def large(picture: Any) -> Any:
    """A picture twice as large, of the same kind."""
    images, alpha = to_pixels(picture)
    return from_pixels([enlarge(Nearest(), image, alpha=alpha) for image in images], picture)


def twice(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array.repeat(2, 0).repeat(2, 1)


@st.composite
def arrays(draw: st.DrawFn) -> npt.NDArray[Any]:
    """Any array that is a picture: every dtype, byte order, number of axes and kind of strides."""
    bands = draw(st.sampled_from([None, 1, 2, 3, 4]))
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    pixels = np.random.default_rng(draw(st.integers(0, 99))).integers(1, 256, (*shape, bands or 1))
    if draw(st.booleans()):  # one row for all, without strides
        pixels = np.broadcast_to(pixels[:1], pixels.shape)
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    array = (pixels / 256).astype(dtype) if dtype.kind == "f" else pixels.astype(dtype)
    array = array if bands is not None else array[..., 0]
    steps = draw(st.tuples(*[st.sampled_from([1, -1, 2])] * 2))
    array = array[:: steps[0], :: steps[1]]
    if draw(st.booleans()):
        array = array.swapaxes(0, 1)
    return array


@given(arrays())
@settings(deadline=None)
def test_any_array_comes_back_as_it_was(array: npt.NDArray[Any]) -> None:
    images, alpha = to_pixels(array)
    assert len(images) == 1
    assert alpha == (array.shape[2:] in ((2,), (4,)))
    assert images[0].shape == (*array.shape[:2], *(array.shape[2:] or (1,)))
    assert images[0].dtype == (np.float32 if array.dtype.kind == "f" else array.dtype.newbyteorder("="))
    assert images[0].flags.c_contiguous
    assert images[0].dtype.isnative
    same = from_pixels(images, array)
    assert same.shape == array.shape
    assert same.dtype == array.dtype.newbyteorder("=")
    assert np.array_equal(same, array)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_an_array_enlarged(dtype: Any) -> None:
    for bands in (1, 2, 3, 4):
        array = photo(20, 30, bands, dtype=dtype) | np.array(1, dtype)
        assert np.array_equal(large(array), twice(array))
        assert large(array).dtype == dtype
    assert np.array_equal(large(array[..., 0]), twice(array[..., 0]))


@given(
    st.sampled_from([torch.uint8, torch.uint16, torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    st.sampled_from([(), (1,), (3,)]),
    st.sampled_from([1, 2, 3, 4]),
    st.booleans(),
)
@settings(deadline=None)
def test_a_tensor_enlarged(dtype: torch.dtype, batch: tuple[int, ...], bands: int, last: bool) -> None:
    random = np.random.default_rng(0)
    values = torch.from_numpy(random.integers(1, 256, (*batch, bands, 6, 5)))
    tensor = (values / 256 if dtype.is_floating_point else values).to(dtype)
    if last and batch:
        tensor = tensor.contiguous(memory_format=torch.channels_last)
    if dtype.is_floating_point:
        tensor.requires_grad_()
    result = large(tensor)
    assert isinstance(result, torch.Tensor)
    assert result.dtype == dtype
    assert result.device == tensor.device
    assert not result.requires_grad
    expected = tensor.detach().double().numpy().repeat(2, -2).repeat(2, -1)
    assert result.shape == expected.shape
    # grey and alpha are a sum of three weights
    assert np.allclose(result.double().numpy(), expected, rtol=0, atol=1e-6 if dtype.is_floating_point else 0)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16"])
def test_a_pil_image_enlarged(mode: str) -> None:
    bands = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "I;16": 1}[mode]
    array = photo(20, 30, bands, dtype=np.uint16 if mode == "I;16" else np.uint8) | 1
    image = Image.fromarray(array if bands > 1 else array[..., 0])
    assert image.mode == mode
    image.info["icc_profile"] = b"a profile"
    result = large(image)
    assert isinstance(result, Image.Image)
    assert (result.mode, result.size) == (mode, (60, 40))
    assert np.array_equal(np.asarray(result).reshape(40, 60, -1), twice(array))
    assert result.info["icc_profile"] == b"a profile"


def test_pil_images_of_other_modes_are_converted() -> None:
    colour = Image.fromarray(photo(20, 30))
    for mode, becomes in (("1", "L"), ("P", "RGB"), ("CMYK", "RGB"), ("YCbCr", "RGB"), ("HSV", "RGB"), ("RGBX", "RGB")):
        image = colour.convert(mode)
        image.info["icc_profile"] = b"a profile"
        result = large(image)
        assert result.mode == becomes
        assert np.array_equal(np.asarray(result), twice(np.asarray(image.convert(becomes))))
        assert ("icc_profile" in result.info) == (mode in ("1", "P", "RGBX"))
    alpha = colour.convert("RGBA")
    assert large(alpha.convert("RGBa")).mode == large(alpha.convert("PA")).mode == "RGBA"
    palette = colour.convert("P")
    palette.info["transparency"] = 0
    assert large(palette).mode == "RGBA"
    assert large(alpha.convert("LA").convert("La")).mode == "LA"
    big_endian = Image.frombytes("I;16B", (2, 1), b"\x01\x02\x03\x04")
    assert np.asarray(large(big_endian))[0].tolist() == [0x102, 0x102, 0x304, 0x304]
    assert large(big_endian).mode == "I;16"


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_gives_what_the_file_holds(tmp_path: Path, kind: Any) -> None:
    pixels = photo(20, 30, 4) | 1
    path = kind(save(tmp_path / "in.png", pixels))
    assert np.array_equal(large(path), twice(pixels))
    with pytest.raises(ImageError, match=r"none\.png: cannot be read"):
        to_pixels(kind(tmp_path / "none.png"))


def test_colours_are_spread_under_transparent_pixels_as_in_files(tmp_path: Path) -> None:
    pixels = photo(60, 60, 4)
    pixels[:, :30, 3] = 0
    pixels[:, 30:, 3] |= 1
    picture = open_picture(save(tmp_path / "in.png", pixels))
    (image,), alpha = to_pixels(pixels)
    assert alpha
    assert not np.array_equal(image, pixels)
    assert np.array_equal(image, picture.rows()(0, 60))
    (floats,), _ = to_pixels(pixels / 255)
    assert floats.dtype == np.float32
    assert np.abs(floats * 255 - image).max() <= 0.51
    assert floats.max() <= 1
    (hidden,), _ = to_pixels(np.zeros((60, 60, 4)))
    assert not hidden.any(), "nothing is visible that could be spread"


@pytest.mark.parametrize(
    ("picture", "got"),
    [
        (None, "builtins.NoneType"),
        (b"\x89PNG", "builtins.bytes"),
        ([[1, 2], [3, 4]], "builtins.list"),
        (np.zeros((3, 8, 9), np.uint8), r"an array \(3, 8, 9\) of uint8"),
        (np.zeros((8, 9, 5), np.uint8), r"an array \(8, 9, 5\) of uint8"),
        (np.zeros(8), r"an array \(8,\) of float64"),
        (np.zeros((1, 8, 9, 3), np.uint8), r"an array \(1, 8, 9, 3\) of uint8"),
        (np.zeros((8, 9), np.int64), r"an array \(8, 9\) of int64"),
        (np.zeros((8, 9), bool), r"an array \(8, 9\) of bool"),
        (np.zeros((8, 9), np.complex64), r"an array \(8, 9\) of complex64"),
        (torch.zeros(8, 9), r"a tensor \(8, 9\) of float32"),
        (torch.zeros(8, 9, 3), r"a tensor \(8, 9, 3\) of float32"),
        (torch.zeros(3, 8, 9, dtype=torch.int32), r"a tensor \(3, 8, 9\) of int32"),
        (Image.new("F", (9, 8)), "a PIL image of mode F, 9 x 8"),
        (Image.new("LAB", (9, 8)), "a PIL image of mode LAB, 9 x 8"),
    ],
)
def test_wrong_kinds_are_told_what_they_are_and_what_is_taken(picture: Any, got: str) -> None:
    with pytest.raises(TypeError, match=f"^got {got}; a picture is a path or str, .* floats in 0..1$"):
        to_pixels(picture)


@pytest.mark.parametrize(
    ("value", "got"), [(1.01, "1.01"), (-0.5, "-0.5"), (float("nan"), "nan"), (float("inf"), "inf"), (1e300, "inf")]
)
def test_floats_out_of_range_are_refused(value: float, got: str) -> None:
    array = np.zeros((4, 5))
    array[2, 3] = value
    with pytest.raises(ValueError, match=f"floats must be numbers in 0..1, got .*{got}.*: scale or clip"):
        to_pixels(array)
    with pytest.raises(ValueError, match=f"floats must be numbers in 0..1, got .*{got}"):
        to_pixels(torch.from_numpy(array)[None])


def test_no_pixels() -> None:
    with pytest.raises(ValueError, match="without pixels"):
        to_pixels(np.zeros((0, 5, 3), np.uint8))
    with pytest.raises(ValueError, match="without pictures"):
        to_pixels(torch.zeros(0, 3, 8, 9))


def test_arrays_need_neither_pil_nor_torch() -> None:
    code = (
        "import sys, numpy as np\n"
        "from dsclora.pictures.arrays import from_pixels, to_pixels\n"
        "array = np.ones((4, 5, 3))\n"
        "from_pixels(to_pixels(array)[0], array)\n"
        "print({'PIL', 'torch', 'pyvips'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
