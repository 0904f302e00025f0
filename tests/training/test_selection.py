"""What is judged by is never trained on, whatever the folders hold; what cannot be used is named."""

from pathlib import Path

import numpy as np
import pytest

from dsclora.errors import ImageError, RecipeError
from dsclora.pictures.pairs import Pair
from dsclora.training import selection
from dsclora.training.selection import find_selection
from helpers import photo, save
from helpers_training import recipe


def folder(path: Path, count: int, first: int = 0, side: int = 96) -> Path:
    for n in range(first, first + count):
        save(path / f"p{n}x.png", photo(side, side, seed=n))
    return path


def names(pairs: list[Pair]) -> set[str]:
    return {pair.name for pair in pairs}


def test_pictures_to_judge_by_are_not_trained_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = folder(tmp_path / "images", 8)
    save(tmp_path / "valid" / "crop.png", photo(96, 96, seed=3)[8:90, 4:88])
    folder(tmp_path / "valid", 3, first=20)
    parts = find_selection(recipe(), images, 2, valid=tmp_path / "valid")
    assert names(parts.train) == {f"p{n}x" for n in range(8)} - {"p3x"}
    assert names(parts.validation) == names(parts.test) == {"crop", "p20x", "p21x", "p22x"}
    assert parts.confidence == 0.99
    assert any("p3x" in line and "to judge by" in line for line in caplog.messages)
    assert any("99 %" in line for line in caplog.messages)
    with pytest.raises(ImageError, match="every picture shows"):
        find_selection(recipe(), images, 2, valid=images)


def test_few_pictures_to_judge_by_are_refused_before_training(tmp_path: Path) -> None:
    images = folder(tmp_path / "images", 5)
    with pytest.raises(ImageError, match=r"images: 5 different pictures .* --valid"):
        find_selection(recipe(), images, 2)
    with pytest.raises(ImageError, match="2 different pictures are too few to be certain"):
        find_selection(recipe(), images, 2, valid=folder(tmp_path / "valid", 2, first=9))


def test_many_pictures_to_judge_by_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(selection, "MOST_HELD_OUT", 5)
    images, valid = folder(tmp_path / "images", 2), folder(tmp_path / "valid", 12, first=20)
    parts = find_selection(recipe(), images, 2, valid=valid)
    assert len(parts.test) == 5
    assert names(parts.test) != {f"p{n}x" for n in range(20, 25)}, "not the first ones"
    assert parts == find_selection(recipe(), images, 2, valid=valid)
    assert any("5 of 12 pictures" in line for line in caplog.messages)


def test_of_many_large_pictures_the_middle_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes count, and copies where they are made."""
    monkeypatch.setattr(selection, "_STORE", 6 * 3 * 160**2)
    images = folder(tmp_path / "images", 6)
    assert find_selection(recipe(copies=4), images, 2).windows[0] == 160
    assert find_selection(recipe(sizes=[1.0, 0.8, 0.6, 0.5]), images, 2).windows[0] == 80
    degraded = recipe(copies=4, degrade=[{"kind": "jpeg", "strength": [50, 50]}])
    assert find_selection(degraded, images, 2).windows[0] == 80


def test_what_a_small_size_shows_of_a_picture_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The middle of a half-size picture is more of the original than the middle of the original."""
    monkeypatch.setattr(selection, "_STORE", 3 * 6 * 2 * 130**2)
    monkeypatch.setattr(selection, "WINDOW", 100)
    images = folder(tmp_path / "images", 6, side=400)
    save(tmp_path / "valid" / "edge.png", photo(400, 400, seed=2)[:, 70:150])  # outside 135 to 265, inside 70 to 330
    folder(tmp_path / "valid", 3, first=20)
    for size, trained in ((1.0, 6), (0.5, 5)):
        parts = find_selection(recipe(sizes=[1.0, size]), images, 2, valid=tmp_path / "valid")
        assert parts.windows[0] == 130
        assert len(parts.train) == trained


