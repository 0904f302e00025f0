"""Write pictures from strips of rows, whole or not at all."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pyvips

from dsclora import files
from dsclora.errors import OutputError
from dsclora.pictures.arrays import Pixels
from dsclora.pictures.png_stream import PngStream
from dsclora.pictures.read import Picture
from dsclora.pictures.vips import LIBVIPS_LOCK, copy_metadata, from_array, reason


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


def write_picture(output: Output, strips: Iterable[Pixels], width: int, height: int, like: Picture) -> None:
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
        stream = None if whole else PngStream(chain([first], strips), width, height, like)
        try:
            image = None if stream is None else stream.image()
            with LIBVIPS_LOCK:
                image = _finish(from_array(first, like.alpha) if image is None else image, output, like)
            del first  # or the next strip is made while this one is still held
            size = image.width * image.height * image.bands * (2 if image.format == "ushort" else 1)
            options = saver.options.format(quality=output.quality or saver.quality, big=size > 2**31)
            keep = "icc" if output.strip_metadata else "all"
            target = pyvips.Target.new_to_file(os.fsencode(temporary))
            image.write_to_target(target, f"{path.suffix.lower()}[{options},keep={keep}]")
        except pyvips.Error as error:
            if stream is not None and stream.error is not None:
                raise stream.error from None
            raise OutputError(f"{path}: cannot be written ({reason(error)})") from error


def _checked(strips: Iterable[Pixels], width: int, like: Picture) -> Iterator[Pixels]:
    for strip in strips:
        if strip.shape[1:] != (width, like.bands) or strip.dtype != like.dtype:
            raise ValueError(f"a strip is {strip.dtype} {strip.shape}, not {like.dtype} (n, {width}, {like.bands})")
        yield strip


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
    copy_metadata(image, like.image)
    if not output.saver.grey and image.bands < 3 and image.get_typeof("icc-profile-data"):
        colour = image[0].icc_transform("srgb", embedded=True)
        image = colour.bandjoin(image[1]) if image.bands == 2 else colour
    return image
