"""Teacher pictures: enlarged once and cached, or averaged over eight orientations."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dsclora.engines import Engine
from dsclora.networks.span import SpanNetwork
from dsclora.pictures.arrays import Pixels
from dsclora.pictures.resize import imresize

if TYPE_CHECKING:  # enlarging a picture starts without it
    from dsclora.training.patches import PairStore
from dsclora.inference.strips import enlarge


def enlarge_to_scale(
    engine: Engine, scale: int, lr: npt.NDArray[np.uint8], *, ensemble: bool = False
) -> npt.NDArray[np.uint8]:
    """What a teacher makes of a picture, reduced where its scale is larger than the one asked for.

    Args:
        engine: of that scale or a larger one.
        scale: asked for.
        lr: (h, w, 3).
        ensemble: the mean of eight orientations, `self_ensemble`.

    Returns:
        (h * scale, w * scale, 3).
    """
    if ensemble:
        return self_ensemble(partial(enlarge_to_scale, engine, scale), lr)
    made = enlarge(engine, lr, border="zero")
    if engine.scale > scale:
        made = imresize(made, scale / engine.scale)
    return made[: lr.shape[0] * scale, : lr.shape[1] * scale]  # 3 * (2 / 3) may be more than 2


def cache_outputs(
    store: "PairStore", teacher: SpanNetwork, engine: Engine, *, ensemble: bool = False, undegraded: bool = False
) -> None:
    """Let a teacher enlarge the pictures of a store, once.

    Args:
        store: as `PairStore.add_teacher`.
        teacher: of its scale or a larger one.
        engine: that runs it.
        ensemble: as `enlarge_by`.
        undegraded: as `PairStore.add_teacher`.
    """
    name = teacher.fingerprint[:16] + "-ensemble" * ensemble + "-undegraded" * undegraded
    store.add_teacher(name, partial(enlarge_to_scale, engine, store.scale, ensemble=ensemble), undegraded)


def self_ensemble(upscale: Callable[[Pixels], Pixels], pixels: Pixels) -> Pixels:
    """Enlarge a picture in its eight orientations and take the mean (geometric self-ensemble, Lim et al. 2017).

    Args:
        upscale: (h, w, bands) to (h * scale, w * scale, bands), uint8 or uint16.
        pixels: as `upscale` takes them.

    Returns:
        as `upscale` returns it, the mean of the eight rounded.
    """
    total: Any = 0
    for turns in range(8):
        turned = np.rot90(pixels[:, ::-1] if turns >= 4 else pixels, turns)
        back = np.rot90(upscale(np.ascontiguousarray(turned)), -turns)
        total = total + (back[:, ::-1] if turns >= 4 else back).astype(np.float32)
    mean: Pixels = np.rint(total / 8).astype(pixels.dtype)
    return mean
