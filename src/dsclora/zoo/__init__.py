"""The files that come with the package: models and adapters with a card (Markdown) each, recipes, some pictures.

`index.json` says what the weights files hold, so that choosing one reads none (`scripts/zoo_index.py` writes it).
"""

import json
import os
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from dsclora.errors import ModelError, UsageError, did_you_mean
from dsclora.networks import Network, adapter, open_file, span

DEFAULT = "span-x4"
WIDE = "span-x4-wide"
"""The teacher of the bases of all scales: reduced to x2 and x3, its pictures are 0.17 and 0.32 dB better than those of
`span-x2` and `span-x3` (twenty photographs held out, at 0.6 of their size; better on 19 and on all of them)."""


def names() -> list[str]:
    """Return the names of the bundled models."""
    return sorted(_index()["models"])


def adapter_names() -> list[str]:
    """Return the names of the bundled adapters."""
    return sorted(_index()["adapters"])


def load(name: str) -> span.SpanNetwork:
    """Read a bundled model by name, or a model file by path.

    Raises:
        ModelError: no such file; or it is refused.
    """
    return span.read(_find(name, _folder(), "model", names()))


def open_network(name: str) -> Network:
    """Read a bundled model by name, or any file that holds a network (`networks.open_file`).

    Raises:
        ModelError: no such file; or it is refused.
        MissingExtraError: a `.pth` without torch installed.
    """
    return open_file(name) if Path(name).is_file() else load(name)


def load_adapter(name: str) -> adapter.Adapter:
    """Read a bundled adapter by name, or an adapter file by path.

    Raises:
        ModelError: no such file; or it is refused.
    """
    return adapter.read(_find(name, adapters(), "adapter", adapter_names()))


def is_adapter_name(name: str) -> bool:
    """Return whether a text is a bundled adapter's name, alone or with `:STRENGTH`."""
    return name.partition(":")[0] in adapter_names()


def parse_adapter(text: str) -> tuple[adapter.Adapter, float]:
    """Load an adapter with its strength: `NAME`, `FILE`, or one of them with `:STRENGTH`.

    Raises:
        UsageError: the strength is not a number, or absurd.
        ModelError: no such adapter; or the file is refused.
    """
    name, strength = text, 1.0
    head, colon, tail = text.rpartition(":")
    if colon and not os.path.exists(text):  # noqa: PTH110 (never raises)
        try:
            name, strength = head, float(tail)
        except ValueError as error:
            raise UsageError(f"an adapter is FILE or FILE:STRENGTH, not {text!r}") from error
        adapter.check_strength(strength, name)
    return load_adapter(name), strength


def split_adapter(
    name: str | None, added: Sequence[tuple[adapter.Adapter, float]] = ()
) -> tuple[str | None, list[tuple[adapter.Adapter, float]]]:
    """Put a bundled adapter that is named as the model before the others; its base is then named by none.

    Raises:
        UsageError, ModelError: as `parse_adapter`.
    """
    if name is not None and is_adapter_name(name):
        return None, [parse_adapter(name), *added]
    return name, list(added)


def load_adapted(
    name: str | None, added: Sequence[tuple[adapter.Adapter, float]] = (), factor: float | None = None
) -> Network:
    """Load a network with adapters merged in.

    Args:
        name: a bundled model's name or a model file; or a bundled adapter's name, which is added to its base first. By
            default the model that fits the adapters or the factor.
        added: adapters, each with its strength.
        factor: the factor of the enlargement, if it is known.

    Raises:
        UsageError, ModelError: as `parse_adapter`; the model is refused, or an adapter is of another base.
    """
    name, added = split_adapter(name, added)
    network = load(best_bundled(factor, added[0][0] if added else None) if name is None else name)
    return adapter.merge(network, added) if added else network


def adapters() -> Path:
    """Return the folder of the bundled adapters and their cards."""
    return _folder() / "adapters"


def file_of(name: str) -> Path:
    """Return the file of a bundled model or adapter."""
    folder = _folder() if name in names() else adapters()
    return folder / f"{name}.safetensors"


def purpose(name: str) -> str:
    """Return the use of a bundled adapter, in the first words of its card."""
    card = (adapters() / f"{name}.md").read_text(encoding="utf-8")
    match = re.search(r"^Adapter of `[^`]+` (for [^:.;]+)", card, re.MULTILINE)
    return match.group(1) if match else "as its card says"


def base_of(added: adapter.Adapter) -> str | None:
    """Return the name of the bundled model that an adapter fits, if there is one."""
    models = _index()["models"]
    return next((name for name, facts in models.items() if facts["sha256"] == added.base_sha256), None)


def best_bundled(factor: float | None = None, added: adapter.Adapter | None = None) -> str:
    """Return the name of the bundled model to take where none is named.

    Args:
        factor: the factor of the enlargement, if it is known: the smallest scale that reaches it is best and fastest.
        added: an adapter; the model must be its base.
    """
    if added is not None:
        base = base_of(added)
        if base is not None:
            return base
        factor = added.scale
    models = _index()["models"]
    able = [name for name in models if factor is not None and models[name]["scale"] >= factor]
    return min(able, key=lambda name: (models[name]["scale"], models[name]["parameters"]), default=DEFAULT)


def teacher_of(base: str) -> str | None:
    """Return the name of the bundled model that teaches a bundled base where no teacher is named, if there is one."""
    return WIDE if base in names() and base != WIDE else None


def adapt_recipe() -> Path:
    """Return the path of the recipe of `dsclora adapt`."""
    return _folder() / "adapt.toml"


def int8_recipe() -> Path:
    """Return the path of the recipe of `dsclora quantize`."""
    return _folder() / "int8.toml"


def recipes() -> Path:
    """Return the folder of the recipes that models and adapters were made by; in a checkout it lies at the root."""
    packaged = _folder() / "recipes"
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[3] / "recipes"


def general_pictures() -> Path:
    """Return the folder of photographs that show what an adaptation forgets; its README.md names their sources."""
    return _folder() / "general"


def _find(name: str, folder: Path, kind: str, bundled: list[str]) -> Path:
    if not name:
        raise UsageError(f"the name of a {kind} is empty; a variable that is not set?")
    if name in bundled:
        return folder / f"{name}.safetensors"
    path = Path(name)
    if os.path.exists(path) or path.suffix:  # noqa: PTH110 (never raises)
        return path
    for other, others in (("model", names()), ("adapter", adapter_names())):
        if name in others:
            raise ModelError(f"{name} is {'an' if other == 'adapter' else 'a'} {other}, where {kind} is asked for")
    near = did_you_mean(name.partition(":")[0], [*bundled, *names(), *adapter_names()])
    known = f"bundled: {', '.join(bundled)}" if bundled else "none is bundled"
    raise ModelError(f"no bundled {kind} is called {name!r}{near}, and no such file exists; {known}")


@cache
def _index() -> dict[str, dict[str, Any]]:
    """Return "models" and "adapters", each by name: see `scripts/zoo_index.py`."""
    index: dict[str, dict[str, Any]] = json.loads((_folder() / "index.json").read_text(encoding="utf-8"))
    return index


def _folder() -> Path:
    return Path(str(files(__package__)))
