"""Pictures in and out, by libvips: formats, bit depth, colour, alpha, orientation, metadata.

Both directions stream: a picture is decoded a few rows at a time (`Picture.rows`), and written from strips of rows as
they are made (`write`), so memory does not grow with its height. Arrays are (height, width, bands), top row first.
"""

import os
import re
import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyvips

from dsclora import files
from dsclora.errors import ImageError, OutputError

Pixels = npt.NDArray[Any]
"""uint8 or uint16, (height, width, bands)."""

MAX_PIXELS = 1_000_000_000
"""Larger inputs are refused unless asked for: a small file can claim any size (a decompression bomb)."""

READABLE = frozenset(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".heic", ".heif", ".tif", ".tiff", ".gif"]
)
"""Suffixes that a folder is searched for. A file named on its own may have any name; its content decides."""

_LOADERS = ("Jpeg", "Png", "Webp", "Heif", "Tiff", "Nsgif", "Uhdr")  # as libvips calls its classes
_GREY = ("b-w", "grey16")
_KEPT = ("exif-", "xmp-", "iptc-", "icc-", "png-comment", "image-description", "resolution-unit")
_BLEED_SIGMA, _BLEED_CUTOFF = 8.0, 0.01  # a Gaussian of radius 24, more than the network sees (21)

# libvips keeps its error messages in one place for all threads, and pyvips clears it whenever a method of an image is
# looked up: without this, a file that cannot be opened is told with another thread's message, or none. (Damage found
# later, while pixels are read or written, may still be: that cannot be done one at a time.)
_PREPARING = threading.Lock()

# what libvips remembers of finished work is a hundred pictures with their files open; nothing is asked for twice
pyvips.cache_set_max(0)


@dataclass(frozen=True)
class Saver:
    """What an output format takes.

    Attributes:
        options: of libvips' saver; `{quality}` is filled in.
        quality: by default, 1..100; None where the format is lossless.
        bits: per sample at the most.
        alpha: whether it holds transparency.
        longest: side in pixels.
        grey: whether it holds grey as such. Else it becomes RGB, to which a grey ICC profile would not apply.
    """

    options: str
    quality: int | None
    bits: int
    alpha: bool
    longest: int
    grey: bool = True


_JPEG = Saver("Q={quality}", 95, 8, False, 65_500)  # optimize_coding would hold the whole picture in memory
_TIFF = Saver("compression=deflate,predictor=horizontal,bigtiff={big}", None, 16, True, 2**31 - 1)
SAVERS = {
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".png": Saver("compression=6,filter=sub", None, 16, True, 2**31 - 1),
    ".webp": Saver("Q={quality},smart_subsample", 95, 8, True, 16_383, grey=False),
    ".avif": Saver("Q={quality},effort=3", 85, 8, True, 16_384, grey=False),
    ".tif": _TIFF,
    ".tiff": _TIFF,
}
"""Formats that can be written, by suffix."""


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
                raise ImageError(f"{self.path}: damaged or truncated ({_reason(error)})") from error
            return np.frombuffer(b"".join(parts), self.dtype).reshape(count, self.width, self.bands)

        return read


def find(folder: Path, unreadable: Callable[[ImageError], None] | None = None) -> list[Path]:
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
    with _PREPARING:
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
        raise ImageError(f"{path}: cannot be read ({_reason(error)})") from error
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
        if found and not loader.startswith(_LOADERS):
            kind = loader.removesuffix("Source").lower()
            raise ImageError(f"{path}: is a {kind} file; supported are JPEG, PNG, WebP, AVIF, HEIC, TIFF and GIF")
        gain_map = loader.startswith("Uhdr")
        if not gain_map:
            image = pyvips.Image.new_from_source(opened, "", access=access, fail_on="error")
        else:  # before it lies an ordinary JPEG
            image = pyvips.Image.jpegload_source(opened, access=access, fail_on="error")
            if image.get_typeof("xmp-data") and b"hdr-gain-map" in bytes(image.get("xmp-data")):
                image = _without(image, "xmp-data")
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from error
    except pyvips.Error as error:
        raise ImageError(f"{path}: not a picture, or damaged ({_reason(error)})") from error
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
    image = _in_memory(pixels, alpha="A" in mode.upper())
    _take_over(image, header)  # upright: what EXIF says of it, the container said too
    image.set_type(header.get_typeof("n-pages"), "n-pages", header.get("n-pages"))
    if image.bands < 3 and image.get_typeof("icc-profile-data"):  # it would be of RGB, which libvips calls all HEIC
        image = _without(image, "icc-profile-data")
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
        image = _without(image, "icc-profile-data")
        converted = kind.upper()
    elif kind not in ("srgb", "rgb16", *_GREY):
        raise ImageError(f"{path}: pixels of kind {kind} are not supported; save it as 8 or 16 bit RGB or grey first")
    if image.format not in ("uchar", "ushort") or image.bands != (1 if kind in _GREY else 3) + image.hasalpha():
        raise ImageError(
            f"{path}: {image.bands} bands of {image.format} are not supported; save it as 8 or 16 bit RGB or grey first"
        )
    return image, converted


