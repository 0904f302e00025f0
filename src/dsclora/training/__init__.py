"""Train networks and adapters; needs the extra `train` (`pip install 'dsclora[train]'`).

What the extra brings is asked for here and nowhere else, so that a half-installed one names the package that is
missing, and an ImportError of our own modules is what it is: a bug.
"""

from importlib import import_module

from dsclora.errors import MissingExtraError

PACKAGES = ("torch", "pydantic", "scipy", "jinja2")
"""What training imports of the extra; TensorBoard is used where it is there."""

for _package in PACKAGES:
    try:
        import_module(_package)
    except ImportError as error:  # of the package, or of one that it needs in turn
        _missing = (error.name or _package).partition(".")[0]
        raise MissingExtraError(_missing, "train", "training") from error
