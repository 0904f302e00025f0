"""Read pictures with libvips: formats, bit depth, colour, alpha, orientation.

A picture is decoded a few rows at a time (`Picture.rows`), so memory does not grow with its height. Arrays are (height,
width, bands), top row first.

libvips' cache remembers a hundred operations. Those of a picture that is turned, CMYK, Lab or transparent keep its file
open until others take their place; `vips.configure` ends that for the whole process.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyvips

from dsclora.errors import ImageError
from dsclora.pictures.arrays import Pixels
from dsclora.pictures.vips import LIBVIPS_LOCK, LOADERS, copy_metadata, drop_field, from_array, reason

MAX_PIXELS = 1_000_000_000
"""Larger inputs are refused unless asked for: a small file can claim any size (a decompression bomb)."""

READABLE = frozenset(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".heic", ".heif", ".tif", ".tiff", ".gif"]
)
"""Suffixes that a folder is searched for. A file named on its own may have any name; its content decides."""

SUPPORTED = "JPEG, PNG, WebP, AVIF, HEIC, TIFF and GIF"

_GREY = ("b-w", "grey16")

_SPREAD_SIGMA, _SPREAD_CUTOFF = 8.0, 0.01  # a Gaussian of radius 24, more than the network sees (21)


@dataclass(frozen=True)
class Picture:
    """An open picture, not yet decoded: upright, one or three colours, 8 or 16 bits, alpha or none.

    Attributes:
        label: the name in messages: its file's, or "the picture".
        image: uchar or ushort; the alpha band, if any, last.
        alpha: whether it has one.
        notices: a line for the user about each part that was left out or converted.
    """

    label: str
    image: pyvips.Image
    alpha: bool
    notices: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """The number of pixels across."""
        return int(self.image.width)

    @property
    def height(self) -> int:
        """The number of pixels down."""
        return int(self.image.height)

    @property
    def bands(self) -> int:
        """The number of colours plus alpha: 1 to 4."""
        return int(self.image.bands)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of its rows: uint8 or uint16."""
        return np.dtype(np.uint16 if self.image.format == "ushort" else np.uint8)

    def rows(self) -> Callable[[int, int], Pixels]:
        """Return a reader `rows(y, count)` of (count, width, bands); ask from top to bottom, no row twice.

        The reader raises `ImageError` where the picture is truncated or damaged.
        """
        region = pyvips.Region.new(self.image)

        def read(y: int, count: int) -> Pixels:
            try:
                # a few rows at a time: an operation that looks around (the spreading of colours under transparent
                # pixels) would otherwise ask for rows that a sequential reader has passed
                parts = [region.fetch(0, at, self.width, min(16, y + count - at)) for at in range(y, y + count, 16)]
            except pyvips.Error as error:
                raise ImageError(f"{self.label}: damaged or truncated ({reason(error)})") from error
            return np.frombuffer(b"".join(parts), self.dtype).reshape(count, self.width, self.bands)

        return read


def find_pictures(folder: Path, unreadable: Callable[[ImageError], None] | None = None) -> list[Path]:
    """Return all pictures below a folder, by suffix, sorted; hidden files and folders are passed over.

    Links to folders are followed, and every folder is entered once.

    Args:
        folder: to search.
        unreadable: called with the error of a folder below that cannot be read; by default the error is raised.

    Raises:
        ImageError: not a folder, or none found.
    """
    if not folder.is_dir():
        raise ImageError(f"{folder}: not a folder")

    def refuse(error: OSError) -> None:
        problem = ImageError(f"{error.filename}: cannot be read ({error.strerror})")
        if unreadable is None:
            raise problem from error
        unreadable(problem)

    pictures: list[Path] = []
    entered: set[str] = set()
    for at, below, names in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(at)
        if real in entered:
            below.clear()
            continue
        entered.add(real)
        below[:] = sorted(name for name in below if not name.startswith("."))
        paths = (Path(at, name) for name in names if not name.startswith("."))
        files = (path for path in paths if path.suffix.lower() in READABLE)
        pictures.extend(path for path in files if os.path.isfile(path))  # noqa: PTH113 (never raises)
    pictures.sort()
    if not pictures:
        raise ImageError(f"{folder}: no pictures in it ({', '.join(sorted(READABLE))})")
    return pictures


