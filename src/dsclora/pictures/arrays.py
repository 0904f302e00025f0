"""Convert pictures of every kind that Python programs hold to arrays, and back.

Neither PIL nor torch is imported here: a program that holds one of their pictures has imported them already.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, overload

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from typing_extensions import TypeIs

Pixels = npt.NDArray[Any]
"""uint8, uint16, or float32 in 0..1, (height, width, bands)."""

Uint8 = npt.NDArray[np.uint8]

Float32 = npt.NDArray[np.float32]

PictureLike: TypeAlias = "str | os.PathLike[str] | npt.NDArray[Any] | Image.Image | torch.Tensor"
"""A picture as `to_pixels` takes it."""

InMemory = TypeVar("InMemory", bound="npt.NDArray[Any] | Image.Image | torch.Tensor")

_SUPPORTED = (
    "a picture is a path or str, a PIL image (L, LA, RGB, RGBA, I;16, or one that converts to them), a numpy array "
    "(h, w) or (h, w, 1 to 4), or a torch tensor (1 to 4, h, w) or (N, 1 to 4, h, w); arrays and tensors of uint8, "
    "uint16 or floats in 0..1"
)

_MODES = {
    **{mode: mode for mode in ("L", "LA", "RGB", "RGBA")},
    **dict.fromkeys(("I;16", "I;16L", "I;16B", "I;16N"), "I;16"),
    **{"1": "L", "La": "LA", "P": "RGB", "PA": "RGBA", "RGBX": "RGB", "RGBa": "RGBA"},
    **dict.fromkeys(("CMYK", "YCbCr", "HSV"), "RGB"),
}
"""The mode that each PIL mode is converted to; palettes with transparency become RGBA."""


def to_pixels(picture: PictureLike) -> tuple[list[Pixels], bool]:
    """Convert a picture, or a batch of pictures, to arrays that `inference.strips.enlarge` takes.

    Bands are grey, grey and alpha, RGB, or RGB and alpha. Colours are spread under fully transparent pixels, as
    `read.open_picture` does it. PIL images of other modes are converted as PIL does it, without colour management: "1"
    to L, a palette to RGB or, with transparency, RGBA, premultiplied alpha to plain, CMYK, YCbCr and HSV to RGB. Their
    EXIF orientation is not applied.

    Args:
        picture: a path or str, a PIL image, a numpy array (h, w) or (h, w, 1 to 4), or a torch tensor (1 to 4, h, w) or
            (N, 1 to 4, h, w) on any device; arrays and tensors of uint8, uint16 or floats in 0..1, with any strides and
            byte order.

    Returns:
        the arrays, one unless the picture is a batch: (h, w, bands) of uint8, uint16 or, for any floats, float32,
        contiguous, in native byte order; and True if the last band is alpha.

    Raises:
        TypeError: another kind, mode, dtype or shape.
        ValueError: no pixels, or floats that are not in 0..1.
        ImageError: the file cannot be read.
    """
    if isinstance(picture, str | os.PathLike):
        return _read(Path(picture))
    if _is_pil(picture):
        images = [np.asarray(_to_known_mode(picture))]
    elif _is_tensor(picture):
        images = _from_tensor(picture)
    elif isinstance(picture, np.ndarray):
        images = [picture]
    else:
        raise TypeError(f"got {type(picture).__module__}.{type(picture).__qualname__}; {_SUPPORTED}")
    pixels = [_to_contiguous(image, picture) for image in images]
    alpha = pixels[0].shape[2] in (2, 4)
    if alpha:
        from dsclora.pictures.read import spread_colours  # imports libvips

        pixels = [spread_colours(each) for each in pixels]
    return pixels, alpha


@overload
def from_pixels(images: Sequence[Pixels], like: InMemory) -> InMemory: ...
@overload
def from_pixels(images: Sequence[Pixels], like: str | os.PathLike[str]) -> Pixels: ...
def from_pixels(images: Sequence[Pixels], like: PictureLike) -> object:
    """Convert arrays back to the kind of picture that they come from.

    Args:
        images: (h, w, bands) as `to_pixels(like)` returns them, of any size.
        like: a picture of the kind to return.

    Returns:
        for a path, the array itself; for an array, one with as many axes and of the same dtype, in native byte order;
        for a tensor, one with as many axes, of the same dtype, on the same device; for a PIL image, one of the mode
        that `to_pixels` converts it to, with its colour profile.
    """
    if _is_tensor(like):
        return _to_tensor(images, like)
    (image,) = images
    if _is_pil(like):
        return _to_pil(image, like)
    if isinstance(like, np.ndarray):
        native = image.astype(like.dtype.newbyteorder("="), copy=False)
        return native[..., 0] if like.ndim == 2 else native
    return image


def _read(path: Path) -> tuple[list[Pixels], bool]:
    from dsclora.pictures.read import open_picture  # imports libvips

    picture = open_picture(path)
    return [picture.rows()(0, picture.height)], picture.alpha


def _to_contiguous(image: npt.NDArray[Any], picture: "npt.NDArray[Any] | Image.Image | torch.Tensor") -> Pixels:
    """Return (h, w, bands) uint8, uint16 or float32 of an array (h, w) or (h, w, bands).

    Raises:
        TypeError: another dtype or shape; `picture` is named.
        ValueError: no pixels, or floats that are not in 0..1.
    """
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 2, 3, 4)):
        raise TypeError(f"got {_describe(picture)}; {_SUPPORTED}")
    if image.dtype.newbyteorder("=") not in (np.uint8, np.uint16, np.float16, np.float32, np.float64):
        raise TypeError(f"got {_describe(picture)}; {_SUPPORTED}")
    if 0 in image.shape:
        raise ValueError(f"a picture without pixels: {_describe(picture)}")
    dtype = np.float32 if image.dtype.kind == "f" else image.dtype.newbyteorder("=")
    with np.errstate(over="ignore"):  # a value beyond float32 becomes infinite and is refused
        pixels = np.ascontiguousarray(image if image.ndim == 3 else image[..., None], dtype)
    if dtype == np.float32 and not (pixels.min() >= 0 and pixels.max() <= 1):  # also true of NaN
        raise ValueError(
            f"floats must be numbers in 0..1, got {pixels.min():g} to {pixels.max():g}: scale or clip them first"
        )
    return pixels


def _is_pil(picture: object) -> "TypeIs[Image.Image]":
    """Return whether it is a PIL image, without importing PIL."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(picture, module.Image)


