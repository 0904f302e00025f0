"""Writing whole or not at all."""

import os
import stat
from pathlib import Path

import pytest

from dsclora import files
from dsclora.errors import OutputError


def test_what_another_makes_in_the_meantime_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"

    def write() -> None:
        with files.replacing(path, overwrite=False) as temporary:
            temporary.write_text("ours")
            path.write_text("theirs")

    with pytest.raises(OutputError, match="exists already"):
        write()
    assert path.read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "a.txt"
    with files.replacing(path, overwrite=False) as temporary:
        temporary.write_text("ours")
    assert path.read_text() == "ours"
    with pytest.raises(OutputError, match="exists already"), files.replacing(path, overwrite=False):
        pass
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_replaced_keeps_its_mode_and_must_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "private.txt"
    path.touch(mode=0o600)
    with files.replacing(path, overwrite=True) as temporary:
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600, "while it is written too"
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="not a regular file"), files.replacing(tmp_path / "pipe", overwrite=True):
        pass
