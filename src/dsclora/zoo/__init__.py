"""What comes with the package: models and adapters with a card (Markdown) beside each, a recipe, some pictures."""

import os
import re
from importlib.resources import files
from pathlib import Path

from dsclora.errors import ModelError, did_you_mean
from dsclora.networks import adapter, span

DEFAULT = "span-x4"
WIDE = "span-x4-wide"
"""Teaches the bases of all scales: reduced to x2 and x3, its pictures are 0.17 and 0.32 dB better than those of
`span-x2` and `span-x3` (twenty photographs held out, at 0.6 of their size; better on 19 and on all of them)."""


def names() -> list[str]:
    """Which models are bundled."""
    return sorted(path.stem for path in _folder().glob("*.safetensors"))


def adapter_names() -> list[str]:
    """Which adapters are bundled."""
    return sorted(path.stem for path in adapters().glob("*.safetensors"))


def load(name: str) -> span.SpanNetwork:
    """A bundled model by name, or a model file by path.

    Raises:
        ModelError: neither; or the file is refused.
    """
    return span.read(_find(name, _folder(), "model", names()))


def load_adapter(name: str) -> adapter.Adapter:
    """A bundled adapter by name, or an adapter file by path.

    Raises:
        ModelError: neither; or the file is refused.
    """
    return adapter.read(_find(name, adapters(), "adapter", adapter_names()))


def adapters() -> Path:
    """Folder of the bundled adapters and their cards."""
    return _folder() / "adapters"


def file_of(name: str) -> Path:
    """Return the file of a bundled model or adapter."""
    folder = _folder() if name in names() else adapters()
    return folder / f"{name}.safetensors"


def purpose(name: str) -> str:
    """What a bundled adapter is for, in the first words of its card."""
    card = (adapters() / f"{name}.md").read_text(encoding="utf-8")
    said = re.search(r"^Adapter of `[^`]+` (for [^:.;]+)", card, re.MULTILINE)
    return said.group(1) if said else "as its card says"


def suited(factor: float | None = None, added: adapter.Adapter | None = None) -> str:
    """Name of the bundled model to take where none is named.

    Args:
        factor: of the enlargement, if it is known: the smallest scale that reaches it is best and fastest.
        added: an adapter, whose base it is to be.
    """
    if added is not None:
        bases = [name for name in names() if load(name).sha256 == added.base_sha256]
        if bases:
            return bases[0]
        factor = added.scale
    scales = (scale for scale in range(1, 9) if factor is not None and scale >= factor)
    return next((f"span-x{scale}" for scale in scales if f"span-x{scale}" in names()), DEFAULT)


def teacher_of(base: str) -> str | None:
    """Name of the bundled model that teaches a bundled base where no teacher is named, if there is one."""
    return WIDE if base in names() and base != WIDE else None


def adapt_recipe() -> Path:
    """The recipe of `dsclora adapt`."""
    return _folder() / "adapt.toml"


def int8_recipe() -> Path:
    """The recipe of `dsclora quantize`."""
    return _folder() / "int8.toml"


def general_pictures() -> Path:
    """Folder of photographs to see what an adaptation forgets; sources in its README.md."""
    return _folder() / "general"


def _find(name: str, folder: Path, kind: str, bundled: list[str]) -> Path:
    if name in bundled:
        return folder / f"{name}.safetensors"
    path = Path(name)
    if os.path.exists(path) or path.suffix:  # noqa: PTH110 (never raises)
        return path
    near = did_you_mean(name.partition(":")[0], [*bundled, *names(), *adapter_names()])
    known = f"bundled: {', '.join(bundled)}" if bundled else "none is bundled"
    raise ModelError(f"no bundled {kind} is called {name!r}{near}, and no such file exists; {known}")


def _folder() -> Path:
    return Path(str(files(__package__)))
