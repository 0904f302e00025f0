"""Models that come with the package: safetensors files and a card (Markdown) beside each."""

from importlib.resources import files
from pathlib import Path

from dsclora import weights
from dsclora.errors import ModelError

DEFAULT = "span-x4"


def names() -> list[str]:
    """What is bundled."""
    return sorted(path.stem for path in _folder().glob("*.safetensors"))


def load(name: str) -> weights.Model:
    """A bundled model by name, or a model file by path.

    Raises:
        ModelError: neither; or the file is refused.
    """
    if name in names():
        return weights.read(_folder() / f"{name}.safetensors")
    path = Path(name)
    if path.exists() or path.suffix:
        return weights.read(path)
    raise ModelError(f"no bundled model is called {name!r}, and no such file exists; bundled: {', '.join(names())}")


def _folder() -> Path:
    return Path(str(files(__package__)))
