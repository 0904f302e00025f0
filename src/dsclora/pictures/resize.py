"""Resize uint8 images exactly as MATLAB's bicubic `imresize` does it.

The super-resolution literature makes its low-resolution images with it, so a PSNR is only comparable when the
LR image is the same to the last bit: Keys' cubic with a = -0.5, stretched by 1/scale when reducing (antialiasing),
edges replicated, rows first, and a rounding to uint8 between the two passes.
"""

import numpy as np
import numpy.typing as npt

_KERNEL_WIDTH = 4.0


def _cubic(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return Keys' cubic convolution kernel, a = -0.5 (Keys 1981, IEEE TASSP 29(6))."""
    x = np.abs(x)
    inner = 1.5 * x**3 - 2.5 * x**2 + 1.0
    outer = -0.5 * x**3 + 2.5 * x**2 - 4.0 * x + 2.0
    return np.where(x <= 1, inner, np.where(x <= 2, outer, 0.0))


def _taps(length: int, out_length: int, scale: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]:
    """Return weights (out_length, P), each row summing to 1, and the source positions (out_length, P)."""
    shrink = min(scale, 1.0)
    width = _KERNEL_WIDTH / shrink
    centre = (np.arange(1, out_length + 1)) / scale + 0.5 * (1 - 1 / scale)  # counted from 1
    left = np.floor(centre - width / 2)
    positions = left[:, None] + np.arange(int(np.ceil(width)) + 2)
    weights = shrink * _cubic(shrink * (centre[:, None] - positions))
    weights /= weights.sum(axis=1, keepdims=True)
    return weights, np.clip(positions.astype(np.intp) - 1, 0, length - 1)


def _resize_rows(image: npt.NDArray[np.uint8], out_length: int, scale: float) -> npt.NDArray[np.uint8]:
    weights, positions = _taps(image.shape[0], out_length, scale)
    total = np.zeros((out_length, *image.shape[1:]))
    for tap in np.flatnonzero(weights.any(axis=0)):
        column = weights[:, tap].reshape(-1, *([1] * (image.ndim - 1)))
        total += column * image[positions[:, tap]]
    return np.clip(np.floor(total + 0.5), 0, 255).astype(np.uint8)


def imresize(image: npt.NDArray[np.uint8], scale: float) -> npt.NDArray[np.uint8]:
    """Resize by `scale` as MATLAB's `imresize(image, scale)` does.

    Args:
        image: (h, w) or (h, w, channels), uint8.
        scale: factor > 0; 1/4 makes the LR image of a x4 benchmark.

    Returns:
        (ceil(h * scale), ceil(w * scale)) with the same channels, uint8.

    Raises:
        ValueError: the image is not uint8 with 2 or 3 axes, or scale is not positive.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise ValueError(f"expected uint8 (h, w[, c]), got {image.dtype} {image.shape}")
    if scale <= 0:
        raise ValueError(f"scale must be positive, got {scale}")
    height, width = (int(np.ceil(n * scale)) for n in image.shape[:2])
    rows = _resize_rows(image, height, scale)
    return np.ascontiguousarray(np.swapaxes(_resize_rows(np.swapaxes(rows, 0, 1), width, scale), 0, 1))


def crop_to_multiple(image: npt.NDArray[np.uint8], scale: int) -> npt.NDArray[np.uint8]:
    """Cut the bottom and right so that both sides divide by `scale` ("modcrop" in the literature)."""
    height, width = (n - n % scale for n in image.shape[:2])
    return image[:height, :width]
