"""What comes with the package: models and adapters with a card (Markdown) beside each, a recipe, some pictures."""

from importlib.resources import files
from pathlib import Path

from dsclora import adapter, weights
from dsclora.errors import ModelError

DEFAULT = "span-x4"


def names() -> list[str]:
    """Which models are bundled."""
    return sorted(path.stem for path in _folder().glob("*.safetensors"))


def adapter_names() -> list[str]:
    """Which adapters are bundled."""
    return sorted(path.stem for path in (_folder() / "adapters").glob("*.safetensors"))


def load(name: str) -> weights.Model:
    """A bundled model by name, or a model file by path.

    Raises:
        ModelError: neither; or the file is refused.
    """
    return weights.read(_find(name, _folder(), "model", names()))


def load_adapter(name: str) -> adapter.Adapter:
    """A bundled adapter by name, or an adapter file by path.

    Raises:
        ModelError: neither; or the file is refused.
    """
    return adapter.read(_find(name, _folder() / "adapters", "adapter", adapter_names()))


def adapt_recipe() -> Path:
    """The recipe of `dsclora adapt`."""
    return _folder() / "adapt.toml"


def general_pictures() -> Path:
    """Folder of photographs to see what an adaptation forgets; sources in its README.md."""
    return _folder() / "general"


def _find(name: str, folder: Path, kind: str, bundled: list[str]) -> Path:
    if name in bundled:
        return folder / f"{name}.safetensors"
    path = Path(name)
    if path.exists() or path.suffix:
        return path
    known = f"bundled: {', '.join(bundled)}" if bundled else "none is bundled"
    raise ModelError(f"no bundled {kind} is called {name!r}, and no such file exists; {known}")


def _folder() -> Path:
    return Path(str(files(__package__)))
