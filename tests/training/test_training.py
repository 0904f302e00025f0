"""The extra `train`: what is missing of it is named, and nothing else is taken for it."""

import subprocess
import sys

import pytest

from dsclora.training import PACKAGES


def run_without(module: str) -> str:
    """Start an adaptation where a module cannot be imported; the last line on stderr."""
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "sys.argv = ['dsclora', 'adapt', 'nowhere', '-o', 'x.safetensors']\n"
        "from dsclora.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_a_missing_package_is_named(package: str) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from dsclora.errors import MissingExtraError\n"
        "try:\n    import dsclora.training.adapt\nexcept MissingExtraError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = f"training needs {package}, which is not installed: pip install 'dsclora[train]'"
    assert done.stdout.strip() == expected


@pytest.mark.slow
def test_a_module_of_ours_that_is_broken_is_a_bug() -> None:
    line = run_without("dsclora.training.losses")
    assert "internal error" in line
    assert "dsclora.training.losses" in line
    assert "pip install" not in line