def open_picture(source: Path | bytes, max_pixels: int = MAX_PIXELS, label: str = "") -> Picture:
    """Open a picture: JPEG, PNG, WebP, AVIF/HEIC, TIFF or GIF, whatever its name.

    EXIF orientation is applied. CMYK and Lab become sRGB by their profile; RGB and grey keep their numbers and their
    ICC profile. Colours are spread under fully transparent pixels, so that no dark halo appears at edges when
    enlarged. Of an animation or a multi-page file the first frame is taken, and a notice says so.

    Args:
        source: file, or the content of one.
        max_pixels: refuse more than that.
        label: the name in messages; by default the path, or "the picture".

    Raises:
        ImageError: missing, empty, not a picture, of a kind that is not supported, or too large.
    """
    label = label or ("the picture" if isinstance(source, bytes) else str(source))
    with LIBVIPS_LOCK:
        return _open(source, label, max_pixels)


def _open(source: Path | bytes, label: str, max_pixels: int) -> Picture:
    image, gain_map = _load(source, label, "sequential", max_pixels)
    orientation = image.get("orientation") if image.get_typeof("orientation") else 1
    if orientation not in (1, 2):  # 2 mirrors left to right, which can be done row by row
        image, _ = _load(source, label, "random", max_pixels)
    notices = []
    if gain_map:
        notices.append(f"{label}: the gain map, which is for HDR screens, is left out")
    frames = image.get("n-pages") if image.get_typeof("n-pages") else 1
    if frames > 1:
        notices.append(f"{label}: has {frames} frames or pages; only the first is enlarged")
    try:
        if orientation != 1:  # any operation is cached, and keeps the file open
            image = image.autorot()
        image, converted = _normalise(label, image)
        if converted:
            notices.append(f"{label}: {converted} converted to sRGB")
        alpha = bool(image.hasalpha())
        if alpha:
            image = _spread(image)
    except pyvips.Error as error:
        raise ImageError(f"{label}: cannot be read ({reason(error)})") from error
    return Picture(label, image, alpha, tuple(notices))


def read_rgb8(path: Path) -> npt.NDArray[np.uint8]:
    """Read a whole picture as (h, w, 3) uint8; grey is repeated, 16 bits are rounded, alpha is dropped.

    Raises:
        ImageError: as `open_picture`, or damaged.
    """
    picture = open_picture(path)
    pixels = picture.rows()(0, picture.height)
    if picture.alpha:
        pixels = pixels[..., :-1]
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)), np.uint8)


def spread_colours(pixels: Pixels) -> Pixels:
    """Give fully transparent pixels the colours of the visible ones around them, as `open_picture` does it.

    Args:
        pixels: (h, w, bands), uint8, uint16 or float32 in 0..1; the last band is alpha.
    """
    if pixels[..., -1].all():
        return pixels
    spread: Pixels = _spread(from_array(pixels, alpha=True)).numpy()
    return spread if spread.dtype != np.float32 else np.clip(spread, 0, 1)


def _load(source: Path | bytes, label: str, access: str, max_pixels: int) -> tuple[pyvips.Image, bool]:
    """Return the picture, and whether it came with a gain map (Ultra HDR), which is left out."""
    try:
        content = _open_source(source, label)
        # checked before anything is read: an SVG of a thousand bytes can take gigabytes and minutes
        name = pyvips.vips_lib.vips_foreign_find_load_source(content.pointer)
        if not name:
            raise ImageError(f"{label}: not a picture, damaged, or of no supported kind; supported are {SUPPORTED}")
        loader = pyvips.ffi.string(name).decode().removeprefix("VipsForeignLoad")
        if not loader.startswith(LOADERS):
            kind = loader.removesuffix("Source").lower()
            raise ImageError(f"{label}: is a {kind} file; supported are {SUPPORTED}")
        gain_map = loader.startswith("Uhdr")
        if not gain_map:
            image = pyvips.Image.new_from_source(content, "", access=access, fail_on="error")
        else:  # before it lies an ordinary JPEG
            image = pyvips.Image.jpegload_source(content, access=access, fail_on="error")
            if image.get_typeof("xmp-data") and b"hdr-gain-map" in bytes(image.get("xmp-data")):
                image = drop_field(image, "xmp-data")
    except OSError as error:
        raise ImageError(f"{label}: cannot be read ({error.strerror})") from error
    except pyvips.Error as error:
        raise ImageError(f"{label}: not a picture, or damaged ({reason(error)})") from error
    if image.width * image.height > max_pixels:
        raise ImageError(
            f"{label}: {image.width} x {image.height} pixels are more than the limit of {max_pixels / 1e6:.0f} "
            "megapixels; if it is meant to be so large, `dsclora upscale --max-megapixels` takes it"
        )
    if image.get_typeof("heif-compression") and image.get("heif-compression") == "hevc":
        image = _decode_hevc(source, label, image)
    return image, gain_map


