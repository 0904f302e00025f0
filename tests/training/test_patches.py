"""The store of decoded pictures, and the patches that are cut from it."""

import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dsclora.errors import ImageError, OutputError
from dsclora.pictures.arrays import Uint8
from dsclora.pictures.pairs import find_pairs
from dsclora.pictures.read import read_rgb8
from dsclora.pictures.resize import imresize
from dsclora.training.patches import discard, open_store
from helpers import photo, save


def test_copies_of_a_picture_are_shown_to_the_teacher_once(pictures: Path, tmp_path: Path) -> None:
    inputs: list[Uint8] = []

    def double(lr: Uint8) -> Uint8:
        inputs.append(lr)
        return lr.repeat(2, 0).repeat(2, 1)

    def reduce(hr: Uint8, number: int) -> Uint8:
        return imresize(hr, 0.5) // (number + 1)

    pairs = find_pairs(pictures, 2)
    store = open_store(pairs, 2, tmp_path / "s", reduce=reduce, copies=3)
    store.add_teacher("t", double, undegraded=True)
    assert len(inputs) == len(pairs) == len(store) // 3
    assert all(np.array_equal(lr, imresize(store.hr(3 * n), 0.5)) for n, lr in enumerate(inputs)), (
        "not the degraded ones"
    )
    stored = np.fromfile(tmp_path / "s" / "teacher-t.u8", np.uint8)
    assert np.array_equal(stored, np.concatenate([double(lr).ravel() for lr in inputs[: len(pairs)] for _ in range(3)]))


def test_every_size_of_a_large_picture_has_a_teacher_and_a_degradation_of_its_own(tmp_path: Path) -> None:
    """Cut to the window they are equally large, as copies are."""
    save(tmp_path / "photos" / "large.png", photo(96, 96))
    numbers: list[int] = []

    def reduce(hr: Uint8, number: int) -> Uint8:
        numbers.append(number)
        return imresize(hr, 0.5) // 2

    pairs = find_pairs(tmp_path / "photos", 2)
    store = open_store(pairs, 2, tmp_path / "s", reduce=reduce, copies=2, window=32, sizes=[1.0, 0.5])
    assert numbers == [0, 1, 2, 3]
    store.add_teacher("t", lambda lr: lr.repeat(2, 0).repeat(2, 1), undegraded=True)
    taught = np.fromfile(tmp_path / "s" / "teacher-t.u8", np.uint8).reshape(4, 32, 32, 3)
    for number in range(4):
        assert np.array_equal(taught[number][::2, ::2], imresize(store.hr(number), 0.5))


