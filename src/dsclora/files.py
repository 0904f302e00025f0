"""Writing files whole or not at all."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dsclora.errors import OutputError


@contextmanager
def replacing(path: Path, overwrite: bool) -> Iterator[Path]:
    """Give a temporary file in the target's folder, and rename it to the target if the block succeeds.

    Args:
        path: target; its folder is made if needed.
        overwrite: whether an existing file may be replaced.

    Yields:
        the temporary file, empty. It is removed if the block fails.

    Raises:
        OutputError: the target exists and `overwrite` is false, or the folder or disk refuses it.
    """
    temporary = path.with_name(f".{path.stem[:40]}.{secrets.token_hex(4)}.part")
    try:
        if path.is_dir():
            raise OutputError(f"{path}: is a folder")
        if (path.exists() or path.is_symlink()) and not overwrite:
            raise OutputError(f"{path}: exists already; choose another name or allow overwriting")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise _refused(path, error) from error
    try:
        yield temporary
        if not overwrite and (path.exists() or path.is_symlink()):  # made by another in the meantime
            raise OutputError(f"{path}: exists already; choose another name or allow overwriting")
        temporary.replace(path)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _refused(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path}: cannot be written ({error.strerror or error})")
