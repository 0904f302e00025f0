"""Which picture becomes which file: names, sizes, collisions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsclora.errors import ImageError, UsageError
from dsclora.inference.jobs import Job, Options, plan_jobs
from dsclora.inference.upscale import upscale_file
from dsclora.pictures.read import read_rgb8
from helpers import Nearest, photo, save

DEFAULTS = Options()


def planned(inputs: list[Any], output: Any = None, options: Options = DEFAULTS, suffix: str | None = None) -> list[str]:
    jobs, failed = plan_jobs([str(i) for i in inputs], output and Path(output), options, 4, suffix)
    assert not failed
    return [str(j.target) for j in jobs]


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "b.GIF", "d/c.png", "d/e/f.heic", "d/e/g.jfif"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    assert planned(["a.jpg"]) == ["a_x4.jpg"]
    assert planned(["a.jpg"], options=Options(scale=2.5)) == ["a_x2.5.jpg"]
    assert planned(["a.jpg"], options=Options(long_side=100)) == ["a_upscaled.jpg"]
    assert planned(["b.GIF"]) == ["b_x4.png"]
    assert planned(["a.jpg"], "out.webp") == ["out.webp"]
    assert planned(["a.jpg"], "out") == ["out/a.jpg"]
    assert planned(["a.jpg"], suffix=".avif") == ["a_x4.avif"]
    assert planned(["a.jpg", "b.GIF"], "out.x") == ["out.x/a.jpg", "out.x/b.png"]
    root = tmp_path.resolve()
    assert planned(["d"]) == [str(root / "d_x4" / n) for n in ("c.png", "e/f.png", "e/g.jpg")]
    assert planned(["d"], "out") == ["out/c.png", "out/e/f.png", "out/e/g.jpg"]
    assert planned(["*.jpg"], "out") == ["out/a.jpg"]
    assert planned(["**/*.png"], "out") == ["out/d/c.png"]
    (tmp_path / "[1].png").touch()
    assert planned(["[1].png"]) == ["[1]_x4.png"], "an existing file is not a pattern"
    (tmp_path / "d" / "out").mkdir()
    (tmp_path / "d" / "out" / "old.png").touch()
    assert "d/out/out/old.png" not in planned(["d"], "d/out"), "its own outputs are not inputs"
    assert len(planned(["d"], ".")) == 4, "a folder may be written beside itself"
    (tmp_path / "bare").touch()
    assert planned(["bare"], options=Options(scale=1.5)) == ["bare_x1.5.png"]
    for inputs, output in ((["a.jpg", "b.GIF"], "out.png"), (["d"], "out.png"), ([""], None)):
        with pytest.raises(UsageError):
            planned(inputs, output)
    with pytest.raises(UsageError, match="contradict"):
        planned(["a.jpg"], "out.png", suffix=".jpg")
    assert planned(["a.jpg"], "out.jpeg", suffix=".jpg") == ["out.jpeg"]


def test_what_an_input_becomes_is_no_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was interrupted is begun again with the same pattern."""
    monkeypatch.chdir(tmp_path)
    for name in ("p1.png", "p1_x4.png", "p2.png", "other_x4.png"):
        (tmp_path / name).touch()
    jobs, (skipped,) = plan_jobs(["*.png"], None, DEFAULTS, 4)
    assert [str(job.source) for job in jobs] == ["other_x4.png", "p1.png", "p2.png"]
    assert skipped.status == "skipped"
    assert "p1_x4.png: skipped, it is the output of p1.png" in skipped.notices[0]
    assert planned(["p1_x4.png"]) == ["p1_x4_x4.png"], "by itself it is"
    overwrite = replace(DEFAULTS, if_exists="overwrite")
    jobs, (refused,) = plan_jobs(["*.png"], None, overwrite, 4)
    assert [str(job.source) for job in jobs] == ["other_x4.png", "p1_x4.png", "p2.png"]
    assert refused.error == "p1.png: would replace p1_x4.png, an input; choose another --output"
    (tmp_path / "p2_x4.png").symlink_to(tmp_path / "p2.png")
    assert planned(["p2.png"]) == ["p2_x4.png"], "to be told that it exists"


