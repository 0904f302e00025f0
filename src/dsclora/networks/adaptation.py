"""The result of an adaptation: an adapter, what it gains, and the files that were written."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsclora.networks.adapter import Adapter


@dataclass(frozen=True)
class Adaptation:
    """A finished adaptation and the files that it wrote.

    Attributes:
        adapter: the adapter with its best weights; its header holds the result.
        accepted: whether it beats the base beyond doubt on pictures that it was not trained on.
        gain: mean change of PSNR on them, dB.
        interval: the confidence interval of the gain, dB.
        path: the adapter's file: the one asked for, or NAME.rejected.safetensors.
        report: the page beside it.
        result: all figures, ready for JSON.
    """

    adapter: Adapter
    accepted: bool
    gain: float
    interval: tuple[float, float]
    path: Path
    report: Path
    result: dict[str, Any]
