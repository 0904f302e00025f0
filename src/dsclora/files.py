"""Write files whole or not at all."""

import os
import secrets
import stat
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
        if not overwrite:
            _check_free(path)
        if path.exists() and not path.is_file():
            raise OutputError(f"{path}: not a regular file")
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = stat.S_IMODE(path.stat().st_mode) if overwrite and path.exists() else 0o666
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode | stat.S_IWUSR))
    except OSError as error:
        raise _refused(path, error) from error
    try:
        yield temporary
        if overwrite:
            if path.exists():
                temporary.chmod(stat.S_IMODE(path.stat().st_mode))
            temporary.replace(path)
        else:
            _place(temporary, path)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _place(temporary: Path, path: Path) -> None:
    """Rename a file, but not over one that another process has written in the meantime."""
    try:
        os.link(temporary, path)
    except OSError:  # it exists, or the file system has no links
        _check_free(path)
        temporary.replace(path)


def _check_free(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise OutputError(f"{path}: exists already; choose another name or allow overwriting")


def _refused(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path}: cannot be written ({error.strerror or error})")