def _without(image: pyvips.Image, name: str) -> pyvips.Image:
    image = image.copy()
    if image.get_typeof(name):
        image.remove(name)
    return image


def _bleed(image: pyvips.Image) -> pyvips.Image:
    """Give fully transparent pixels the blurred colour of the visible ones around them."""
    colour, alpha = image[: image.bands - 1], image[image.bands - 1]
    visible = alpha > 0
    weight = (visible / 255).cast("float")
    blurred = (colour * weight).gaussblur(_BLEED_SIGMA, min_ampl=_BLEED_CUTOFF, precision="float")
    mean = blurred / weight.gaussblur(_BLEED_SIGMA, min_ampl=_BLEED_CUTOFF, precision="float")
    filled = visible.ifthenelse(colour, mean.rint().cast(image.format))
    return filled.bandjoin(alpha).copy(interpretation=image.interpretation)


@dataclass(frozen=True)
class Output:
    """Where and how to write.

    Attributes:
        path: target; the suffix chooses the format.
        width, height: final size; strips of another size are reduced to it (Lanczos).
        quality: 1..100 for lossy formats, None for the format's default.
        strip_metadata: leave out EXIF, XMP, IPTC and comments; the ICC profile stays.
        overwrite: replace an existing file.
    """

    path: Path
    width: int
    height: int
    quality: int | None = None
    strip_metadata: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be written before any work is done.

        Raises:
            OutputError: unknown format, or one that cannot hold so large a picture.
        """
        if self.path.suffix.lower() not in SAVERS:
            raise OutputError(
                f"{self.path}: cannot write {self.path.suffix or 'a file without a suffix'}; "
                f"choose one of {', '.join(SAVERS)}"
            )
        if max(self.width, self.height) > self.saver.longest:
            raise OutputError(
                f"{self.path}: {self.width} x {self.height} is more than {self.path.suffix} holds "
                f"({self.saver.longest} pixels a side); write .png or .tif"
            )

    @property
    def saver(self) -> Saver:
        """Of the format."""
        return SAVERS[self.path.suffix.lower()]


def write(output: Output, strips: Iterable[Pixels], width: int, height: int, like: Picture) -> None:
    """Write a picture from strips, whole or not at all: to a temporary file beside the target, then renamed.

    Args:
        output: where and how.
        strips: (n, width, bands) from top to bottom, `height` rows in all; dtype and bands those of `like`.
        width, height: of what the strips make up.
        like: the picture it was made from; ICC profile, metadata and resolution are taken over.

    Raises:
        OutputError: exists already, folder not writable, disk full.
        DscloraError: whatever making the strips raises passes through.
    """
    path, saver = output.path, output.saver
    with files.replacing(path, output.overwrite) as temporary:
        strips = _checked(strips, width, like)
        first = next(strips)
        whole = len(first) == height  # and in memory anyway
        if whole and next(strips, None) is not None:  # which also lets go of what the last strip was made of
            raise ValueError(f"strips hold more than {height} rows")
        stream = None if whole else _PngStream(chain([first], strips), width, height, like)
        try:
            image = None if stream is None else stream.image()
            with _PREPARING:
                image = _finish(_in_memory(first, like.alpha) if image is None else image, output, like)
            del first  # or the next strip is made while this one is still held
            size = image.width * image.height * image.bands * (2 if image.format == "ushort" else 1)
            options = saver.options.format(quality=output.quality or saver.quality, big=size > 2**31)
            keep = "icc" if output.strip_metadata else "all"
            target = pyvips.Target.new_to_file(os.fsencode(temporary))
            image.write_to_target(target, f"{path.suffix.lower()}[{options},keep={keep}]")
        except pyvips.Error as error:
            if stream is not None and stream.error is not None:
                raise stream.error from None
            raise OutputError(f"{path}: cannot be written ({_reason(error)})") from error


def _checked(strips: Iterable[Pixels], width: int, like: Picture) -> Iterator[Pixels]:
    for strip in strips:
        if strip.shape[1:] != (width, like.bands) or strip.dtype != like.dtype:
            raise ValueError(f"a strip is {strip.dtype} {strip.shape}, not {like.dtype} (n, {width}, {like.bands})")
        yield strip


def _take_over(image: pyvips.Image, like: pyvips.Image) -> None:
    """Metadata of an image for one that is upright; where pyvips cannot read all names, the blocks that matter."""
    try:
        names = like.get_fields()
    except UnicodeDecodeError:  # a PNG's keyword is Latin-1
        blocks = ("exif-data", "xmp-data", "iptc-data", "icc-profile-data")
        names = [name for name in blocks if like.get_typeof(name)]
    for name in names:
        if name.startswith(_KEPT):
            value = like.get(name)
            if name == "xmp-data":
                value = re.sub(rb"(tiff:Orientation\W{1,3})[1-8]", rb"\g<1>1", bytes(value))
            image.set_type(like.get_typeof(name), name, value)
    # the EXIF block still says how the camera was held, which has been applied
    image.set_type(pyvips.GValue.gint_type, "orientation", 1)


def _in_memory(pixels: Pixels, alpha: bool) -> pyvips.Image:
    """A view of an array as libvips' image."""
    height, width, bands = pixels.shape
    form, kinds = ("uchar", ("b-w", "srgb")) if pixels.dtype == np.uint8 else ("ushort", ("grey16", "rgb16"))
    image = pyvips.Image.new_from_memory(np.ascontiguousarray(pixels), width, height, bands, form)
    return image.copy(interpretation=kinds[bands - alpha == 3])


