"""The native kernel: every width, scale and size, real pictures, sanitizers; `test_engines.py` has what all share."""

import os
import re
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsclora import zoo
from dsclora.engines import CroppingEngine, Setting
from dsclora.engines.choice import RUNTIMES, open_engine
from dsclora.networks.span import BLOCKS, SpanNetwork
from dsclora.pictures.pairs import find_pairs, read_pair
from helpers import ROOT, photo, random_model

if not RUNTIMES[0].usable:
    if os.environ.get("CI"):
        pytest.fail("the native kernel is not built, and CI must have it", pytrace=False)
    pytest.skip(f"the native kernel is not here: {RUNTIMES[0].install}", allow_module_level=True)

import dsclora_native

from dsclora.engines.native import Native

KERNELS = dsclora_native.kernels()
reference = open_engine(zoo.load("span-x4"), Setting("torch", threads=1))


@pytest.mark.slow
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
    output = Native(model, threads, kernel)(batch)
    assert np.abs(output - open_engine(model, Setting("torch", threads=1))(batch)).max() < 3e-5


# what streams through several bands, slabs (256 rows with one thread, 128 with more) and strips (91 tiles of 4 pixels,
# from 657 pixels on), by one to many threads
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("threads", [1, 2, 3, 4, 8])
@pytest.mark.parametrize(
    ("height", "width"),
    [(1, 1), (3, 1500), (700, 5), (150, 900), (129, 656), (130, 657), (260, 732), (40, 728), (30, 1093)],
)
def test_parts_fit_together(kernel: str, threads: int, height: int, width: int) -> None:
    model = random_model(2, 4)
    pixels = photo(height, width, dtype=np.uint16).transpose(2, 0, 1)[None]
    expected = open_engine(model, Setting("torch", threads=1))(pixels)
    engine = Native(model, threads, kernel)
    for _ in range(2):  # the second run finds the first one's rows
        assert np.abs(engine(pixels).astype(int) - expected).max() <= 2


def test_engines_at_once_and_one_engine_at_once() -> None:
    model = random_model(2, 6)
    pixels = [photo(100, 120, seed=n).transpose(2, 0, 1)[None] for n in range(4)]
    expected = [Native(model, 1)(p) for p in pixels]
    shared = Native(model, 2)
    equal: dict[int, bool] = {}

    def work(n: int) -> None:
        private = Native(model, 2)
        equal[n] = all(np.array_equal(e(pixels[n]), expected[n]) for e in (private, shared) for _ in range(5))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert equal == dict.fromkeys(range(4), True)


def test_a_bad_picture_leaves_nothing_behind() -> None:
    engine = Native(random_model(2, 6), 2)
    clean = photo(150, 1501).transpose(2, 0, 1)[None]  # several strips
    expected = engine(clean)
    for value in (np.nan, np.inf, -np.inf, 1e38):
        engine(np.full((1, 3, 150, 1501), value, np.float32))
        assert np.array_equal(engine(clean), expected)


@pytest.mark.slow
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
    model = random_model(2, 4)
    span = dsclora_native.Span(dict(model.weights), model.scale, model.channels, list(model.mean), model.range)
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
    for top, left in ((1, 0), (0, 1), (-1, 0), (0, -1), (2**62, 0)):
        with pytest.raises(ValueError, match=r"expected|must"):
            span.run(lr, sr, 1, top, left)


def test_refuses_wrong_weights() -> None:
    model = random_model(2, 4)
    tensors = dict(model.weights)

    def open_span(weights: dict[str, Any], scale: int = 2, channels: int = 4) -> None:
        dsclora_native.Span(weights, scale, channels, [0.0, 0.0, 0.0], 1.0)

    open_span(tensors)
    for scale, channels, message in (
        (5, 4, "a scale of 1 to 4"),
        (0, 4, "a scale"),
        (2, 0, "channels"),
        (2, 4097, "channels"),
    ):
        with pytest.raises(ValueError, match=message):
            open_span(tensors, scale, channels)
    with pytest.raises(
        ValueError, match=re.escape("conv_1.eval_conv.weight has shape (4, 3, 3, 3), expected (5, 3, 3, 3)")
    ):
        open_span(tensors, channels=5)
    with pytest.raises(ValueError, match=re.escape("conv_cat.bias has shape (), expected (4)")):
        open_span({**tensors, "conv_cat.bias": np.zeros((), np.float32)})
    with pytest.raises(ValueError, match=r"block_7\.c1_r\.eval_conv\.weight is no tensor of a plain SPAN"):
        open_span({**tensors, "block_7.c1_r.eval_conv.weight": np.zeros((4, 4, 3, 3), np.float32)})
    del tensors["conv_2.eval_conv.bias"]
    with pytest.raises(ValueError, match=r"conv_2\.eval_conv\.bias is missing"):
        open_span(tensors)


