"""Pictures in and out, by libvips: formats, bit depth, colour, alpha, orientation, metadata.

Both directions stream: a picture is decoded a few rows at a time (`Picture.rows`), and written from strips of rows as
they are made (`write`), so memory does not grow with its height. Arrays are (height, width, bands), top row first.
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
from dsclora.pictures.vips import LIBVIPS_LOCK, copy_metadata, drop_field, from_array, reason

MAX_PIXELS = 1_000_000_000
"""Larger inputs are refused unless asked for: a small file can claim any size (a decompression bomb)."""

READABLE = frozenset(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".heic", ".heif", ".tif", ".tiff", ".gif"]
)
"""Suffixes that a folder is searched for. A file named on its own may have any name; its content decides."""

LOADERS = ("Jpeg", "Png", "Webp", "Heif", "Tiff", "Nsgif", "Uhdr")  # as libvips calls its classes
SUPPORTED = "JPEG, PNG, WebP, AVIF, HEIC, TIFF and GIF"

_GREY = ("b-w", "grey16")

_BLEED_SIGMA, _BLEED_CUTOFF = 8.0, 0.01  # a Gaussian of radius 24, more than the network sees (21)

# what libvips remembers of finished work is a hundred pictures with their files open; nothing is asked for twice
pyvips.cache_set_max(0)


@dataclass(frozen=True)
class Picture:
    """A picture opened but not yet decoded: upright, one or three colours, 8 or 16 bits, alpha or none.

    Attributes:
        path: its file.
        image: uchar or ushort; the alpha band, if any, last.
        alpha: whether it has one.
        notices: what was left aside or converted, a line each, for the user to know.
    """

    path: Path
    image: pyvips.Image
    alpha: bool
    notices: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Pixels across."""
        return int(self.image.width)

    @property
    def height(self) -> int:
        """Pixels down."""
        return int(self.image.height)

    @property
    def bands(self) -> int:
        """Colours plus alpha: 1 to 4."""
        return int(self.image.bands)

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8 or uint16."""
        return np.dtype(np.uint16 if self.image.format == "ushort" else np.uint8)

    def rows(self) -> Callable[[int, int], Pixels]:
        """A reader `rows(y, count)` of (count, width, bands); ask from top to bottom, no row twice.

        Raises (when called):
            ImageError: the file is truncated or damaged there.
        """
        region = pyvips.Region.new(self.image)

        def read(y: int, count: int) -> Pixels:
            try:
                # a few rows at a time: what looks around (the spreading of colours under transparent pixels) would else
                # ask for rows that a sequential reader has passed
                parts = [region.fetch(0, at, self.width, min(16, y + count - at)) for at in range(y, y + count, 16)]
            except pyvips.Error as error:
                raise ImageError(f"{self.path}: damaged or truncated ({reason(error)})") from error
            return np.frombuffer(b"".join(parts), self.dtype).reshape(count, self.width, self.bands)

        return read


def find_pictures(folder: Path, unreadable: Callable[[ImageError], None] | None = None) -> list[Path]:
    """All pictures below a folder, by suffix, sorted; hidden files and folders are passed over.

    Links to folders are followed, and every folder is entered once.

    Args:
        folder: to search.
        unreadable: called with what is wrong with a folder below that cannot be read; by default it is raised.

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

    found: list[Path] = []
    entered: set[str] = set()
    for at, below, names in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(at)
        if real in entered:
            below.clear()
            continue
        entered.add(real)
        below[:] = sorted(name for name in below if not name.startswith("."))
        paths = (Path(at, name) for name in names if not name.startswith("."))
        found.extend(path for path in paths if path.suffix.lower() in READABLE and os.path.isfile(path))  # noqa: PTH113
    found.sort()
    if not found:
        raise ImageError(f"{folder}: no pictures in it ({', '.join(sorted(READABLE))})")
    return found


def open_picture(path: Path, max_pixels: int = MAX_PIXELS) -> Picture:
    """Open a picture: JPEG, PNG, WebP, AVIF/HEIC, TIFF or GIF, told by its content.

    EXIF orientation is applied. CMYK and Lab become sRGB by their profile; RGB and grey keep their numbers and their
    ICC profile. Colours are spread under fully transparent pixels, so that no dark halo appears at edges when
    enlarged. Of an animation or a multi-page file the first frame is taken, and a notice says so.

    Args:
        path: file.
        max_pixels: refuse more than that.

    Raises:
        ImageError: missing, empty, not a picture, of a kind that is not supported, or too large.
    """
    with LIBVIPS_LOCK:
        return _open(path, max_pixels)


def _open(path: Path, max_pixels: int) -> Picture:
    image, gain_map = _load(path, "sequential", max_pixels)
    orientation = image.get("orientation") if image.get_typeof("orientation") else 1
    if orientation not in (1, 2):  # 2 mirrors left to right, which can be done row by row
        image, _ = _load(path, "random", max_pixels)
    notices = []
    if gain_map:
        notices.append(f"{path}: is a picture for HDR screens too; what makes it one (the gain map) is left out")
    frames = image.get("n-pages") if image.get_typeof("n-pages") else 1
    if frames > 1:
        notices.append(f"{path}: has {frames} frames or pages; only the first is enlarged")
    try:
        image = image.autorot()
        image, converted = _normalise(path, image)
        if converted:
            notices.append(f"{path}: {converted} converted to sRGB")
        alpha = bool(image.hasalpha())
        if alpha:
            image = _bleed(image)
    except pyvips.Error as error:
        raise ImageError(f"{path}: cannot be read ({reason(error)})") from error
    return Picture(path, image, alpha, tuple(notices))