def _is_tensor(picture: object) -> "TypeIs[torch.Tensor]":
    """Return whether it is a tensor, without importing torch."""
    module = sys.modules.get("torch")
    return module is not None and isinstance(picture, module.Tensor)


def _describe(picture: "npt.NDArray[Any] | Image.Image | torch.Tensor") -> str:
    """Describe the kind of an image, array or tensor, for messages."""
    if _is_pil(picture):
        return f"a PIL image of mode {picture.mode}, {picture.width} x {picture.height}"
    kind = "a tensor" if _is_tensor(picture) else "an array"
    return f"{kind} {tuple(picture.shape)} of {str(picture.dtype).removeprefix('torch.')}"


def _known_mode(image: "Image.Image") -> str:
    """Return the mode that a PIL image is converted to.

    Raises:
        TypeError: PIL does not convert it, or its values have no known range.
    """
    if image.mode not in _MODES:
        raise TypeError(f"got {_describe(image)}; {_SUPPORTED}")
    mode = _MODES[image.mode]
    if "transparency" in image.info:  # one colour is transparent, or palette entries are
        return {"L": "LA", "RGB": "RGBA"}.get(mode, mode)
    return mode


def _to_known_mode(image: "Image.Image") -> "Image.Image":
    mode = _known_mode(image)
    return image if mode in (image.mode, "I;16") else image.convert(mode)


def _to_pil(pixels: Pixels, like: "Image.Image") -> "Image.Image":
    image: Image.Image = sys.modules["PIL.Image"].fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    assert image.mode == _known_mode(like)
    if "icc_profile" in like.info and like.mode not in ("CMYK", "YCbCr", "HSV"):  # their profile is not one for RGB
        image.info["icc_profile"] = like.info["icc_profile"]
    return image


def _from_tensor(tensor: "torch.Tensor") -> list[npt.NDArray[Any]]:
    if tensor.ndim not in (3, 4) or tensor.shape[-3] not in (1, 2, 3, 4):
        raise TypeError(f"got {_describe(tensor)}; {_SUPPORTED}")
    if tensor.ndim == 4 and len(tensor) == 0:
        raise ValueError(f"a batch without pictures: {_describe(tensor)}")
    tensor = tensor.detach().cpu().resolve_neg()
    array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return [image.transpose(1, 2, 0) for image in (array if array.ndim == 4 else array[None])]


def _to_tensor(images: Sequence[Pixels], like: "torch.Tensor") -> "torch.Tensor":
    array = np.stack([image.transpose(2, 0, 1) for image in images])
    tensor: torch.Tensor = sys.modules["torch"].from_numpy(array if like.ndim == 4 else array[0])
    return tensor.to(like.device, like.dtype)
