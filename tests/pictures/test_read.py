"""Pictures in: every format, depth and kind, and what is not a picture."""

import gzip
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips

from dsclora.errors import ImageError
from dsclora.pictures.metrics import psnr
from dsclora.pictures.read import find_pictures, open_picture, read_rgb8
from helpers import ROOT, photo, save
from helpers_pictures import copy, pixels_of


def test_16_bits_into_8_are_rounded(tmp_path: Path) -> None:
    pixels = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32, 1).repeat(3, 2)
    source = save(tmp_path / "deep.png", pixels)
    assert np.array_equal(read_rgb8(source), np.rint(pixels / 257).astype(np.uint8))
    for value, rounded in ((200 * 257 + 128, 200), (200 * 257 + 129, 201), (65535, 255)):
        flat = save(tmp_path / "flat.png", np.full((16, 16, 1), value, np.uint16))
        copy(flat, tmp_path / f"{value}.jpg", quality=100)
        assert (pixels_of(tmp_path / f"{value}.jpg") == rounded).all()


def test_grey_palette_and_one_bit(tmp_path: Path) -> None:
    pixels = photo(20, 20)
    path = tmp_path / "palette.png"
    target = pyvips.Target.new_to_file(str(path))
    pyvips.Image.new_from_array(pixels, interpretation="srgb").write_to_target(target, ".png[palette,bitdepth=4]")
    assert open_picture(path).bands == 3
    path = tmp_path / "fax.tif"
    target = pyvips.Target.new_to_file(str(path))
    black = (photo(20, 20, 1) > 128).astype(np.uint8) * 255
    pyvips.Image.new_from_array(black, interpretation="b-w").write_to_target(target, ".tif[bitdepth=1]")
    picture = open_picture(path)
    assert np.array_equal(picture.rows()(0, 20), black)


def test_cmyk_becomes_srgb(tmp_path: Path) -> None:
    colour = np.broadcast_to(np.array([200, 60, 40], np.uint8), (16, 16, 3))
    path = save(tmp_path / "print.jpg", colour, lambda i: i.icc_transform("cmyk", input_profile="srgb"))
    assert pyvips.Image.new_from_file(str(path)).interpretation == "cmyk"
    picture = open_picture(path)
    assert picture.bands == 3
    assert any("CMYK" in notice for notice in picture.notices)
    assert np.abs(picture.rows()(0, 16).astype(int) - colour).max() < 24
    copy(path, tmp_path / "out.jpg")
    assert pyvips.Image.new_from_file(str(tmp_path / "out.jpg")).interpretation == "srgb"


def test_colour_is_spread_under_transparent_pixels(tmp_path: Path) -> None:
    pixels = np.zeros((60, 60, 4), np.uint8)
    pixels[:, 30:] = (200, 100, 50, 255)
    pixels[:, :30, :3] = (0, 255, 0)  # what an editor left there
    picture = open_picture(save(tmp_path / "cut-out.png", pixels))
    result = picture.rows()(0, 60)
    assert np.array_equal(result[..., 3], pixels[..., 3])
    assert np.array_equal(result[:, 30:], pixels[:, 30:])
    assert np.abs(result[:, 9:30, :3].astype(int) - (200, 100, 50)).max() <= 1, "21 pixels are what the network sees"


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".gif"])
@pytest.mark.parametrize("step", [400, 391])
def test_transparent_pictures_stream(tmp_path: Path, suffix: str, step: int) -> None:
    pixels = photo(1500, 600, 4)
    pixels[..., 3] = (pixels[..., 3] > 100) * 255
    picture = open_picture(save(tmp_path / f"in{suffix}", pixels))
    rows = picture.rows()
    result = np.concatenate([rows(y, min(step, 1500 - y)) for y in range(0, 1500, step)])
    assert np.array_equal(result[..., 3], pixels[..., 3])
    whole = open_picture(tmp_path / f"in{suffix}")
    assert np.array_equal(result, whole.image.copy_memory().numpy())


def test_animation_gives_its_first_frame_and_says_so(tmp_path: Path) -> None:
    frames = np.concatenate([np.full((10, 12, 3), v, np.uint8) for v in (10, 120, 240)])

    def animate(picture: pyvips.Image) -> pyvips.Image:
        picture = picture.copy()
        picture.set_type(pyvips.GValue.gint_type, "page-height", 10)
        return picture

    for suffix in (".gif", ".webp"):
        picture = open_picture(save(tmp_path / f"film{suffix}", frames, animate))
        assert (picture.height, picture.width) == (10, 12)
        assert any("3 frames" in notice for notice in picture.notices)


