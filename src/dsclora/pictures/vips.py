"""Use libvips safely: its loaders, lock and cache, metadata, views of arrays, error texts."""

import re
import threading

import numpy as np
import pyvips

from dsclora.pictures.arrays import Pixels

LOADERS = ("Jpeg", "Png", "Webp", "Heif", "Tiff", "Nsgif", "Uhdr")
"""libvips' classes of loaders that are used; others (SVG, PDF, ...) would parse any input."""

_KEPT = ("exif-", "xmp-", "iptc-", "icc-", "png-comment", "image-description", "resolution-unit")

# libvips keeps its error messages in one place for all threads, and pyvips clears it whenever a method of an image is
# looked up: without this, a file that cannot be opened gets another thread's message, or none. (Damage found
# later, while pixels are read or written, may still be: that cannot be done one at a time.)
LIBVIPS_LOCK = threading.Lock()


def configure() -> None:
    """Set up libvips for the whole process: no cache, and no loaders but the ones that are used.

    For programs, not for libraries. The cache remembers a hundred operations with their files open, and nothing is
    asked for twice. Reading refuses other loaders by itself; blocked, they cannot be reached in any other way.
    """
    pyvips.cache_set_max(0)
    pyvips.operation_block_set("VipsForeignLoad", True)
    for loader in LOADERS:
        pyvips.operation_block_set(f"VipsForeignLoad{loader}", False)


def drop_field(image: pyvips.Image, name: str) -> pyvips.Image:
    """Return the image without a metadata field."""
    image = image.copy()
    if image.get_typeof(name):
        image.remove(name)
    return image


def copy_metadata(image: pyvips.Image, like: pyvips.Image) -> None:
    """Copy metadata to an image that is upright; where pyvips cannot read all names, only the blocks that matter."""
    try:
        names = like.get_fields()
    except UnicodeDecodeError:  # a PNG's keyword is Latin-1
        blocks = ("exif-data", "xmp-data", "iptc-data", "icc-profile-data")
        names = [name for name in blocks if like.get_typeof(name)]
    for name in names:
        if name.startswith(_KEPT) and name != "exif-ifd0-Orientation":
            value = like.get(name)
            if name == "xmp-data":
                value = re.sub(rb"(tiff:Orientation\W{1,3})[1-8]", rb"\g<1>1", bytes(value))
            image.set_type(like.get_typeof(name), name, value)
    # the EXIF block still has the camera's orientation, which has been applied
    image.set_type(pyvips.GValue.gint_type, "orientation", 1)


_FORMS = {
    "uint8": ("uchar", "b-w", "srgb"),
    "uint16": ("ushort", "grey16", "rgb16"),
    "float32": ("float", "b-w", "srgb"),
}


def from_array(pixels: Pixels, alpha: bool) -> pyvips.Image:
    """Return a view of an array as libvips' image.

    Args:
        pixels: (h, w, bands), uint8, uint16 or float32.
        alpha: whether the last band is transparency.
    """
    height, width, bands = pixels.shape
    form, *kinds = _FORMS[pixels.dtype.name]
    image = pyvips.Image.new_from_memory(np.ascontiguousarray(pixels), width, height, bands, form)
    return image.copy(interpretation=kinds[bands - alpha == 3])


def reason(error: pyvips.Error) -> str:
    """Return the system's text of an error, or else the first line of libvips' own."""
    lines = [line.strip() for line in str(error.detail).splitlines() if line.strip()]
    system = [line.partition("error: ")[2] for line in lines if line.startswith(("unix error: ", "system error: "))]
    return (system or lines or [str(error.message)])[0]
