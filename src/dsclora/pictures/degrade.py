"""Degrade pictures by chains of steps: LR pictures that are not plainly reduced HR ones."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyvips

from dsclora.pictures.arrays import Uint8
from dsclora.pictures.resize import imresize


@dataclass(frozen=True)
class Degradation:
    """A step on the way from HR to LR.

    Attributes:
        kind: "blur" (Gaussian), "noise" (Gaussian, independent per pixel and channel), "jpeg", or "downscale": where in
            the chain the picture is reduced; at most once, and first where it is not named.
        strength: smallest and largest: sigma in pixels, sigma in levels of 255, JPEG quality; drawn evenly for every
            picture.
        probability: the chance that the step is taken, drawn for every picture. Below 1 the network also learns to
            leave clean pictures alone.
    """

    kind: Literal["blur", "noise", "jpeg", "downscale"]
    strength: tuple[float, float] = (0.0, 0.0)
    probability: float = 1.0

    __pydantic_config__ = {"extra": "forbid", "allow_inf_nan": False}  # noqa: RUF012 (how recipes read it)

    def __post_init__(self) -> None:
        """Refuse strengths and probabilities that make no sense.

        Raises:
            ValueError: says which and why.
        """
        low, high = self.strength
        if not 0 <= low <= high <= 255 or (self.kind == "jpeg" and not 1 <= low <= high <= 100):
            raise ValueError(f"strength: {low:g} to {high:g} is no range for {self.kind}")
        if not 0 < self.probability <= 1:
            raise ValueError(f"probability: {self.probability:g} is not above 0 and at most 1")
        if self.kind == "downscale" and self.probability < 1:
            raise ValueError("probability: the reduction is always taken")


def without_chance(chain: Sequence[Degradation], at: float = 0.5) -> list[Degradation]:
    """Return a chain that always does the same, for measuring.

    Args:
        chain: the steps; all are taken.
        at: every strength, from 0 for its lower end to 1 for its upper one.
    """
    steps = []
    for step in chain:
        low, high = step.strength
        strength = low + at * (high - low)
        steps.append(replace(step, strength=(strength, strength), probability=1.0))
    return steps


def degrade(hr: Uint8, scale: int, chain: Sequence[Degradation], random: np.random.Generator) -> Uint8:
    """Make an LR picture by a chain of steps, each of a strength drawn anew, rounded to uint8 after every step.

    Args:
        hr: (h * scale, w * scale, 3).
        scale: HR side over LR side.
        chain: blur, noise and jpeg in any order; "downscale" says where in the chain the picture is reduced, by
            MATLAB's bicubic. A chain without it begins with it.
        random: the source of the strengths, of the choice of steps, and of the noise.

    Returns:
        (h, w, 3).
    """
    picture = hr
    if not any(step.kind == "downscale" for step in chain):
        picture = imresize(picture, 1 / scale)
    for step in chain:
        strength = random.uniform(*step.strength)
        if step.kind == "downscale":
            picture = imresize(picture, 1 / scale)
        elif step.probability < 1 and random.random() >= step.probability:
            continue
        elif step.kind == "noise":
            noisy = picture + random.normal(0, strength, picture.shape)
            picture = noisy.round().clip(0, 255).astype(np.uint8)
        elif strength:
            image = pyvips.Image.new_from_array(np.ascontiguousarray(picture), interpretation="srgb")
            if step.kind == "blur":
                image = image.gaussblur(strength, min_ampl=0.005, precision="float").rint().cast("uchar")
            else:
                image = pyvips.Image.jpegload_buffer(image.jpegsave_buffer(Q=round(strength)))
            picture = image.numpy()
    return picture
