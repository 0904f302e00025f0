"""Write pictures from strips of rows as they are made: to a file, whole or not at all, or to memory."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pyvips

from dsclora import files
from dsclora.errors import OutputError, UsageError
from dsclora.pictures.arrays import Pixels
from dsclora.pictures.png_stream import PngStream
from dsclora.pictures.read import Picture
from dsclora.pictures.vips import LIBVIPS_LOCK, copy_metadata, from_array, reason


@dataclass(frozen=True)
class Saver:
    """The properties of an output format.

    Attributes:
        options: the options of libvips' saver; `{quality}` is filled in.
        quality: the default, 1..100; None where the format is lossless.
        bits: the most bits per sample.
        alpha: whether it holds transparency.
        longest: the longest side in pixels.
        grey: whether it holds grey. If not, grey becomes RGB, to which a grey ICC profile would not apply.
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


def suffix_of(format: str) -> str:
    """Return the suffix of a format that can be written, by its name: "png", "JPG" or ".webp".

    Raises:
        UsageError: another format.
    """
    suffix = "." + format.lower().lstrip(".")
    if suffix not in SAVERS:
        raise UsageError(f"--format {format}: choose one of {', '.join(s.lstrip('.') for s in SAVERS)}")
    return suffix


@dataclass(frozen=True)
class Encoding:
    """The format and size of a picture to write.

    Attributes:
        suffix: the format's suffix, such as ".png", in upper or lower case.
        width, height: the final size; strips of another size are reduced to it (Lanczos).
        quality: 1..100 for lossy formats, None for the format's default.
        strip_metadata: leave out EXIF, XMP, IPTC and comments; the ICC profile stays.
        label: the name in messages.
    """

    suffix: str
    width: int
    height: int
    quality: int | None = None
    strip_metadata: bool = False
    label: str = "the result"

    def __post_init__(self) -> None:
        """Refuse what cannot be written before any work is done.

        Raises:
            OutputError: unknown format, or one that cannot hold so large a picture.
        """
        if self.suffix.lower() not in SAVERS:
            raise OutputError(
                f"{self.label}: cannot write {self.suffix or 'a file without a suffix'}; "
                f"choose one of {', '.join(SAVERS)}"
            )
        if max(self.width, self.height) > self.saver.longest:
            raise OutputError(
                f"{self.label}: {self.width} x {self.height} is more than {self.suffix} holds "
                f"({self.saver.longest} pixels a side); write .png or .tif"
            )

    @property
    def saver(self) -> Saver:
        """The properties of the format."""
        return SAVERS[self.suffix.lower()]


def write_picture(
    path: Path,
    encoding: Encoding,
    strips: Iterable[Pixels],
    size: tuple[int, int],
    like: Picture,
    overwrite: bool = False,
) -> None:
    """Write a picture from strips, whole or not at all: to a temporary file beside the target, then renamed.

    Args:
        path: target; its own suffix does not matter.
        encoding: format and final size.
        strips: (n, width, bands) from top to bottom, `height` rows in all; dtype and bands those of `like`.
        size: (width, height) that the strips make up.
        like: the picture it was made from; ICC profile, metadata and resolution are taken over.
        overwrite: replace an existing file.

    Raises:
        OutputError: exists already, folder not writable, disk full.
        DscloraError: an error of the source of the strips, which passes through.
    """
    with files.replacing(path, overwrite) as temporary:
        _write(pyvips.Target.new_to_file(os.fsencode(temporary)), encoding, strips, size, like)


def encode_picture(encoding: Encoding, strips: Iterable[Pixels], size: tuple[int, int], like: Picture) -> bytes:
    """Return the content of the file that `write_picture` would write.

    Args:
        encoding, strips, size, like: as for `write_picture`.

    Raises:
        OutputError: libvips cannot encode it.
        DscloraError: an error of the source of the strips, which passes through.
    """
    target = pyvips.Target.new_to_memory()
    _write(target, encoding, strips, size, like)
    return bytes(target.get("blob"))


def _write(
    target: pyvips.Target, encoding: Encoding, strips: Iterable[Pixels], size: tuple[int, int], like: Picture
) -> None:
    width, height = size
    strips = _check_strips(strips, width, like)
    first = next(strips)
    whole = len(first) == height  # the whole picture is in memory
    if whole and next(strips, None) is not None:  # also frees the source of the last strip
        raise ValueError(f"strips hold more than {height} rows")
    stream = None if whole else PngStream(chain([first], strips), width, height, like)
    try:
        image = None if stream is None else stream.image()
        with LIBVIPS_LOCK:
            image = _finish(from_array(first, like.alpha) if image is None else image, encoding, like)
        del first  # free it before the next strip is made
        image.write_to_target(target, _saver_options(image, encoding))
    except pyvips.Error as error:
        if stream is not None and stream.error is not None:
            raise stream.error from None
        raise OutputError(f"{encoding.label}: cannot be written ({reason(error)})") from error


def _saver_options(image: pyvips.Image, encoding: Encoding) -> str:
    """Return the format and its options as libvips reads them."""
    saver = encoding.saver
    size = image.width * image.height * image.bands * (2 if image.format == "ushort" else 1)
    options = saver.options.format(quality=encoding.quality or saver.quality, big=size > 2**31)
    keep = "icc" if encoding.strip_metadata else "all"
    return f"{encoding.suffix.lower()}[{options},keep={keep}]"


def _check_strips(strips: Iterable[Pixels], width: int, like: Picture) -> Iterator[Pixels]:
    """Pass strips on, and refuse those of another width, depth or kind than they should be."""
    for strip in strips:
        if strip.shape[1:] != (width, like.bands) or strip.dtype != like.dtype:
            raise ValueError(f"a strip is {strip.dtype} {strip.shape}, not {like.dtype} (n, {width}, {like.bands})")
        yield strip


def _finish(image: pyvips.Image, encoding: Encoding, like: Picture) -> pyvips.Image:
    """Give an image its final size, depth and bands, and the metadata of the picture it came from."""
    kind = str(image.interpretation)
    if (image.width, image.height) != (encoding.width, encoding.height):
        pixels = image.premultiply() if like.alpha else image
        pixels = pixels.resize(encoding.width / image.width, vscale=encoding.height / image.height, kernel="lanczos3")
        pixels = pixels.unpremultiply() if like.alpha else pixels
        image = pixels.rint().cast(image.format).copy(interpretation=kind)
    if like.alpha and not encoding.saver.alpha:
        image = image.flatten(background=[65535 if image.format == "ushort" else 255])
    if image.format == "ushort" and encoding.saver.bits == 8:
        image = ((image + 128) / 257).floor().cast("uchar")
        image = image.copy(interpretation="b-w" if image.bands < 3 else "srgb")
    image = image.copy(xres=like.image.xres, yres=like.image.yres)
    copy_metadata(image, like.image)
    if not encoding.saver.grey and image.bands < 3 and image.get_typeof("icc-profile-data"):
        colour = image[0].icc_transform("srgb", embedded=True)
        image = colour.bandjoin(image[1]) if image.bands == 2 else colour
    return image
