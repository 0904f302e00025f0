"""Degradation chains: how LR pictures are made from HR ones when they are not plainly reduced."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyvips

from dsclora.recipes import Degradation
from dsclora.resize import imresize

Uint8 = npt.NDArray[np.uint8]


def fixed(chain: Sequence[Degradation], at: float = 0.5) -> list[Degradation]:
    """A chain without chance, for tests: every step is taken, every strength at one place between its ends (0 to 1)."""
    steps = []
    for step in chain:
        low, high = step.strength
        strength = low + at * (high - low)
        steps.append(step.model_copy(update={"strength": (strength, strength), "probability": 1.0}))
    return steps


def degrade(hr: Uint8, scale: int, chain: Sequence[Degradation], random: np.random.Generator) -> Uint8:
    """An LR picture by a chain of steps, each of a strength drawn anew, rounded to uint8 after every step.

    Args:
        hr: (h * scale, w * scale, 3).
        scale: HR side over LR side.
        chain: blur, noise and jpeg in any order; "downscale" says where in the chain the picture is reduced, by
            MATLAB's bicubic. A chain without it begins with it.
        random: of the strengths, of which steps are taken, and of the noise.

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