def folded(model: SpanNetwork) -> list[npt.NDArray[np.float32]]:
    """Return joint weight, joint bias and pointwise weight by the formula, in float64, rounded once."""
    t = {key: value.astype(np.float64) for key, value in model.weights.items()}
    first, second, block_1, inner = np.split(t["conv_cat.weight"][:, :, 0, 0], 4, axis=1)
    weights = [t[f"{name}.eval_conv.weight"] for name in ("conv_2", "conv_1")]
    joint = np.concatenate(
        [np.einsum("oc,ciyx->oiyx", *pair) for pair in zip((second, first), weights, strict=True)], 1
    )
    bias = t["conv_cat.bias"] + second @ t["conv_2.eval_conv.bias"] + first @ t["conv_1.eval_conv.bias"]
    return [array.astype(np.float32) for array in (joint, bias, np.concatenate([block_1, inner], 1))]


@pytest.mark.parametrize("name", ["span-x2", "span-x3", "span-x4", "span-x4-wide"])
def test_fold_is_the_formula_to_the_bit(name: str) -> None:
    model = zoo.load(name)
    assert BLOCKS == 6, "what the kernel is compiled for"
    for array, expected in zip(
        dsclora_native.fold(dict(model.weights), model.scale, model.channels), folded(model), strict=True
    ):
        assert array.shape == expected.shape
        assert np.array_equal(array, expected)


@given(
    height=st.integers(1, 80),
    width=st.integers(1, 150),
    part=st.tuples(*[st.floats(0, 1)] * 4),
    threads=st.integers(1, 3),
    kernel=st.sampled_from(KERNELS),
)
@settings(max_examples=60, deadline=None)
def test_a_part_is_what_it_is_in_the_whole(
    height: int, width: int, part: tuple[float, float, float, float], threads: int, kernel: str
) -> None:
    engine = Native(random_model(2, 6), threads, kernel)
    assert isinstance(engine, CroppingEngine)
    pixels = photo(height, width)
    top, left = int(part[0] * (height - 1)), int(part[1] * (width - 1))
    bottom, right = top + 1 + int(part[2] * (height - 1 - top)), left + 1 + int(part[3] * (width - 1 - left))
    left_of_tile = left // 4 * 4  # tiles of 4 pixels begin with the part's first column
    whole = engine(pixels.transpose(2, 0, 1)[None])[0].transpose(1, 2, 0)
    for start, tolerance in ((left_of_tile, 0), (left, 1)):
        target = np.full((2 * (bottom - top), 2 * (right - start), 4), 7, np.uint8)
        engine.enlarge_crop(pixels, target[..., :3], top, start)
        expected = whole[2 * top : 2 * bottom, 2 * start : 2 * right].astype(int)
        assert np.abs(target[..., :3] - expected).max() <= tolerance
        assert (target[..., 3] == 7).all(), "what lies between the pixels is somebody else's"


def test_a_part_of_strips_is_what_it_is_in_the_whole() -> None:
    engine = Native(random_model(2, 6), 1)
    pixels = photo(300, 1200)
    whole = engine(pixels.transpose(2, 0, 1)[None])[0].transpose(1, 2, 0)
    for top, left, height, width in ((21, 20, 258, 1156), (100, 400, 30, 700), (299, 1196, 1, 4), (0, 0, 1, 1)):
        target = np.empty((2 * height, 2 * width, 3), np.uint8)
        expected = whole[2 * top : 2 * (top + height), 2 * left : 2 * (left + width)]
        for _ in range(2):
            engine.enlarge_crop(pixels, target, top, left)
            assert np.array_equal(target, expected)
            not_finite = np.full(pixels.shape, np.nan, np.float32)  # which leaves nothing behind
            engine.enlarge_crop(not_finite, np.empty(target.shape, np.float32), top, left)


@pytest.mark.slow
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
