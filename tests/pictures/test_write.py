"""Pictures out: every format and depth, metadata, profiles, and what cannot be written."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import pyvips

from dsclora.errors import ImageError, OutputError
from dsclora.pictures.read import open_picture
from dsclora.pictures.write import Encoding, encode_picture, write_picture
from helpers import photo, save
from helpers_pictures import copy, pixels_of, strips_of


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("bands", [1, 2, 3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_lossless_formats_keep_every_number(tmp_path: Path, suffix: str, bands: int, dtype: Any) -> None:
    pixels = photo(37, 23, bands, dtype=dtype)
    if bands in (2, 4):
        pixels[..., -1] |= 1  # nothing is fully transparent, so no colour is changed
    source = save(tmp_path / f"in{suffix}", pixels)
    copy(source, tmp_path / f"out{suffix}")
    assert np.array_equal(pixels_of(tmp_path / f"out{suffix}"), pixels)


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".avif"])
@pytest.mark.parametrize("bands", [1, 3])
def test_lossy_formats_come_near(tmp_path: Path, suffix: str, bands: int) -> None:
    smooth = np.broadcast_to(np.linspace(20, 220, 64)[:, None, None], (64, 64, bands)).astype(np.uint8)
    source = save(tmp_path / "in.png", smooth)
    copy(source, tmp_path / f"out{suffix}", quality=90)
    result = pixels_of(tmp_path / f"out{suffix}")
    assert np.abs(result.astype(int) - smooth).max() <= 6
    again = open_picture(tmp_path / f"out{suffix}")
    assert (again.width, again.height) == (64, 64)
    assert np.abs(again.rows()(0, 64).astype(int)[..., :1] - smooth[..., :1]).max() <= 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_reset(tmp_path: Path, orientation: int) -> None:
    def tag(picture: pyvips.Image) -> pyvips.Image:
        picture = picture.copy()
        picture.set_type(pyvips.GValue.gint_type, "orientation", orientation)
        return picture

    source = save(tmp_path / "camera.tif", photo(30, 20), tag)
    upright = pyvips.Image.new_from_file(str(source)).autorot().numpy()
    copy(source, tmp_path / "out.jpg")
    result = pyvips.Image.new_from_file(str(tmp_path / "out.jpg"))
    assert (result.width, result.height) == ((30, 20) if orientation >= 5 else (20, 30))
    assert not result.get_typeof("orientation") or result.get("orientation") == 1
    assert np.abs(result.numpy().astype(int) - upright).mean() < 8
    assert np.array_equal(open_picture(source).rows()(0, result.height), upright)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".avif"])
def test_orientation_in_exif_and_xmp_is_reset(tmp_path: Path, suffix: str) -> None:
    def tag(picture: pyvips.Image) -> pyvips.Image:
        picture = picture.copy()
        picture.set_type(pyvips.GValue.gstr_type, "exif-ifd0-Artist", "Ada (Ada, ASCII, 4 components, 4 bytes)")
        picture.set_type(pyvips.GValue.gint_type, "orientation", 6)
        picture.set_type(pyvips.GValue.blob_type, "xmp-data", b'<x:xmpmeta tiff:Orientation="6"/>')
        return picture

    source = save(tmp_path / f"camera{suffix}", photo(32, 48), tag)
    if suffix != ".avif":  # HEIF turns the picture itself
        assert pyvips.Image.new_from_file(str(source)).get("orientation") == 6
    copy(source, tmp_path / f"out{suffix}")
    result = pyvips.Image.new_from_file(str(tmp_path / f"out{suffix}"))
    assert "Ada" in str(result.get("exif-ifd0-Artist"))
    assert not result.get_typeof("orientation") or result.get("orientation") == 1
    if result.get_typeof("exif-ifd0-Orientation"):
        assert str(result.get("exif-ifd0-Orientation")).startswith("1")
    assert b'Orientation="6"' not in bytes(result.get("xmp-data"))
    if suffix != ".avif":
        assert (result.width, result.height) == (32, 48)


def p3_profile() -> bytes:
    grey = pyvips.Image.black(8, 8, bands=3).copy(interpretation="srgb")
    return bytes(grey.icc_transform("p3", input_profile="srgb").get("icc-profile-data"))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
def test_metadata_is_kept_or_stripped_and_the_profile_stays(tmp_path: Path, suffix: str) -> None:
    profile = p3_profile()

    def tag(picture: pyvips.Image) -> pyvips.Image:
        picture = picture.copy(xres=11.811, yres=11.811)  # pixels per mm: 300 dpi
        picture.set_type(pyvips.GValue.gstr_type, "exif-ifd0-Artist", "Ada (Ada, ASCII, 4 components, 4 bytes)")
        picture.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
        return picture

    source = save(tmp_path / f"in{suffix}", photo(24, 24), tag)
    copy(source, tmp_path / f"kept{suffix}")
    copy(source, tmp_path / f"stripped{suffix}", strip_metadata=True)
    kept = pyvips.Image.new_from_file(str(tmp_path / f"kept{suffix}"))
    stripped = pyvips.Image.new_from_file(str(tmp_path / f"stripped{suffix}"))
    if suffix != ".tif":  # libvips keeps no EXIF in TIFF
        assert "Ada" in str(kept.get("exif-ifd0-Artist"))
        assert not stripped.get_typeof("exif-ifd0-Artist")
    assert bytes(kept.get("icc-profile-data")) == bytes(stripped.get("icc-profile-data")) == profile
    if suffix in (".jpg", ".png", ".tif"):
        assert kept.xres == pytest.approx(11.811, abs=0.02)


def test_a_keyword_in_latin_1(tmp_path: Path) -> None:
    """As PNG has it; pyvips cannot name it."""
    content = save(tmp_path / "in.png", photo(8, 8)).read_bytes()
    body = b"tEXtT\xeftle\0a cat"
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    (tmp_path / "in.png").write_bytes(content[:33] + chunk + content[33:])
    copy(tmp_path / "in.png", tmp_path / "out.png")
    assert np.array_equal(pixels_of(tmp_path / "out.png"), photo(8, 8))


def test_transparency_into_jpeg_goes_on_white(tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 4), np.uint8)
    copy(save(tmp_path / "clear.png", pixels), tmp_path / "out.jpg")
    assert (pixels_of(tmp_path / "out.jpg") > 250).all()


def test_final_size(tmp_path: Path) -> None:
    source = save(tmp_path / "in.png", photo(40, 60, 4))
    picture = open_picture(source)
    pixels = picture.rows()(0, 40)
    write_picture(tmp_path / "out.png", Encoding(".png", 31, 17), strips_of(pixels), (60, 40), picture)
    assert pixels_of(tmp_path / "out.png").shape == (17, 31, 4)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".avif"])
@pytest.mark.parametrize("count", [1, 7])
def test_encoded_is_what_would_be_written(tmp_path: Path, suffix: str, count: int) -> None:
    picture = open_picture(save(tmp_path / "in.png", photo(40, 60, 4)))
    pixels, encoding = picture.rows()(0, 40), Encoding(suffix, 50, 30)
    write_picture(tmp_path / f"out{suffix}", encoding, strips_of(pixels, count), (60, 40), picture)
    content = encode_picture(encoding, strips_of(pixels, count), (60, 40), picture)
    assert content == (tmp_path / f"out{suffix}").read_bytes()


def grey_profile(gamma: float) -> bytes:
    """An ICC profile of grey with that gamma."""
    white = struct.pack(">iii", int(0.9642 * 65536), 65536, int(0.8249 * 65536))
    name = b"grey"
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(name) + 1) + name + bytes(80 - len(name)),
        b"wtpt": b"XYZ " + bytes(4) + white,
        b"kTRC": b"curv" + bytes(4) + struct.pack(">IHH", 1, round(gamma * 256), 0),
    }
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for tag, data in tags.items():
        table += tag + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I", start + len(body)) + bytes(4) + struct.pack(">I", 0x02100000) + b"mntrGRAYXYZ "
    return head + bytes(12) + b"acsp" + bytes(28) + white + bytes(48) + table + body


@pytest.mark.parametrize("bands", [1, 2])
@pytest.mark.parametrize("suffix", [".webp", ".avif", ".png", ".jpg", ".tif"])
def test_a_grey_profile_is_kept_or_applied(tmp_path: Path, suffix: str, bands: int) -> None:
    def profiled(picture: pyvips.Image) -> pyvips.Image:
        picture = picture.copy()
        picture.set_type(pyvips.GValue.blob_type, "icc-profile-data", grey_profile(1.8))
        return picture

    flat = np.full((32, 32, bands), 118, np.uint8)
    flat[..., 1:] = 255
    source = save(tmp_path / "in.png", flat, profiled)
    appearance = pyvips.Image.new_from_file(str(source))[0].icc_transform("srgb", embedded=True).numpy()
    assert appearance[0, 0, 0] > 130
    copy(source, tmp_path / f"out{suffix}")
    result = pyvips.Image.new_from_file(str(tmp_path / f"out{suffix}"))
    colour = result[: result.bands - 1] if result.hasalpha() else result
    if result.get_typeof("icc-profile-data"):
        colour = colour.icc_transform("srgb", embedded=True)
    assert np.abs(colour.numpy().astype(int) - appearance[0, 0]).max() <= 2


def test_outputs_that_cannot_be() -> None:
    with pytest.raises(OutputError, match=r"cannot write \.bmp"):
        Encoding(".bmp", 9, 9)
    with pytest.raises(OutputError, match="without a suffix"):
        Encoding("", 9, 9)
    with pytest.raises(OutputError, match="16383"):
        Encoding(".webp", 20_000, 9)


def test_a_failing_strip_leaves_nothing_and_passes_through(tmp_path: Path) -> None:
    source = save(tmp_path / "in" / "in.png", photo(30, 30))
    picture = open_picture(source)
    target, encoding = tmp_path / "out" / "x.png", Encoding(".png", 30, 30)

    def failing() -> Iterator[npt.NDArray[Any]]:
        yield photo(10, 30)
        raise ImageError("the second strip is bad")

    with pytest.raises(ImageError, match="second strip"):
        write_picture(target, encoding, failing(), (30, 30), picture)
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(ValueError, match="expected 30"):
        write_picture(target, encoding, iter([photo(10, 30)]), (30, 30), picture)
    with pytest.raises(ValueError, match="more than 30"):
        write_picture(target, encoding, iter([photo(30, 30)] * 2), (30, 30), picture)
    with pytest.raises(ValueError, match="a strip is"):
        write_picture(target, encoding, iter([photo(30, 10)]), (30, 30), picture)
    assert list((tmp_path / "out").iterdir()) == []