def test_shares_make_up_the_batch(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    store = open_store(find_pairs(folders[0], 2), 2, tmp_path / "store")
    store.add_teacher("negative", lambda lr: 255 - lr.repeat(2, 0).repeat(2, 1))
    whole, parts = store.batch(3, 4, 6, 16), [store.batch(3, 4, 6, 16, (k, 3)) for k in range(3)]
    for field in ("lr", "hr", "teacher"):
        assert np.array_equal(np.concatenate([getattr(part, field) for part in parts]), getattr(whole, field))


def test_pictures_at_several_sizes(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    plain = open_store(find_pairs(folders[0], 2), 2, tmp_path / "plain")
    store = open_store(find_pairs(folders[0], 2), 2, tmp_path / "store", sizes=[1.0, 0.5])
    assert len(store) == 2 * len(plain)
    assert np.array_equal(store.hr(0), plain.hr(0))
    half = imresize(read_rgb8(find_pairs(folders[0], 2)[0].hr), 0.5)
    assert np.array_equal(store.hr(1), half[: half.shape[0] // 2 * 2, : half.shape[1] // 2 * 2])
    assert np.array_equal(store.lr(1), imresize(store.hr(1), 0.5))


def test_the_teacher_goes_on_where_it_was_interrupted(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    store = open_store(find_pairs(folders[0], 2), 2, tmp_path / "store")
    heights: list[int] = []

    def twice(lr: Uint8) -> Uint8:
        heights.append(lr.shape[0])
        if len(heights) == 3:
            raise KeyboardInterrupt
        return lr.repeat(2, 0).repeat(2, 1)

    with pytest.raises(KeyboardInterrupt):
        store.add_teacher("t", twice)
    (part,) = (tmp_path / "store").glob("*.part")
    part.write_bytes(part.read_bytes() + b"half a picture")
    store.add_teacher("t", twice)
    assert len(heights) == 4, "two pictures, the third in vain, and again"
    whole = np.concatenate([store.lr(n).repeat(2, 0).repeat(2, 1).ravel() for n in range(3)])
    assert np.array_equal(np.fromfile(tmp_path / "store" / "teacher-t.u8", np.uint8), whole)

    (tmp_path / "store" / "teacher-other.part").touch()
    discard(tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_disk_without_room_is_told_before_decoding(
    tmp_path: Path, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = find_pairs(folders[0], 2)
    store = open_store(pairs, 2, tmp_path / "a", sizes=[1.0, 0.5])
    size = sum((tmp_path / "a" / name).stat().st_size for name in ("lr.u8", "hr.u8"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0.9 * size))
    with pytest.raises(OutputError, match=r"the pictures take 0\.0 GB decoded, and 0\.0 GB are free"):
        open_store(pairs, 2, tmp_path / "b", sizes=[1.0, 0.5])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1.1 * size))
    open_store(pairs, 2, tmp_path / "b", sizes=[1.0, 0.5])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0.5 * size))
    with pytest.raises(OutputError, match="the teacher's pictures take"):
        store.add_teacher("t", lambda lr: lr.repeat(2, 0).repeat(2, 1))


def test_an_interrupted_store_is_made_anew(
    tmp_path: Path, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = open_store(find_pairs(folders[0], 2), 2, tmp_path / "store").hr(0).copy()
    save(folders[0] / "00.png", photo(50, 50, seed=5))

    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(logging.getLogger("dsclora"), "warning", kill)

    (folders[0] / "1x.png").write_bytes(b"no picture: is reported, and there the process dies")
    with pytest.raises(Killed):
        open_store(find_pairs(folders[0], 2), 2, tmp_path / "store")
    (folders[0] / "00.png").unlink()
    (folders[0] / "1x.png").unlink()
    assert np.array_equal(open_store(find_pairs(folders[0], 2), 2, tmp_path / "store").hr(0), whole)


def test_unreadable_pictures_are_named_and_left_out(
    tmp_path: Path, folders: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    (folders[0] / "broken.jpg").write_bytes(b"\xff\xd8 no")
    store = open_store(find_pairs(folders[0], 2), 2, tmp_path / "store")
    assert len(store) == 3
    assert any("broken.jpg" in line for line in caplog.messages)
    with pytest.raises(ImageError, match="no picture is 400 pixels"):
        store.batch(0, 0, 2, 200)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="no pictures"):
        find_pairs(tmp_path / "empty", 2)


def test_patches_depend_on_seed_and_step_alone_and_fit_together(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    store = open_store(find_pairs(folders[0], 2), 2, tmp_path / "store")
    store.add_teacher("double", lambda lr: lr.repeat(2, 0).repeat(2, 1))
    again = open_store(find_pairs(folders[0], 2), 2, tmp_path / "store")
    again.add_teacher("double", lambda lr: pytest.fail("the teacher's pictures are kept"))
    a, b, c = store.batch(1, 7, 4, 9), again.batch(1, 7, 4, 9), store.batch(1, 8, 4, 9)
    assert np.array_equal(a.hr, b.hr)
    assert not np.array_equal(a.hr, c.hr)
    assert a.lr.shape == (4, 3, 9, 9)
    assert a.hr.shape == (4, 3, 18, 18)
    assert a.teacher is not None
    assert np.array_equal(a.teacher, a.lr.repeat(2, 2).repeat(2, 3)), "LR and teacher are cut and turned alike"
    assert np.abs(a.hr[:, :, ::2, ::2].astype(int) - a.lr).mean() < 25