def test_a_pattern_takes_every_picture_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d" / "sub").mkdir(parents=True)
    for name in ("d/a.png", "d/sub/b.png"):
        (tmp_path / name).touch()
    (tmp_path / "d" / "loop").symlink_to(tmp_path / "d")
    (tmp_path / "d" / "sub" / "a.png").symlink_to(tmp_path / "d" / "a.png")  # another name is another picture
    for pattern in ("d/**", "d/**/*.png", "d/**/"):
        assert planned([pattern], "out") == ["out/a.png", "out/sub/a.png", "out/sub/b.png"]


def test_inputs_that_name_nothing(tmp_path: Path) -> None:
    jobs, failed = plan_jobs([str(tmp_path / "none.png"), str(tmp_path), "no/*.png"], None, Options(), 4)
    assert jobs == []
    reasons = [f.error or "" for f in failed]
    assert "no such file" in reasons[0]
    assert "no pictures in it" in reasons[1]
    assert "no such file" in reasons[2]


def test_inputs_that_cannot_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.png", photo(9, 8))
    long = str(tmp_path / ("x" * 300 + ".png"))
    jobs, failed = plan_jobs([long, str(tmp_path / "a.png")], None, Options(), 4)
    assert [job.source.name for job in jobs] == ["a.png"]
    assert "cannot be read (File name too long)" in (failed[0].error or "")
    assert len(plan_jobs([long], tmp_path / "out.png", Options(), 4)[1]) == 1
    with pytest.raises(UsageError, match="nothing is beside it"):
        plan_jobs(["/"], None, Options(), 4)
    monkeypatch.setattr(
        "dsclora.inference.jobs.find_pictures", lambda _, unreadable: unreadable(ImageError("sub: closed")) or []
    )
    assert [f.error for f in plan_jobs([str(tmp_path)], None, Options(), 4)[1]] == ["sub: closed"]


def test_contradictions() -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        Options(scale=2, long_side=100)
    with pytest.raises(UsageError, match="at least 64"):
        Options(tile=32)
    with pytest.raises(UsageError, match="quality"):
        Options(quality=0)
    with pytest.raises(UsageError, match="positive"):
        Options(scale=float("nan"))
    with pytest.raises(UsageError, match="positive"):
        Options(fit=(0, 10))
    with pytest.raises(UsageError, match="enlarged 5 times; this model does 2"):
        Options(long_side=100).final_size(20, 10, 2)


def test_collisions_are_planned(tmp_path: Path) -> None:
    """So that any worker can do one job by itself, in any order."""
    one, two = save(tmp_path / "1" / "a.png", photo(9, 9)), save(tmp_path / "2" / "a.png", photo(11, 11))
    inputs, out = [str(one), str(two)], tmp_path / "out"
    for if_exists in ("error", "skip", "overwrite"):
        jobs, (refused,) = plan_jobs(inputs, out, Options(if_exists=if_exists), 2)
        assert jobs == [Job(one, out / "a.png")]
        assert refused.error == (
            f"{two}: would be written to {out / 'a.png'}, which is {one}'s output; "
            "run it apart with another --output, or use --if-exists rename"
        )
    rename = Options(if_exists="rename")
    save(out / "a-1.png", photo(5, 5))
    jobs, results = plan_jobs(inputs, out, rename, 2)
    assert results == []
    assert jobs == [Job(one, out / "a.png"), Job(two, out / "a-2.png")]
    for job in reversed(jobs):
        assert upscale_file(Nearest(), job, rename).target == job.target
    assert [read_rgb8(job.target).shape[0] for job in jobs] == [18, 22]
    assert read_rgb8(out / "a-1.png").shape[0] == 5
