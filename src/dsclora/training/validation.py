"""The pictures that choose the best weights, and the score of a network on them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from dsclora.networks.span_torch import uint8_function
from dsclora.pictures import metrics
from dsclora.pictures.arrays import Uint8
from dsclora.pictures.pairs import Pair, find_pairs, read_for_validation


@dataclass(frozen=True)
class ValidationSet:
    """Whole pictures, decoded, that score a network: mean PSNR, classic-y, as `Protocol.capped_psnr`.

    Attributes:
        pictures: (LR, HR), (h, w, 3) and (h * scale, w * scale, 3).
        scale: HR side over LR side.
        multiple: number that the network's input sides must divide by.
    """

    pictures: Sequence[tuple[Uint8, Uint8]]
    scale: int
    multiple: int = 1

    @classmethod
    def read(
        cls,
        pairs: Sequence[Pair] | Path,
        scale: int,
        multiple: int = 1,
        reduce: Callable[[Uint8, int], Uint8] | None = None,
        window: int | None = None,
    ) -> "ValidationSet":
        """Read pictures, or those of a folder; arguments as `read_for_validation`.

        Raises:
            ImageError: a picture cannot be read or is too small.
        """
        pairs = find_pairs(pairs, scale) if isinstance(pairs, Path) else pairs
        border = metrics.protocol("classic-y", scale).border
        return cls(list(read_for_validation(pairs, scale, border, reduce, window)), scale, multiple)

    def __len__(self) -> int:
        return len(self.pictures)

    def score(self, net: nn.Module) -> float:
        """Return the mean PSNR (dB) of a network as it is used: without ConvLoRA or Conv3XC."""
        run = picture_function(net, self.scale, self.multiple)
        return metrics.protocol("classic-y", self.scale).mean_capped_psnr(run, self.pictures)


def picture_function(net: nn.Module, scale: int, multiple: int = 1) -> Callable[[Uint8], Uint8]:
    """Return a function from LR (h, w, 3) to the network's picture (h * scale, w * scale, 3), for any size.

    Args:
        net: on the device to compute on.
        scale: the factor that it enlarges by.
        multiple: number that its input sides must divide by; pictures are continued by their edge, and cut again.
    """
    run = uint8_function(net)
    if multiple == 1:
        return run

    def padded(lr: Uint8) -> Uint8:
        height, width = lr.shape[:2]
        wide = np.pad(lr, ((0, -height % multiple), (0, -width % multiple), (0, 0)), "edge")
        return run(wide)[: height * scale, : width * scale]

    return padded
