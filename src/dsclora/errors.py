"""The errors that dsclora raises on purpose.

    DscloraError                    something a user can put right; its text is one line that says how
    ├── ImageError                  a picture cannot be read: empty, truncated, not a picture, too large
    ├── OutputError                 a result cannot be written: exists already, unwritable, disk full
    ├── ModelError                  a weights file is refused: corrupt, not recognised, wrong scale
    ├── RecipeError                 a training recipe is refused: unknown key, value out of range
    ├── TrainingError               a run cannot go on: diverged, damaged checkpoint, other data than before
    ├── EngineError                 a runtime is missing on this machine or cannot run this model
    │   └── OutOfMemoryError             the runtime ran out of memory; a smaller tile may fit
    ├── MissingExtraError                an optional dependency is not installed
    └── UsageError                  arguments that contradict each other

Mistakes of the calling code (a wrong dtype, a wrong shape) are `ValueError`, never one of these.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class DscloraError(Exception):
    """The base of all: a problem outside the program, in one line with its remedy."""


class ImageError(DscloraError):
    """A picture that cannot be read."""


class OutputError(DscloraError):
    """A result that cannot be written."""


class ModelError(DscloraError):
    """A weights file that is refused."""


class RecipeError(DscloraError):
    """A training recipe that is refused."""


class TrainingError(DscloraError):
    """A training run that cannot go on."""


class EngineError(DscloraError):
    """A runtime that is missing or cannot run the model."""


class OutOfMemoryError(EngineError):
    """A batch that does not fit into the runtime's memory."""


class UsageError(DscloraError):
    """Arguments that contradict each other."""


class MissingExtraError(DscloraError):
    """An optional dependency that is not installed.

    Args:
        package: the package that cannot be imported.
        extra: the extra of dsclora that brings it.
        purpose: the task that needs it.
        install: the command that brings it, where no extra does.
    """

    def __init__(self, package: str, extra: str, purpose: str, install: str = "") -> None:
        spec = f"'dsclora[{extra}]'" if extra else "dsclora"
        super().__init__(f"{purpose} needs {package}, which is not installed: {install or f'pip install {spec}'}")


@contextmanager
def needs_extra(extra: str, purpose: str, install: str = "") -> Iterator[None]:
    """Turn a package that is missing within the block into the extra that brings it.

    A module of ours that is missing, or a package that is there but broken, stays what it is.

    Args:
        extra: the extra of dsclora.
        purpose: the task that needs it.
        install: the command that brings it, where no extra does.

    Raises:
        MissingExtraError: a package is not installed; names it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "dsclora"):
            raise
        raise MissingExtraError(package, extra, purpose, install) from error


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean ...?)` for a near miss of a known name, or nothing."""
    from difflib import get_close_matches  # imported only after a mistake

    near = get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""
