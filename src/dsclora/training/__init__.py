"""Train networks and adapters; needs the extra `train` (`pip install 'dsclora[train]'`).

The packages of the extra are checked here and nowhere else, so that a half-installed extra names the package that is
missing, and an ImportError of our own modules stays visible as a bug.
"""

from importlib import import_module

from dsclora.errors import needs_extra

PACKAGES = ("torch", "pydantic", "scipy", "jinja2")
"""The packages of the extra that training imports; TensorBoard is used where it is there."""

with needs_extra("train", "training"):
    for _package in PACKAGES:
        import_module(_package)