def test_heic_as_telephones_write_it(tmp_path: Path) -> None:
    """A part of samples/cat.png, held sideways: HEVC, its turn in the container and, again, in EXIF."""
    original = read_rgb8(ROOT / "samples" / "cat.png")[60:124, 150:246]
    telephone = ROOT / "tests" / "data" / "telephone.heic"
    assert psnr(read_rgb8(telephone), original) > 40
    copy(telephone, tmp_path / "out.jpg")
    result = pyvips.Image.new_from_file(str(tmp_path / "out.jpg"))
    assert (result.width, result.height, result.get("orientation")) == (96, 64, 1)
    assert result.get("exif-ifd0-Make").startswith("A telephone")
    assert result.get("icc-profile-data") == pyvips.Image.new_from_file(str(telephone)).get("icc-profile-data")
    content = telephone.read_bytes()
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg"))  # content decides, and the name is no text
    odd.write_bytes(content)
    assert np.array_equal(read_rgb8(odd), read_rgb8(telephone))
    (tmp_path / "cut.heic").write_bytes(content[:-500])
    with pytest.raises(ImageError, match=r"cut\.heic: .*damaged"):
        read_rgb8(tmp_path / "cut.heic")


def test_heic_of_grey_stays_grey(tmp_path: Path) -> None:
    """The same part in grey, with a profile of RGB, which libvips says it is."""
    original = read_rgb8(ROOT / "samples" / "cat.png")[60:124, 150:246] @ (0.299, 0.587, 0.114)
    grey = ROOT / "tests" / "data" / "grey.heic"
    picture = open_picture(grey)
    assert psnr(picture.rows()(0, 64)[..., 0], original) > 40
    assert (picture.bands, picture.image.get_typeof("icc-profile-data")) == (1, 0)


def test_a_damaged_name_in_heic_does_not_end_the_process(tmp_path: Path) -> None:
    content = bytearray((ROOT / "tests" / "data" / "telephone.heic").read_bytes())
    content[content.index(b"application/rdf")] = 0xA5  # no letter in UTF-8
    (tmp_path / "odd.heic").write_bytes(content)
    command = [sys.executable, "-m", "dsclora", "upscale", str(tmp_path / "odd.heic")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done


def test_avif_that_says_less_at_first(tmp_path: Path) -> None:
    avif = save(tmp_path / "in.avif", photo(40, 60))
    content = bytearray(avif.read_bytes())
    assert content[4:12] == b"ftypavif"
    content[8:12] = b"mif1"
    (tmp_path / "mif1.avif").write_bytes(content)
    assert np.array_equal(read_rgb8(tmp_path / "mif1.avif"), read_rgb8(avif))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux counts open files there")
def test_files_are_closed(tmp_path: Path) -> None:
    source = save(tmp_path / "in.jpg", photo(40, 60))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        read_rgb8(source)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1


def _png(width: int, height: int, data: bytes = b"") -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.png", b"", "empty"),
        ("text.png", b"these are not the pixels you are looking for", "not a picture"),
        ("half.jpg", b"\xff\xd8\xff\xe0\x00\x10JFIF", "not a picture, or damaged"),
        ("bomb.png", _png(60_000, 60_000), "3600 megapixels|more than the limit"),
        ("zero.png", _png(0, 10), "not a picture, or damaged"),
        (
            "packed.png",
            gzip.compress(b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', mtime=0),
            "svg",
        ),
        ("drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "svg"),
    ],
)
def test_what_is_not_a_picture(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ImageError, match=reason) as caught:
        open_picture(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".gif", ".avif"])