def read_rgb8(path: Path) -> npt.NDArray[np.uint8]:
    """A whole picture as (h, w, 3) uint8; grey is repeated, 16 bits are rounded, alpha is dropped.

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


def _load(path: Path, access: str, max_pixels: int) -> tuple[pyvips.Image, bool]:
    """The picture, and whether it came with a gain map (Ultra HDR), which is left aside."""
    try:
        if path.is_dir():
            raise ImageError(f"{path}: is a folder")
        if path.exists() and not path.is_file():
            raise ImageError(f"{path}: not a regular file")
        if path.stat().st_size == 0:
            raise ImageError(f"{path}: the file is empty")
        # not by name: vips would read options out of names such as "a[1]", and pyvips fails from then on when vips
        # complains of one that is not UTF-8
        with path.open("rb") as file:
            opened = pyvips.Source.new_from_descriptor(file.fileno())  # which it duplicates
        # asked before anything is read: an SVG of a thousand bytes can take gigabytes and minutes
        found = pyvips.vips_lib.vips_foreign_find_load_source(opened.pointer)
        loader = pyvips.ffi.string(found).decode().removeprefix("VipsForeignLoad") if found else ""
        if found and not loader.startswith(LOADERS):
            kind = loader.removesuffix("Source").lower()
            raise ImageError(f"{path}: is a {kind} file; supported are {SUPPORTED}")
        if not found:
            raise ImageError(f"{path}: not a picture, or of no supported kind; supported are {SUPPORTED}")
        gain_map = loader.startswith("Uhdr")
        if not gain_map:
            image = pyvips.Image.new_from_source(opened, "", access=access, fail_on="error")
        else:  # before it lies an ordinary JPEG
            image = pyvips.Image.jpegload_source(opened, access=access, fail_on="error")
            if image.get_typeof("xmp-data") and b"hdr-gain-map" in bytes(image.get("xmp-data")):
                image = drop_field(image, "xmp-data")
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from error
    except pyvips.Error as error:
        raise ImageError(f"{path}: not a picture, or damaged ({reason(error)})") from error
    if image.width * image.height > max_pixels:
        raise ImageError(
            f"{path}: {image.width} x {image.height} pixels are more than the limit of {max_pixels / 1e6:.0f} "
            "megapixels; if it is meant to be so large, `dsclora upscale --max-megapixels` takes it"
        )
    if image.get_typeof("heif-compression") and image.get("heif-compression") == "hevc":
        image = _hevc(path, image)
    return image, gain_map


def _hevc(path: Path, header: pyvips.Image) -> pyvips.Image:
    """The pixels, upright, of what telephones call HEIC: the libvips of PyPI reads all of it but these."""
    # not by pi_heif itself, which asks for metadata too: 1.4 crashes with it where a name in there is not UTF-8
    from _pi_heif import load_file

    try:
        data = path.read_bytes()
        brands = data[8 : int.from_bytes(data[:4])]
        if b"avif" in brands or b"avis" in brands:  # libvips goes by the first one, which may say less
            return header
        found = load_file(data, 4, False, False, True, True, "", False)  # 16 bit as such, no padding of rows
        decoded = next(picture for picture in found if picture is not None and picture.primary)
        content = bytes(decoded.data)  # a copy: its memory goes with it
        (width, height), mode = decoded.size_mode
        pixels = np.frombuffer(content, "<u2" if ";16" in mode else np.uint8).reshape(height, width, -1)
    except (ValueError, EOFError, SyntaxError, RuntimeError, OSError, StopIteration) as error:
        reason = " ".join(str(error).split()) or "no picture in it"
        raise ImageError(f"{path}: damaged or truncated ({reason})") from error
    image = from_array(pixels, alpha="A" in mode.upper())
    copy_metadata(image, header)  # upright: what EXIF says of it, the container said too
    image.set_type(header.get_typeof("n-pages"), "n-pages", header.get("n-pages"))
    if image.bands < 3 and image.get_typeof("icc-profile-data"):  # it would be of RGB, which libvips calls all HEIC
        image = drop_field(image, "icc-profile-data")
    return image


def _normalise(path: Path, image: pyvips.Image) -> tuple[pyvips.Image, str]:
    """Grey or RGB, 8 or 16 bit, and what was converted, if anything."""
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
        raise ImageError(f"{path}: pixels of kind {kind} are not supported; save it as 8 or 16 bit RGB or grey first")
    if image.format not in ("uchar", "ushort") or image.bands != (1 if kind in _GREY else 3) + image.hasalpha():
        raise ImageError(
            f"{path}: {image.bands} bands of {image.format} are not supported; save it as 8 or 16 bit RGB or grey first"
        )
    return image, converted


def _bleed(image: pyvips.Image) -> pyvips.Image:
    """Give fully transparent pixels the blurred colour of the visible ones around them."""
    colour, alpha = image[: image.bands - 1], image[image.bands - 1]
    visible = alpha > 0
    weight = (visible / 255).cast("float")
    blurred = (colour * weight).gaussblur(_BLEED_SIGMA, min_ampl=_BLEED_CUTOFF, precision="float")
    mean = blurred / weight.gaussblur(_BLEED_SIGMA, min_ampl=_BLEED_CUTOFF, precision="float")
    filled = visible.ifthenelse(colour, mean.rint().cast(image.format))
    return filled.bandjoin(alpha).copy(interpretation=image.interpretation)
