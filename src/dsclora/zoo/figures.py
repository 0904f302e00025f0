"""Measured figures of the bundled adapters, as the README and the cards print them."""

import json
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True)
class Figures:
    """PSNR on the Y channel in dB, the mean over pictures, at strength 1.

    Attributes:
        on: the damaged pictures that `before` and `after` were measured on.
        before: the PSNR of the base.
        after: the PSNR of the base with the adapter.
        clean: the change of the PSNR on clean photographs, Set14.
    """

    on: str
    before: float
    after: float
    clean: float

    @property
    def gain(self) -> float:
        """The gain in dB: `after` minus `before`."""
        return self.after - self.before


def load_figures() -> dict[str, Figures]:
    """Load the figures by an adapter's name; one that is measured otherwise (int8) has none."""
    content = (files(__package__) / "figures.json").read_text(encoding="utf-8")
    return {name: Figures(**row) for name, row in json.loads(content).items()}