def _open_source(source: Path | bytes, label: str) -> pyvips.Source:
    """Open a file, or the content of one, for libvips.

    Raises:
        ImageError: a folder, not a regular file, or empty.
        OSError: the file cannot be opened.
    """
    if isinstance(source, bytes):
        if not source:
            raise ImageError(f"{label}: it is empty")
        return pyvips.Source.new_from_memory(source)
    if source.is_dir():
        raise ImageError(f"{label}: is a folder")
    if source.exists() and not source.is_file():
        raise ImageError(f"{label}: not a regular file")
    if source.stat().st_size == 0:
        raise ImageError(f"{label}: the file is empty")
    # not by name: vips would read options out of names such as "a[1]", and pyvips fails from then on when vips
    # complains of one that is not UTF-8
    with source.open("rb") as file:
        return pyvips.Source.new_from_descriptor(file.fileno())  # libvips duplicates the descriptor


def _decode_hevc(source: Path | bytes, label: str, header: pyvips.Image) -> pyvips.Image:
    """Decode the pixels of HEIC, upright, with pi-heif; the libvips of PyPI reads metadata only."""
    # not by pi_heif itself, which asks for metadata too: 1.4 crashes with it where a name in there is not UTF-8
    from _pi_heif import load_file

    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
        brands = data[8 : int.from_bytes(data[:4])]
        if b"avif" in brands or b"avis" in brands:  # libvips goes by the first one, which may say less
            return header
        images = load_file(data, 4, False, False, True, True, "", False)  # 16 bit as such, no padding of rows
        decoded = next(picture for picture in images if picture is not None and picture.primary)
        content = bytes(decoded.data)  # a copy: the decoder frees its memory
        (width, height), mode = decoded.size_mode
        pixels = np.frombuffer(content, "<u2" if ";16" in mode else np.uint8).reshape(height, width, -1)
    except (ValueError, EOFError, SyntaxError, RuntimeError, OSError, StopIteration) as error:
        text = " ".join(str(error).split()) or "no picture in it"
        raise ImageError(f"{label}: damaged or truncated ({text})") from error
    image = from_array(pixels, alpha="A" in mode.upper())
    copy_metadata(image, header)  # the pixels are upright already: the container repeats EXIF's orientation
    image.set_type(header.get_typeof("n-pages"), "n-pages", header.get("n-pages"))
    if image.bands < 3 and image.get_typeof("icc-profile-data"):  # of RGB: libvips takes any HEIC for RGB
        image = drop_field(image, "icc-profile-data")
    return image


def _normalise(label: str, image: pyvips.Image) -> tuple[pyvips.Image, str]:
    """Return the picture as grey or RGB of 8 or 16 bits, and the kind that it was converted from, if it was."""
    kind = str(image.interpretation)
    converted = ""
    if kind in ("cmyk", "lab", "labs", "labq"):
        deep = image.format == "ushort"
        if kind == "cmyk":
            image = image.icc_transform("srgb", embedded=True, input_profile="cmyk", depth=16 if deep else 8)
        else:
            image = image.colourspace("rgb16" if kind == "labs" else "srgb")
        image = drop_field(image, "icc-profile-data")
        converted = kind.upper()
    elif kind not in ("srgb", "rgb16", *_GREY):
        raise ImageError(f"{label}: pixels of kind {kind} are not supported; save it as 8 or 16 bit RGB or grey first")
    if image.format not in ("uchar", "ushort") or image.bands != (1 if kind in _GREY else 3) + image.hasalpha():
        raise ImageError(
            f"{label}: {image.bands} bands of {image.format} are not supported; "
            "save it as 8 or 16 bit RGB or grey first"
        )
    return image, converted


def _spread(image: pyvips.Image) -> pyvips.Image:
    """Give fully transparent pixels the blurred colour of the visible ones around them."""
    colour, alpha = image[: image.bands - 1], image[image.bands - 1]
    visible = alpha > 0
    weight = (visible / 255).cast("float")
    blurred = (colour * weight).gaussblur(_SPREAD_SIGMA, min_ampl=_SPREAD_CUTOFF, precision="float")
    mean = blurred / weight.gaussblur(_SPREAD_SIGMA, min_ampl=_SPREAD_CUTOFF, precision="float")
    if image.format != "float":
        mean = mean.rint().cast(image.format)
    filled = visible.ifthenelse(colour, mean)
    return filled.bandjoin(alpha).copy(interpretation=image.interpretation)
