"""The challenge: scores against hand arithmetic, a run over a folder, and a submission."""

import errno
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dsclora import zoo
from dsclora.engines.choice import open_engine
from dsclora.errors import OutputError
from dsclora.measure import ntire, ntire_submission
from helpers import dsclora_, parsed, photo, random_model, save
from helpers_networks import as_onnx


def test_the_score_by_hand() -> None:
    baseline = {"runtime": 10.0, "macs": 100.0, "parameters": 1000.0}
    values = {"runtime": 5.0, "macs": 100.0, "parameters": 2000.0}
    scores = ntire.PRESETS["ntire2025"].scores(values, baseline)
    assert scores["final"] == pytest.approx(0.7 * math.e + 0.15 * math.e**2 + 0.15 * math.e**4)
    assert ntire.PRESETS["ntire2026"].scores(baseline, baseline)["final"] == pytest.approx(math.e**2)
    published = {"runtime": 16.69, "macs": 16.70, "parameters": 0.276}  # ms, G, M: EFDN's and the winner's
    winner = ntire.PRESETS["ntire2025"].scores({"runtime": 9.99, "macs": 8.54, "parameters": 0.131}, published)
    assert winner["final"] == pytest.approx(0.7 * 3.31 + 0.15 * 2.78 + 0.15 * 2.58, abs=0.01)


@pytest.mark.slow
def test_the_challenge_over_a_folder(tmp_path: Path) -> None:
    for number in range(2):
        save(tmp_path / "set" / "HR" / f"{number}.png", photo(48, 64, seed=number))
        save(tmp_path / "set" / "LRx4" / f"{number}.png", photo(48, 64, seed=number)[::4, ::4])
    baseline, model = as_onnx(tmp_path / "base.onnx"), tmp_path / "sub"
    arguments = ("profile", tmp_path / "set", "--preset", "ntire2025", "--baseline", baseline, "--runs", 1)
    facts = parsed(dsclora_(*arguments, "--model", "span-x4", "--threads", 1, "--json"))
    assert [row["name"] for row in facts["models"]] == ["base", "span-x4"]
    assert facts["models"][0]["scores"]["final"] == pytest.approx(math.e**2)
    assert facts["models"][1]["macs"] == 8_535_015_424
    assert facts["engine"] == "openvino"
    text = dsclora_(*arguments, "--submission", model, "--team", 7, "--name", "Ours", "--threads", 1).stdout
    assert "26.90" in text
    assert "2 pictures" in text
    code = (
        "import sys, numpy, torch\n"
        f"sys.path.insert(0, {str(model)!r})\n"
        "from models.team07_Ours import Net\n"
        "net = Net()\n"
        f"net.load_state_dict(torch.load({str(model / 'model_zoo' / 'team07_Ours.pth')!r}), strict=True)\n"
        f"lr = torch.from_numpy(numpy.load({str(tmp_path / 'lr.npy')!r}))\n"
        f"numpy.save({str(tmp_path / 'sr.npy')!r}, net(lr).detach().clamp(0, 1).numpy())\n"
    )
    lr = photo(20, 30).transpose(2, 0, 1)[None].astype(np.float32) / 255
    np.save(tmp_path / "lr.npy", lr)
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=tmp_path)
    expected = open_engine(zoo.load("span-x4"))(lr)
    np.testing.assert_allclose(np.load(tmp_path / "sr.npy"), expected, atol=2e-4)


def test_a_submission_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"team01_Ours\.pth: cannot be written \(No space left on device\)"):
        ntire_submission.submit(random_model(4), tmp_path / "entry", 1, "Ours")
    assert not [path for path in (tmp_path / "entry").rglob("*") if path.is_file()]