def test_series_too_large_to_hold_out_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = tmp_path / "images"
    for n in range(24):
        save(images / (f"scan1-{n}.png" if n < 10 else f"p{n}x.png"), photo(70, 70, seed=n))
    find_selection(recipe(), images, 2)
    assert any("10 pictures are of 1 series too large to hold out" in line for line in caplog.messages)
    assert any("by their names 24 pictures are of 15 series" in line for line in caplog.messages)
    caplog.clear()
    find_selection(recipe(holdout=0.5), images, 2)
    assert not any("too large to hold out" in line for line in caplog.messages)


def test_a_guard_has_nothing_of_the_images(tmp_path: Path) -> None:
    images, guard = folder(tmp_path / "images", 8), folder(tmp_path / "guard", 8, first=20)
    save(guard / "same.png", photo(96, 96, seed=2))
    parts = find_selection(recipe(), images, 2, guard=guard)
    assert names(parts.guard) | names(parts.other) == {f"p{n}x" for n in range(20, 28)}
    assert not names(parts.guard) & names(parts.other)


def test_enough_pictures_are_chosen_by_and_judged_by_apart(tmp_path: Path) -> None:
    parts = find_selection(recipe(), folder(tmp_path / "images", 40, side=70), 2)
    assert len(parts.train) == 32
    assert not names(parts.validation) & names(parts.test)
    assert len(set(parts.test_groups)) == len(parts.test) == 4
    assert parts.confidence == 0.95


def test_names_that_make_too_few_groups_are_not_believed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Pages of one episode to judge by, and photographs of three days: different pictures all the same."""
    images = folder(tmp_path / "images", 8)
    for n in range(8):
        save(tmp_path / "valid" / f"ep7_{n:03}.png", photo(96, 96, seed=40 + n))
        save(tmp_path / "phone" / f"IMG_2024010{n % 3}_1{n}3012.png", photo(96, 96, seed=40 + n))
    parts = find_selection(recipe(), images, 2, valid=tmp_path / "valid")
    assert len(set(parts.test_groups)) == 8
    assert any("names are too much alike" in line for line in caplog.messages)
    assert len(find_selection(recipe(), tmp_path / "phone", 2).train) == 4


def test_crops_of_one_guard_picture_are_one_draw_of_what_is_forgotten(tmp_path: Path) -> None:
    images = folder(tmp_path / "images", 8)
    for n in range(30):
        save(tmp_path / "guard" / f"{n // 3:04}_s{n % 3}.png", photo(96, 96, seed=50 + n))
    parts = find_selection(recipe(), images, 2, guard=tmp_path / "guard")
    groups = {pair.name: number for pair, number in zip(parts.other, parts.other_groups, strict=True)}
    assert len(groups) > len(set(groups.values())) > 1
    assert all((groups[a] == groups[b]) == (a[:4] == b[:4]) for a in groups for b in groups)


def test_what_cannot_be_used_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for n in range(9):
        hr = photo(96, 96, seed=n)
        save(tmp_path / "HR" / f"p{n}x.png", hr)
        save(tmp_path / "LRx2" / f"p{n}x.png", hr[::2, ::2])
    (tmp_path / "LRx2" / "p0x.png").write_bytes(b"no picture")
    save(tmp_path / "HR" / "p1x.png", np.zeros((4, 4, 3), np.uint8))
    save(tmp_path / "LRx2" / "p1x.png", np.zeros((2, 2, 3), np.uint8))
    save(tmp_path / "LRx2" / "p2x.png", np.zeros((20, 20, 3), np.uint8))
    parts = find_selection(recipe(), tmp_path, 2)
    assert len(names(parts.train) | names(parts.test)) == 6
    left_out = [line for line in caplog.messages if line.startswith("left out")]
    assert len(left_out) == 3
    assert "too small" in left_out[1]
    assert "another scale" in left_out[2]
    find_selection(recipe(), tmp_path, 3)
    assert any("has LRx2 but no LRx3" in line for line in caplog.messages)
    with pytest.raises(RecipeError, match="LR pictures of its own"):
        find_selection(recipe(degrade=[{"kind": "noise", "strength": (1, 2)}]), tmp_path, 2)
