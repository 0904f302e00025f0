"""Measure PSNR and SSIM by the protocols that the literature computes them by."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from dsclora.pictures.arrays import Uint8

Float = npt.NDArray[np.float64]


PSNR_CAP = 50.0
"""The PSNR in dB from which on differences cannot be seen: all pixels off by one level make 48."""

_STUDIO_Y = np.array([65.481, 128.553, 24.966]) / 255.0  # ITU-R BT.601, for RGB in 0..255


def luma(image: npt.NDArray[np.uint8]) -> Float:
    """Return the BT.601 studio-range Y (16..235), unrounded, of an RGB image.

    Args:
        image: (h, w, 3), uint8.

    Returns:
        (h, w), float64: `16 + (65.481 R + 128.553 G + 24.966 B) / 255`. White gives 235, black 16.
    """
    return np.asarray(image.astype(np.float64) @ _STUDIO_Y + 16.0)


def psnr(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Return the peak signal-to-noise ratio in dB for a peak of 255; infinite for equal inputs.

    `10 log10(255^2 / mean((a - b)^2))`, the mean over everything (for RGB, over the three channels together).
    """
    error = float(np.mean((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2))
    return float("inf") if error == 0 else float(10 * np.log10(255.0**2 / error))


def _blur(plane: Float) -> Float:
    """Blur a plane by a separable 11-tap Gaussian, sigma 1.5, only where the window fits ("valid")."""
    taps = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    taps /= taps.sum()
    rows = sum(t * plane[i : plane.shape[0] - 10 + i] for i, t in enumerate(taps))
    return np.asarray(sum(t * rows[:, i : rows.shape[1] - 10 + i] for i, t in enumerate(taps)))


def ssim(a: npt.NDArray[np.generic], b: npt.NDArray[np.generic]) -> float:
    """Return the structural similarity of two planes in 0..255 (Wang et al. 2004: 11x11 Gaussian, K1 0.01, K2 0.03).

    Args:
        a, b: (h, w) or (h, w, channels), any real dtype; channels are averaged.

    Returns:
        the mean of the SSIM map over windows that fit; NaN when a side is below 11 pixels.
    """
    if a.ndim == 3:
        return float(np.mean([ssim(a[..., c], b[..., c]) for c in range(a.shape[2])]))
    if min(a.shape) < 11:
        return float("nan")
    x, y = a.astype(np.float64), b.astype(np.float64)
    mean_x, mean_y = _blur(x), _blur(y)
    var_x = _blur(x * x) - mean_x**2
    var_y = _blur(y * y) - mean_y**2
    cov = _blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    top = (2 * mean_x * mean_y + c1) * (2 * cov + c2)
    return float(np.mean(top / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))))


@dataclass(frozen=True)
class Protocol:
    """The rules that a figure is computed by, printed with every figure, because they move it by up to 2 dB.

    Attributes:
        name: its name on the command line.
        channels: "y" (BT.601 studio range, float) or "rgb".
        border: pixels cut from each side before comparing.
    """

    name: str
    channels: Literal["y", "rgb"]
    border: int

    def describe(self) -> dict[str, object]:
        """Return all choices by name, for JSON reports."""
        return asdict(self) | {
            "psnr_peak": 255,
            "ssim_window": "gaussian 11x11, sigma 1.5, K1 0.01, K2 0.03, valid",
            "rounding": "network output clipped and rounded to uint8 first",
            "network_padding": "zero",
        }

    def score(self, sr: npt.NDArray[np.uint8], hr: npt.NDArray[np.uint8]) -> tuple[float, float]:
        """Return PSNR (dB) and SSIM of a super-resolved image against the original, both (h, w, 3) uint8."""
        x, y = self._planes(sr, hr)
        return psnr(x, y), ssim(x, y)

    def psnr(self, sr: npt.NDArray[np.uint8], hr: npt.NDArray[np.uint8]) -> float:
        """Return the PSNR (dB) alone."""
        return psnr(*self._planes(sr, hr))

    def capped_psnr(self, sr: npt.NDArray[np.uint8], hr: npt.NDArray[np.uint8]) -> float:
        """Return the PSNR (dB), at most `PSNR_CAP`, by which training chooses weights and judges adapters.

        PSNR has no upper end: one level off in a blank page costs more dB than a page of text can gain.
        """
        return min(PSNR_CAP, self.psnr(sr, hr))

    def mean_capped_psnr(self, run: Callable[[Uint8], Uint8], pictures: Iterable[tuple[Uint8, Uint8]]) -> float:
        """Return the mean capped PSNR (dB) of `run(lr)` against `hr` over pairs (lr, hr)."""
        return float(np.mean([self.capped_psnr(run(lr), hr) for lr, hr in pictures]))

    def _planes(
        self, sr: npt.NDArray[np.uint8], hr: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.generic]]:
        if sr.shape != hr.shape:
            raise ValueError(f"sizes differ: {sr.shape} and {hr.shape}")
        b = self.border
        if min(sr.shape[:2]) <= 2 * b:
            raise ValueError(f"{sr.shape[1]} x {sr.shape[0]} pixels leave nothing inside a border of {b}")
        inside = (slice(b, sr.shape[0] - b), slice(b, sr.shape[1] - b))
        if self.channels == "y":
            return luma(sr)[inside], luma(hr)[inside]
        return sr[inside], hr[inside]


def protocol(name: str, scale: int) -> Protocol:
    """Return the protocol of that name for a scale: "classic-y" (border = scale) or "ntire-rgb" (border 4).

    Raises:
        ValueError: unknown name.
    """
    if name == "classic-y":
        return Protocol(name, "y", scale)
    if name == "ntire-rgb":
        return Protocol(name, "rgb", 4)
    raise ValueError(f"unknown protocol {name!r}: choose classic-y or ntire-rgb")
