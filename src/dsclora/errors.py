"""Every error that dsclora raises on purpose.

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


class DscloraError(Exception):
    """Base of all: a problem outside the program, told in one line with its remedy."""


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
    """The runtime ran out of memory for this batch."""


class UsageError(DscloraError):
    """Arguments that contradict each other."""


class MissingExtraError(DscloraError):
    """An optional dependency is not installed.

    Args:
        package: what cannot be imported.
        extra: the extra of dsclora that brings it.
        purpose: what it is needed for.
        install: the command that brings it, where no extra does.
    """

    def __init__(self, package: str, extra: str, purpose: str, install: str = "") -> None:
        wanted = f"'dsclora[{extra}]'" if extra else "dsclora"
        super().__init__(f"{purpose} needs {package}, which is not installed: {install or f'pip install {wanted}'}")
