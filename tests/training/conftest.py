"""Fixtures of the tests of training."""

import logging
from pathlib import Path

import pytest

from helpers import photo, save


@pytest.fixture(autouse=True)
def notices(caplog: pytest.LogCaptureFixture) -> None:
    """Let `caplog` see notices, not warnings alone."""
    caplog.set_level(logging.INFO, "dsclora")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of ten pictures that share nothing."""
    for n in range(10):
        save(tmp_path / "photos" / f"p{n}x.png", photo(64, 70, seed=n))
    return tmp_path / "photos"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Folders to train on and to validate on."""
    for n in range(3):
        save(tmp_path / "train" / f"{n}.png", photo(50 + n, 61, seed=n))
    save(tmp_path / "valid" / "v.png", photo(40, 40, seed=9))
    return tmp_path / "train", tmp_path / "valid"