def test_truncated(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"cut{suffix}", photo(200, 200))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(ImageError, match=r"damaged|truncated"):
        read_rgb8(path)
    path.write_bytes(whole[: len(whole) // 4])
    with pytest.raises(ImageError, match=r"damaged|truncated"):
        read_rgb8(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".avif", ".gif", ".heic"])
def test_pictures_from_memory_are_those_of_files(tmp_path: Path, suffix: str) -> None:
    telephone = ROOT / "tests" / "data" / "telephone.heic"
    path = telephone if suffix == ".heic" else save(tmp_path / f"in{suffix}", photo(40, 60, 4))
    file, memory = open_picture(path), open_picture(path.read_bytes())
    assert np.array_equal(memory.rows()(0, memory.height), file.rows()(0, file.height))
    assert memory.image.get_fields() == file.image.get_fields()
    assert memory.label == "the picture"
    cut = path.read_bytes()[: path.stat().st_size * 2 // 3]
    with pytest.raises(ImageError, match=r"^upload 7: .*(damaged|truncated)"):
        open_picture(cut, label="upload 7").rows()(0, memory.height)


def test_memory_that_is_no_picture() -> None:
    for content, problem in ((b"", "it is empty"), (b"text", "not a picture, damaged, or of no")):
        with pytest.raises(ImageError, match=f"^the picture: {problem}"):
            open_picture(content)
    with pytest.raises(ImageError, match=r"^the picture: 60000 x 60000 pixels"):
        open_picture(_png(60_000, 60_000))


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="No such file"):
        open_picture(tmp_path / "none.png")
    with pytest.raises(ImageError, match="is a folder"):
        open_picture(tmp_path)
    with pytest.raises(ImageError, match="no pictures"):
        find_pictures(tmp_path)
    with pytest.raises(ImageError, match="not a folder"):
        find_pictures(tmp_path / "none")


def test_float_pixels_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "hdr.tif", photo(8, 8), lambda i: i.cast("float"))
    with pytest.raises(ImageError, match="float"):
        open_picture(path)


def test_bands_that_do_not_fit_their_kind_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "odd.tif", photo(8, 8), lambda i: i.copy(interpretation="b-w"))
    with pytest.raises(ImageError, match="3 bands"):
        open_picture(path)


def test_a_name_that_is_not_unicode(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.png"))
    path.write_bytes(save(tmp_path / "plain.png", photo(9, 8)).read_bytes())
    copy(path, path.with_name(path.stem + "-out.png"))
    assert open_picture(path.with_name(path.stem + "-out.png")).height == 9


def test_odd_names(tmp_path: Path) -> None:
    for name in ("-rf.png", "a b.png", "büro ☃.png", "x[1].png", "x[page=2]", "%41.png", "'quo\"te.png"):
        path = tmp_path / name
        path.write_bytes(save(tmp_path / "plain.png", photo(9, 8)).read_bytes())
        assert open_picture(path).width == 8
        copy(path, path.with_name(f"{path.stem}.out.png"))
        assert read_rgb8(path.with_name(f"{path.stem}.out.png")).shape == (9, 8, 3)


def test_find_passes_over_what_is_hidden_or_no_picture(tmp_path: Path) -> None:
    for name in ("b.PNG", "a/c.jpeg", ".hidden/d.png", ".e.png", "Thumbs.db", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [str(p.relative_to(tmp_path)) for p in find_pictures(tmp_path)] == ["a/c.jpeg", "b.PNG"]


def test_find_follows_links_and_enters_every_folder_once(tmp_path: Path) -> None:
    for name in ("in/a.png", "other/b.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "in" / "more").symlink_to(tmp_path / "other")
    (tmp_path / "other" / "back").symlink_to(tmp_path / "in")
    assert [str(p.relative_to(tmp_path)) for p in find_pictures(tmp_path / "in")] == ["in/a.png", "in/more/b.png"]


def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "locked/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    listing = os.scandir

    def scandir(path: Any) -> Any:  # permissions do not hold for root
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(ImageError, match=r"locked: cannot be read \(Permission denied\)"):
        find_pictures(tmp_path)
    problems: list[ImageError] = []
    assert find_pictures(tmp_path, problems.append) == [tmp_path / "a.png"]
    assert len(problems) == 1


def test_a_picture_with_a_gain_map_is_an_ordinary_one(tmp_path: Path) -> None:
    source = tmp_path / "ultra.jpg"
    linear = pyvips.Image.new_from_array(photo(48, 64)).copy(interpretation="srgb").colourspace("scrgb") * 1.5
    linear.copy(interpretation="scrgb").uhdrsave(str(source))
    plain = pyvips.Image.jpegload(str(source)).numpy()
    picture = open_picture(source)
    assert np.array_equal(picture.rows()(0, 48), plain)
    assert "gain map" in picture.notices[0]
    copy(source, tmp_path / "out.jpg")
    assert str(pyvips.Image.new_from_file(str(tmp_path / "out.jpg")).get("vips-loader")) == "jpegload"
