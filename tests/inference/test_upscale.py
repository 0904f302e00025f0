"""From files to files: sizes, failures, memory."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import pyvips

from dsclora.errors import ImageError, OutOfMemoryError, OutputError
from dsclora.inference.jobs import IfExists, Job, Options, Result, plan_jobs, separate_targets
from dsclora.inference.upscale import upscale_file, upscale_files, upscale_picture
from dsclora.pictures.read import read_rgb8
from helpers import ROOT, Global, Nearest, photo, save

DEFAULTS = Options()


def run(jobs: list[Job], options: Options = DEFAULTS, engine: Any = None) -> list[Result]:
    """The results of jobs whose targets may collide, in their order."""
    separate, failures = separate_targets(jobs, options.if_exists)
    results = [*failures, *upscale_files([engine or Nearest()], separate, options)]
    order = {job.source: number for number, job in enumerate(jobs)}
    return sorted(results, key=lambda result: order[result.source])


def test_several_at_once_are_as_one_after_the_other(tmp_path: Path) -> None:
    sources = [save(tmp_path / f"{n}.png", photo(20 + 30 * (n % 3), 40, seed=n)) for n in range(7)]
    sources[3].write_bytes(b"no picture")

    def results(folder: str, count: int) -> list[Any]:
        jobs = [Job(s, tmp_path / folder / s.name) for s in sources]
        outcomes = upscale_files([Nearest() for _ in range(count)], jobs, DEFAULTS)
        return [(r.source, r.target and r.target.name, r.status, (r.error or "").replace(folder, "")) for r in outcomes]

    assert results("alone", 1) == results("together", 3)
    for path in (tmp_path / "alone").iterdir():
        assert (tmp_path / "together" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("options", "size"),
    [
        (Options(), (60, 40)),
        (Options(scale=1.5), (45, 30)),
        (Options(scale=0.5), (15, 10)),
        (Options(fit=(50, 50)), (50, 33)),
        (Options(fit=(100, 30)), (45, 30)),
        (Options(long_side=47), (47, 31)),
    ],
)
def test_sizes(tmp_path: Path, options: Options, size: tuple[int, int]) -> None:
    source = save(tmp_path / "in.png", photo(20, 30))
    result = upscale_file(Nearest(), Job(source, tmp_path / "out.png"), options)
    assert result.output_size == size
    image = pyvips.Image.new_from_file(str(tmp_path / "out.png"))
    assert (image.width, image.height) == size


def test_if_exists(tmp_path: Path) -> None:
    source = save(tmp_path / "in.png", photo(20, 30))
    job = Job(source, tmp_path / "out.png")
    job.target.write_bytes(b"mine")
    (failed,) = run([job])
    assert failed.status == "failed"
    assert "--if-exists" in (failed.error or "")
    (skipped,) = run([job], Options(if_exists="skip"))
    assert skipped.status == "skipped"
    assert job.target.read_bytes() == b"mine"
    for number in (1, 2):
        (renamed,) = run([job], Options(if_exists="rename"))
        assert renamed.target == tmp_path / f"out-{number}.png"
    assert job.target.read_bytes() == b"mine"
    (done,) = run([job], Options(if_exists="overwrite"))
    assert done.status == "done"
    assert pyvips.Image.new_from_file(str(job.target)).width == 60
    (itself,) = run([Job(source, source)], Options(if_exists="overwrite"))
    assert "an input" in (itself.error or "")
    with pytest.raises(OutputError, match="input itself"):
        upscale_file(Nearest(), Job(source, source), Options(if_exists="overwrite"))


def test_one_bad_picture_does_not_stop_the_others(tmp_path: Path) -> None:
    good = [save(tmp_path / f"{n}.png", photo(20, 30)) for n in "ac"]
    bad = tmp_path / "b.png"
    bad.write_bytes(good[0].read_bytes()[:300])
    jobs = [Job(p, tmp_path / "out" / p.name) for p in (good[0], bad, good[1])]
    results = run(jobs)
    assert [r.status for r in results] == ["done", "failed", "done"]
    assert str(bad) in (results[1].error or "")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]


def test_one_target_for_two_inputs(tmp_path: Path) -> None:
    first, second = save(tmp_path / "1" / "a.png", photo(9, 9)), save(tmp_path / "2" / "a.png", photo(11, 11))
    jobs = [Job(p, tmp_path / "out" / "a.png") for p in (first, second)]
    for if_exists in ("error", "skip", "overwrite"):
        (tmp_path / "out" / "a.png").unlink(missing_ok=True)
        results = run(jobs, Options(if_exists=if_exists))
        assert [r.status for r in results] == ["done", "failed"]
        assert str(first) in (results[1].error or "")
        assert pyvips.Image.new_from_file(str(tmp_path / "out" / "a.png")).width == 18
    results = run(jobs, Options(if_exists="rename"))
    assert len({r.target for r in results if r.status == "done"}) == 2


def test_an_input_is_never_replaced_by_the_output_of_another(tmp_path: Path) -> None:
    gif, png = save(tmp_path / "a.gif", photo(9, 9)), save(tmp_path / "a.png", photo(9, 9, seed=1))
    before = png.read_bytes()
    results = run([Job(gif, png), Job(png, tmp_path / "out.png")], Options(if_exists="overwrite"))
    assert [r.status for r in results] == ["failed", "done"]
    assert "an input" in (results[0].error or "")
    assert png.read_bytes() == before


def test_who_gets_a_target_is_planned_whatever_becomes_of_it(tmp_path: Path) -> None:
    """Or it would hang on the order in which workers finish."""
    bad = tmp_path / "a.gif"
    bad.write_bytes(b"GIF89a")
    good = save(tmp_path / "a.png", photo(9, 9))
    results = run([Job(p, tmp_path / "out" / "a.png") for p in (bad, good)])
    assert [r.status for r in results] == ["failed", "failed"]
    assert f"which is {bad}'s output" in (results[1].error or "")
    assert not (tmp_path / "out" / "a.png").exists()


def test_a_target_that_came_to_be_after_planning_is_safe(tmp_path: Path) -> None:
    source = save(tmp_path / "a.png", photo(9, 9))
    expected: dict[IfExists, str] = {"error": "failed", "skip": "skipped", "rename": "done"}
    for if_exists, status in expected.items():
        options = Options(if_exists=if_exists)
        target = tmp_path / if_exists / "a.png"
        (job,), _ = plan_jobs([str(source)], target.parent, options, 2)
        target.parent.mkdir()
        target.write_bytes(b"mine")
        (result,) = upscale_files([Nearest()], [job], options)
        assert result.status == status
        assert target.read_bytes() == b"mine"
        assert (target.parent / "a-1.png").exists() == (if_exists == "rename")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_from_memory_to_memory_as_from_file_to_file(tmp_path: Path, suffix: str) -> None:
    source = save(tmp_path / "in.webp", photo(90, 70, 4))
    options = Options(scale=1.5, tile=64, quality=80, strip_metadata=True)
    upscale_file(Nearest(), Job(source, tmp_path / f"out{suffix}"), options)
    content = upscale_picture(Nearest(), source.read_bytes(), options, suffix)
    assert content == (tmp_path / f"out{suffix}").read_bytes()
    with pytest.raises(ImageError, match=r"^the picture: "):
        upscale_picture(Nearest(), b"no picture", options)
    with pytest.raises(OutputError, match=r"^the result: cannot write \.bmp"):
        upscale_picture(Nearest(), source.read_bytes(), options, ".bmp")


def test_an_interruption_leaves_what_is_finished(tmp_path: Path) -> None:
    jobs = [Job(save(tmp_path / f"{n}.png", photo(9, 9)), tmp_path / "out" / f"{n}.png") for n in range(6)]

    def report(number: int, done: int, total: int) -> None:
        if number >= 2:
            raise KeyboardInterrupt

    results: list[Result] = []
    with pytest.raises(KeyboardInterrupt):
        results.extend(upscale_files([Nearest()], jobs, DEFAULTS, report))
    assert [(r.source.stem, r.status) for r in results] == [("0", "done"), ("1", "done")]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "1.png"]


def test_two_spellings_of_one_target(tmp_path: Path) -> None:
    first, second = save(tmp_path / "1.png", photo(9, 9)), save(tmp_path / "2.png", photo(9, 9))
    jobs = [Job(first, tmp_path / "x.png"), Job(second, tmp_path / "d" / ".." / "x.png")]
    (tmp_path / "d").mkdir()
    assert [r.status for r in run(jobs, Options(if_exists="overwrite"))] == ["done", "failed"]


def test_whatever_goes_wrong_with_one_picture_the_next_is_done(tmp_path: Path) -> None:
    class Broken(Nearest):
        def __call__(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
            if batch.shape[3] > 60:
                raise KeyError("a bug")
            return super().__call__(batch)

    wide, narrow = save(tmp_path / "w.png", photo(9, 99)), save(tmp_path / "n.png", photo(9, 9))
    results = run([Job(p, tmp_path / "out" / p.name) for p in (wide, narrow)], engine=Broken())
    assert [r.status for r in results] == ["failed", "done"]
    assert str(wide) in (results[0].error or "")
    long = Job(wide, tmp_path / ("n" * 254 + ".png"))
    assert run([long])[0].status == "failed"


def test_unwritable_targets(tmp_path: Path) -> None:
    source = save(tmp_path / "in.png", photo(9, 9))
    (tmp_path / "file").touch()
    (result,) = run([Job(source, tmp_path / "file" / "out.png")])
    assert "cannot be written" in (result.error or "")
    (tmp_path / "folder.png").mkdir()
    (result,) = run([Job(source, tmp_path / "folder.png")], Options(if_exists="overwrite"))
    assert "is a folder" in (result.error or "")
    with pytest.raises(OutputError, match=r"cannot write \.bmp"):
        upscale_file(Nearest(), Job(source, tmp_path / "out.bmp"), Options())


@pytest.mark.slow
def test_a_full_disk(tmp_path: Path) -> None:
    """A limit on file size stands in for a full disk: both make the write fail half way."""
    source = save(tmp_path / "in.png", np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8))
    code = (
        "import resource, signal, sys; sys.path.insert(0, 'tests')\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from pathlib import Path; from helpers import Nearest\n"
        "from dsclora.inference.jobs import IfExists, Job, Options\n"
        "from dsclora.inference.upscale import upscale_files\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        f"job = Job(Path({str(source)!r}), Path({str(tmp_path / 'out' / 'out.png')!r}))\n"
        "(result,) = upscale_files([Nearest()], [job], Options())\n"
        "print(result.status, result.error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.startswith("failed"), done.stdout
    assert "cannot be written" in done.stdout
    assert list((tmp_path / "out").iterdir()) == []


class Small(Nearest):
    """Has memory for windows of 140 x 140 at the most."""

    def __call__(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if batch.shape[2] * batch.shape[3] > 140 * 140:
            raise OutOfMemoryError("out of memory")
        return super().__call__(batch)


def test_out_of_memory_halves_the_tile_and_goes_on(tmp_path: Path) -> None:
    pixels = photo(300, 400)
    jobs = [Job(save(tmp_path / f"{n}.png", pixels), tmp_path / "out" / f"{n}.png") for n in "abc"]
    engine = Small()
    results = run(jobs, Options(tile=512), engine)
    assert [r.status for r in results] == ["done", "done", "done"]
    assert any("tiles of 128" in n for n in results[0].notices)
    assert results[2].notices == (), "what begins after the first picture begins with the tile that fitted"
    assert np.array_equal(read_rgb8(tmp_path / "out" / "b.png"), pixels.repeat(2, 0).repeat(2, 1))

    class Tiny(Nearest):
        def __call__(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
            raise OutOfMemoryError("out of memory")

    (result,) = run([replace(jobs[0], target=tmp_path / "no.png")], engine=Tiny())
    assert result.status == "failed"
    assert "out of memory" in (result.error or "")


def test_out_of_memory_of_a_network_that_sees_everything_is_tried_once(tmp_path: Path) -> None:
    attempts = []

    class Small(Global):
        def __call__(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
            attempts.append(batch.shape)
            raise MemoryError

    (result,) = run([Job(save(tmp_path / "a.png", photo(20, 30)), tmp_path / "out.png")], engine=Small())
    assert result.error == (
        f"{tmp_path / 'a.png'}: out of memory with 30 x 20 pixels, which cannot be cut into tiles, as this network "
        "sees the whole picture; reduce it first"
    )
    assert len(attempts) == 1


@pytest.mark.slow
def test_memory_does_not_grow_with_height(tmp_path: Path) -> None:
    """Peak memory of a process that enlarges a picture, and one three times as high."""
    code = (
        "import resource, sys; sys.path.insert(0, 'tests')\n"
        "from pathlib import Path; from helpers import Nearest\n"
        "from dsclora.inference.jobs import IfExists, Job, Options\n"
        "from dsclora.inference.upscale import upscale_file\n"
        "upscale_file(Nearest(4), Job(Path(sys.argv[1]), Path(sys.argv[2])), Options())\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    peaks = []
    for height in (1600, 4800):
        source = tmp_path / f"{height}.png"
        target = pyvips.Target.new_to_file(str(source))
        pyvips.Image.black(4000, height, bands=3).copy(interpretation="srgb").write_to_target(target, ".png")
        output = tmp_path / f"{height}-x4.jpg"
        done = subprocess.run(
            [sys.executable, "-c", code, source, output], capture_output=True, text=True, cwd=ROOT, check=True
        )
        image = pyvips.Image.new_from_file(str(output))
        assert (image.width, image.height) == (16_000, height * 4)
        peaks.append(float(done.stdout))
        output.unlink()
    assert peaks[1] < peaks[0] * 1.15 + 30, peaks