def _finish(image: pyvips.Image, output: Output, like: Picture) -> pyvips.Image:
    """Final size, depth and bands, and the metadata of the picture it came from."""
    kind = str(image.interpretation)
    if (image.width, image.height) != (output.width, output.height):
        pixels = image.premultiply() if like.alpha else image
        pixels = pixels.resize(output.width / image.width, vscale=output.height / image.height, kernel="lanczos3")
        pixels = pixels.unpremultiply() if like.alpha else pixels
        image = pixels.rint().cast(image.format).copy(interpretation=kind)
    if like.alpha and not output.saver.alpha:
        image = image.flatten(background=[65535 if image.format == "ushort" else 255])
    if image.format == "ushort" and output.saver.bits == 8:
        image = ((image + 128) / 257).floor().cast("uchar")
        image = image.copy(interpretation="b-w" if image.bands < 3 else "srgb")
    image = image.copy(xres=like.image.xres, yres=like.image.yres)
    _take_over(image, like.image)
    if not output.saver.grey and image.bands < 3 and image.get_typeof("icc-profile-data"):
        colour = image[0].icc_transform("srgb", embedded=True)
        image = colour.bandjoin(image[1]) if image.bands == 2 else colour
    return image


class _PngStream:
    """Strips as a PNG without compression, which libvips decodes as it comes.

    PNG is the one format that every libvips build streams in without seeking, with any mix of grey, colour, alpha,
    8 and 16 bits; stored deflate blocks cost a copy and two checksums.
    """

    def __init__(self, strips: Iterable[Pixels], width: int, height: int, like: Picture) -> None:
        self.error: BaseException | None = None
        self._chunks = self._encode(strips, width, height, like)
        self._rest = memoryview(b"")
        self._source = pyvips.SourceCustom()
        self._source.on_read(self._read)

    def image(self) -> pyvips.Image:
        return pyvips.Image.pngload_source(self._source, access="sequential", unlimited=True, fail_on="truncated")

    def _read(self, size: int) -> bytes:
        # an exception must not cross libvips: it is kept, and the stream ends early, which libvips reports
        while not self._rest and self.error is None:
            try:
                self._rest = memoryview(next(self._chunks))
            except StopIteration:
                break
            except BaseException as error:  # noqa: BLE001
                self.error = error
        piece, self._rest = self._rest[:size], self._rest[size:]
        return bytes(piece)

    @staticmethod
    def _encode(strips: Iterable[Pixels], width: int, height: int, like: Picture) -> Iterator[bytes]:
        def chunk(kind: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))

        colour_type = {(1, False): 0, (3, False): 2, (2, True): 4, (4, True): 6}[like.bands, like.alpha]
        bits = like.dtype.itemsize * 8
        yield b"\x89PNG\r\n\x1a\n"
        yield chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))
        deflate = zlib.compressobj(0)
        total = 0
        for strip in strips:
            for part in np.array_split(strip, min(len(strip), 1 + strip.nbytes // 2**22)):  # bounds the copies
                flat = part.astype(part.dtype.newbyteorder(">")).reshape(len(part), -1).view(np.uint8)
                rows = np.zeros((len(part), 1 + flat.shape[1]), np.uint8)  # a leading 0: no filter
                rows[:, 1:] = flat
                data = deflate.compress(rows.tobytes())
                if data:
                    yield chunk(b"IDAT", data)
            total += len(strip)
            del strip, part, rows, flat, data  # or the next strip is made while this one is still held
        if total != height:
            raise ValueError(f"strips hold {total} rows, expected {height}")
        yield chunk(b"IDAT", deflate.flush())
        yield chunk(b"IEND", b"")


def _reason(error: pyvips.Error) -> str:
    """What the system says of an error, or else the first line that libvips says."""
    lines = [line.strip() for line in str(error.detail).splitlines() if line.strip()]
    system = [line.partition("error: ")[2] for line in lines if line.startswith(("unix error: ", "system error: "))]
    return (system or lines or [str(error.message)])[0]
