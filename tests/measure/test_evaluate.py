"""The evaluator agrees with another on the official weights; folders in every layout; what does not fit is named."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsclora.engines import Setting
from dsclora.engines.choice import RUNTIMES, open_engine
from dsclora.errors import ImageError
from dsclora.measure import evaluate
from dsclora.networks import span_import
from dsclora.pictures import metrics
from dsclora.pictures.pairs import find_pairs, read_pair
from dsclora.pictures.resize import imresize
from helpers import Nearest, photo, save

# PSNR and SSIM of the official weights, Y channel, x4, on Set5, Set14 and BSD100, by another evaluator
OFFICIAL = {
    "span_ch26_ntire2024.pth": ((31.739, 0.8890), (28.336, 0.7755), (27.399, 0.7297)),
    "dscf_ch26_ntire2025.pth": ((31.747, 0.8892), (28.346, 0.7757), (27.405, 0.7298)),
    "span_ch28_ntire2024.pth": ((31.746, 0.8898), (28.405, 0.7768), (27.447, 0.7309)),
    "span_x4_ch48.safetensors": ((32.204, 0.8952), (28.646, 0.7827), (27.609, 0.7369)),
    "span_x4_ch52.safetensors": ((32.199, 0.8952), (28.663, 0.7832), (27.625, 0.7373)),
}


def measure(shared: Path, name: str, bench: str) -> tuple[float, float]:
    model = span_import.import_file(shared / "weights" / name)
    engine = open_engine(model, Setting("native" if RUNTIMES[0].usable else "onnxruntime"))  # the quicker one
    pairs = find_pairs(shared / "data" / "bench" / bench, model.scale)
    protocol = metrics.protocol("classic-y", model.scale)
    return evaluate.mean(evaluate.scores(lambda lr: evaluate.as_published(engine, lr), pairs, model.scale, protocol))


@pytest.mark.slow
@pytest.mark.parametrize("name", OFFICIAL)
def test_official_weights_give_another_evaluators_table(shared: Path, name: str) -> None:
    for bench, (psnr, ssim) in zip(("Set5", "Set14", "BSD100"), OFFICIAL[name], strict=True):
        measured = measure(shared, name, bench)
        assert measured[0] == pytest.approx(psnr, abs=0.0011), (bench, measured)
        assert measured[1] == pytest.approx(ssim, abs=0.00011), (bench, measured)


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    for name in ("one", "deep/two"):
        hr = photo(41, 38, seed=len(name))
        save(tmp_path / "bench" / "HR" / f"{name}.png", hr)
        save(tmp_path / "bench" / "LRx2" / f"{name}.webp", imresize(hr[:40, :38], 0.5), lambda i: i)
    return tmp_path / "bench"


def test_layouts(bench: Path) -> None:
    pairs = find_pairs(bench, 2)
    assert [(p.name, p.lr is not None) for p in pairs] == [("deep/two", True), ("one", True)]
    reduced = find_pairs(bench, 3)
    assert all(p.lr is None for p in reduced)
    plain = find_pairs(bench / "HR", 2)
    assert [p.name for p in plain] == ["deep/two", "one"]
    lr, hr = read_pair(plain[1], 2)
    assert np.array_equal(lr, imresize(hr, 0.5))
    assert hr.shape == (40, 38, 3)


def test_names_that_do_not_match_are_told_at_once(bench: Path) -> None:
    save(bench / "HR" / "three.png", photo(40, 40))
    save(bench / "LRx2" / "four.png", photo(20, 20))
    with pytest.raises(ImageError, match="four, three"):
        find_pairs(bench, 2)


def test_a_wrong_scale_is_one_failure(bench: Path) -> None:
    save(bench / "LRx2" / "one.webp", photo(13, 12))
    pairs = find_pairs(bench, 2)
    run = Nearest(2)
    protocol = metrics.protocol("classic-y", 2)
    rows = list(
        evaluate.evaluate(lambda lr: run(lr.transpose(2, 0, 1)[None])[0].transpose(1, 2, 0), pairs, 2, protocol)
    )
    assert isinstance(rows[0], evaluate.Measured)
    assert 10 < rows[0].score.psnr < 60
    assert isinstance(rows[1], evaluate.Failure)
    assert "LR of another scale" in rows[1].error


def test_csv(tmp_path: Path) -> None:
    scores = [evaluate.Score("a, b", 30.123456789, 0.9), evaluate.Score("c", float("inf"), float("nan"))]
    evaluate.write_csv(tmp_path / "rows.csv", scores)
    rows = list(csv.reader((tmp_path / "rows.csv").read_text().splitlines()))
    assert rows == [["name", "psnr", "ssim"], ["a, b", "30.123457", "0.900000"], ["c", "inf", "nan"]]
    assert evaluate.mean(scores[:1]) == pytest.approx((30.123456789, 0.9))
    with pytest.raises(ValueError, match="no scores"):
        evaluate.mean([])


def test_what_cannot_be_measured_is_told(bench: Path) -> None:
    save(bench / "small" / "x.png", photo(8, 8))
    pairs = find_pairs(bench / "small", 4)
    (row,) = evaluate.evaluate(lambda lr: lr, pairs, 4, metrics.protocol("classic-y", 4))
    assert isinstance(row, evaluate.Failure)
    assert "border" in row.error

    def exhausted(lr: object) -> Any:
        raise MemoryError("Unable to allocate")

    (row,) = evaluate.evaluate(exhausted, pairs, 1, metrics.protocol("classic-y", 1))
    assert isinstance(row, evaluate.Failure)
    assert "out of memory" in row.error
    save(bench / "small" / "x.tif", photo(20, 20))
    with pytest.raises(ImageError, match="same name"):
        find_pairs(bench / "small", 4)


def test_originals_at_another_size(bench: Path) -> None:
    pairs = find_pairs(bench, 2)
    rows = list(evaluate.evaluate(lambda lr: imresize(lr, 2), pairs, 2, metrics.protocol("classic-y", 2), 0.5))
    for pair, one in zip(pairs, rows, strict=True):
        assert isinstance(one, evaluate.Measured)
        hr = read_pair(pair, 2, size=0.5)[1]
        assert np.array_equal(one.hr, hr), "the original is resized"
        assert np.array_equal(one.lr, imresize(hr, 0.5)), "and LR made of that, though there is one"
