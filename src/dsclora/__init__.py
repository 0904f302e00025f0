"""Lightweight image networks, made better without making them slower, and run anywhere.

    import dsclora

    model = dsclora.load("span-x4")
    large = model(picture)  # an array, a PIL image or a tensor: the same kind comes back

The names below are the public interface; they are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dsclora.api import (
        Scores,
        adapt,
        attach,
        evaluate,
        export,
        load,
        load_adapter,
        upscale,
    )
    from dsclora.engines import Engine
    from dsclora.errors import (
        DscloraError,
        EngineError,
        ImageError,
        MissingExtraError,
        ModelError,
        OutOfMemoryError,
        OutputError,
        RecipeError,
        TrainingError,
        UsageError,
    )
    from dsclora.exports.base import Report
    from dsclora.inference.jobs import Options, Result
    from dsclora.inference.model import Model
    from dsclora.networks import Network
    from dsclora.networks.adaptation import Adaptation
    from dsclora.networks.adapter import Adapter

__version__ = "0.1.0"

__all__ = [
    "Adaptation",
    "Adapter",
    "DscloraError",
    "Engine",
    "EngineError",
    "ImageError",
    "MissingExtraError",
    "Model",
    "ModelError",
    "Network",
    "Options",
    "OutOfMemoryError",
    "OutputError",
    "RecipeError",
    "Report",
    "Result",
    "Scores",
    "TrainingError",
    "UsageError",
    "adapt",
    "attach",
    "evaluate",
    "export",
    "load",
    "load_adapter",
    "upscale",
]

_HOMES = {
    "Adaptation": "networks.adaptation",
    "Adapter": "networks.adapter",
    "Engine": "engines",
    "Model": "inference.model",
    "Network": "networks",
    "Options": "inference.jobs",
    "Report": "exports.base",
    "Result": "inference.jobs",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `import dsclora` alone loads nothing."""
    if name not in __all__:
        raise AttributeError(f"module 'dsclora' has no attribute {name!r}")
    home = _HOMES.get(name, "errors" if name.endswith("Error") else "api")
    value = getattr(import_module(f"dsclora.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
