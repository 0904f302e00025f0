"""The native kernel: every width, scale and size, real pictures, sanitizers; `test_engines.py` has what all share."""

import os
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsclora import zoo
from dsclora.engines import Setting
from dsclora.engines.choice import RUNTIMES, open_engine
from dsclora.pictures.pairs import find_pairs, read_pair
from helpers import ROOT, photo, random_model

if not RUNTIMES[0].usable:
    if os.environ.get("CI"):
        pytest.fail("the native kernel is not built, and CI must have it", pytrace=False)
    pytest.skip(f"the native kernel is not here: {RUNTIMES[0].install}", allow_module_level=True)

import dsclora_native

from dsclora.engines.native import Native, _folded

KERNELS = dsclora_native.kernels()
reference = open_engine(zoo.load("span-x4"), Setting("torch", threads=1))


@given(
    channels=st.integers(1, 64),
    scale=st.integers(1, 4),
    height=st.integers(1, 40),
    width=st.integers(1, 70),
    threads=st.integers(1, 5),
    kernel=st.sampled_from(KERNELS),
)
@settings(max_examples=60, deadline=None)
def test_any_width_scale_and_size(
    channels: int, scale: int, height: int, width: int, threads: int, kernel: str
) -> None:
    model = random_model(scale, channels, seed=channels)
    batch = np.random.default_rng(height).random((1, 3, height, width), np.float32)
    made = Native(model, threads, kernel)(batch)
    assert np.abs(made - open_engine(model, Setting("torch", threads=1))(batch)).max() < 3e-5


# what streams through several bands, panels (128 rows) and strips (91 tiles of 4 pixels, from 641 pixels on), by one to
# many threads
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("threads", [1, 2, 3, 4, 8])
@pytest.mark.parametrize(
    ("height", "width"),
    [(1, 1), (3, 1500), (700, 5), (150, 900), (129, 640), (130, 641), (260, 732), (40, 728), (30, 1093)],
)
def test_parts_fit_together(kernel: str, threads: int, height: int, width: int) -> None:
    model = random_model(2, 4)
    pixels = photo(height, width, dtype=np.uint16).transpose(2, 0, 1)[None]
    wanted = open_engine(model, Setting("torch", threads=1))(pixels)
    engine = Native(model, threads, kernel)
    for _ in range(2):  # the second run finds the first one's rows
        assert np.abs(engine(pixels).astype(int) - wanted).max() <= 2


def test_engines_at_once_and_one_engine_at_once() -> None:
    model = random_model(2, 6)
    pixels = [photo(100, 120, seed=n).transpose(2, 0, 1)[None] for n in range(4)]
    wanted = [Native(model, 1)(p) for p in pixels]
    shared = Native(model, 2)
    made: dict[int, bool] = {}

    def work(n: int) -> None:
        own = Native(model, 2)
        made[n] = all(np.array_equal(e(pixels[n]), wanted[n]) for e in (own, shared) for _ in range(5))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == dict.fromkeys(range(4), True)


def test_a_bad_picture_leaves_nothing_behind() -> None:
    engine = Native(random_model(2, 6), 2)
    clean = photo(150, 1501).transpose(2, 0, 1)[None]  # several strips
    wanted = engine(clean)
    for value in (np.nan, np.inf, -np.inf, 1e38):
        engine(np.full((1, 3, 150, 1501), value, np.float32))
        assert np.array_equal(engine(clean), wanted)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["Set5", "Set14", "BSD100"])
def test_above_90_db_of_the_fp32_network(shared: Path, name: str, kernel: str) -> None:
    engine = Native(zoo.load("span-x4"), kernel=kernel)
    pairs = find_pairs(shared / "data" / "bench" / name, 4)
    for pair in pairs[:20]:
        lr = read_pair(pair, 4)[0].transpose(2, 0, 1)[None]
        assert np.abs(engine(lr).astype(int) - reference(lr)).max() <= 1
        floats = (lr / 255).astype(np.float32)
        error = float(np.mean((engine(floats) - reference(floats)).astype(np.float64) ** 2))
        assert -10 * np.log10(error + 1e-30) > 90, pair.name


def test_refuses_wrong_arrays() -> None:
    span = Native(random_model(2, 4), 1)._span
    lr, sr = np.zeros((5, 6, 3), np.uint8), np.zeros((10, 12, 3), np.uint8)
    span.run(lr, sr, 1)
    for source, target, threads in [
        (lr, sr[:-1], 1),
        (lr, sr.astype(np.uint16), 1),
        (lr, sr[:, ::-1], 1),
        (lr, sr, 0),
        (lr[..., :2], sr, 1),
        (lr[:0], sr[:0], 1),
        (lr.astype(np.float64), sr.astype(np.float64), 1),
    ]:
        with pytest.raises(ValueError, match=r"expected|must"):
            span.run(source, target, threads)
    with pytest.raises(ValueError, match="no kernel"):
        Native(random_model(), kernel="sse2")
    body, *rest = _folded(random_model(2, 4))
    assert isinstance(body, list)
    for odd in (np.zeros((), np.float32), np.zeros((0, 3, 3, 3), np.float32)):
        with pytest.raises(ValueError, match="1 to 4096 channels"):
            dsclora_native.Span([odd, *body[1:]], *rest, 2, [0.0, 0.0, 0.0], 1.0, "")


@pytest.mark.parametrize("kind", ["address,undefined", "thread"])
def test_sanitizers_find_nothing(kind: str) -> None:
    if not shutil.which("cmake") or not shutil.which(os.environ.get("CXX", "c++")):
        if os.environ.get("CI"):
            pytest.fail("CI must have cmake and a C++ compiler")
        pytest.skip("needs cmake and a C++ compiler")
    build = ROOT / "build" / f"check-{kind.split(',')[0]}"
    flags = f"-fsanitize={kind} -fno-sanitize-recover=all -g1"
    for command in (
        ["cmake", "-S", ROOT / "native", "-B", build, "-DDSCLORA_CHECK=ON", f"-DCMAKE_CXX_FLAGS={flags}"],
        ["cmake", "--build", build, "-j2"],
        [build / "program", "8"],
    ):
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "agree" in done.stdout
