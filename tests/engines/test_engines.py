"""One conformance suite for every engine, against the network in float64."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from dsclora.engines import Engine, Setting
from dsclora.engines.choice import RUNTIMES, bf16_on_cpu, open_engine
from dsclora.errors import EngineError, OutOfMemoryError
from dsclora.networks import Network, span, span_torch
from dsclora.networks.span import SpanNetwork
from helpers import photo, random_model
from helpers_networks import tiny_network

NAMES = [
    pytest.param(r.name, marks=pytest.mark.skipif(not r.usable, reason=f"{r.name} is not here: {r.install}"))
    for r in RUNTIMES
]


def reference(model: Network, batch: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The network's output in 0..1, float64, clipped."""
    net = model.to_torch().double()
    x = torch.from_numpy(batch.astype(np.float64) / (255 if batch.dtype == np.uint8 else 1))
    with torch.inference_mode():
        return net(x).clamp(0, 1).numpy()  # type: ignore[no-any-return]


@pytest.fixture(scope="module", params=NAMES)
def engine(request: pytest.FixtureRequest, model: SpanNetwork) -> Engine:
    return open_engine(model, Setting(request.param, threads=1))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 9), (1, 7, 2), (2, 16, 24), (3, 33, 17)])
def test_agrees_with_the_network(engine: Engine, model: SpanNetwork, shape: tuple[int, int, int]) -> None:
    count, height, width = shape
    batch = np.stack([photo(height, width, seed=n).transpose(2, 0, 1) for n in range(count)])
    output = engine(batch)
    expected = reference(model, batch)
    assert (expected % 1 > 0).mean() > 0.02, "the test's network clips everywhere"
    assert output.dtype == np.uint8
    assert output.shape == (count, 3, height * engine.scale, width * engine.scale)
    assert np.abs(output - expected * 255).max() < 0.5 + 1e-3
    floats = (batch / 255).astype(np.float32)
    output = engine(floats)
    assert output.dtype == np.float32
    assert np.abs(output - reference(model, floats)).max() < 2e-5
    words = batch.astype(np.uint16) * 257
    output = engine(words)
    assert output.dtype == np.uint16
    assert np.abs(output - expected * 65535).max() < 2


def test_takes_views_and_keeps_its_results_apart(engine: Engine) -> None:
    view = photo(20, 30)[::2, ::-1].transpose(2, 0, 1)[None]
    first = engine(view)
    kept = first.copy()
    engine(255 - view)
    assert np.array_equal(first, kept), "a result was overwritten by the next call"
    assert np.array_equal(engine(np.ascontiguousarray(view)), kept)
    read_only = np.ascontiguousarray(view)
    read_only.flags.writeable = False
    assert np.array_equal(engine(read_only), kept)


def test_says_what_it_is(engine: Engine, model: SpanNetwork) -> None:
    assert (engine.scale, engine.halo) == (model.scale, 21)
    assert "fp32" in engine.name


@pytest.mark.parametrize(
    "batch", [np.zeros((1, 4, 8, 8), np.uint8), np.zeros((3, 8, 8), np.uint8), np.zeros((1, 3, 8, 8))]
)
def test_refuses_what_it_does_not_take(engine: Engine, batch: npt.NDArray[Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        engine(batch)


def test_extreme_inputs_do_not_hang_or_crash(engine: Engine) -> None:
    for value in (np.nan, np.inf, -np.inf, 1e-42, 1e30):
        output = engine(np.full((1, 3, 8, 8), value, np.float32))
        assert output.shape == (1, 3, 16, 16)


@pytest.mark.parametrize("name", NAMES)
def test_scale_and_width(name: str) -> None:
    for scale, channels in ((1, 8), (3, 26), (4, 5)):
        model = random_model(scale, channels, seed=scale)
        batch = photo(12, 10).transpose(2, 0, 1)[None]
        output = open_engine(model, Setting(name))(batch)
        assert np.abs(output - reference(model, batch) * 255).max() < 0.5 + 1e-2


@pytest.mark.parametrize("global_mean", [False, True])
@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize("name", [name for name in NAMES if name.values != ("native",)])
def test_other_networks(name: str, scale: int, global_mean: bool) -> None:
    network = tiny_network(scale, global_mean=global_mean)
    engine = open_engine(network, Setting(name))
    assert (engine.scale, engine.halo, engine.multiple) == (scale, None if global_mean else 2, 4)
    batch = np.stack([photo(16, 20, seed=n).transpose(2, 0, 1) for n in range(2)])
    expected = reference(network, batch)
    for dtype, factor in ((np.uint8, 1), (np.uint16, 257), (np.float32, 1 / 255)):
        large = engine((batch.astype(np.float64) * factor).astype(dtype))
        assert large.dtype == dtype
        peak = 255 * factor
        rounding = 0.0 if dtype == np.float32 else 0.5 / peak
        assert np.abs(large / peak - expected).max() < rounding + 2e-5


def test_receptive_radius_is_the_halo(model: SpanNetwork) -> None:
    net = span_torch.from_network(model)
    x = torch.rand(1, 3, 61, 61, requires_grad=True)
    net(x)[:, :, 60:62, 60:62].sum().backward()
    assert x.grad is not None
    rows = x.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert (int(rows.min()), int(rows.max())) == (30 - span.HALO, 30 + span.HALO)


def test_bf16_is_near(model: SpanNetwork) -> None:
    batch = photo(24, 24).transpose(2, 0, 1)[None]
    for name in ("openvino", "torch") if bf16_on_cpu() else ("torch",):
        output = open_engine(model, Setting(name, "bf16"))(batch)
        assert np.abs(output.astype(float) - reference(model, batch) * 255).mean() < 4
    for name in ("native", "onnxruntime"):
        with pytest.raises(EngineError, match="no bf16"):
            open_engine(model, Setting(name, "bf16"))


@pytest.mark.parametrize("name", NAMES)
def test_out_of_memory_has_its_own_error(name: str) -> None:
    engine = open_engine(random_model(2, 64), Setting(name))
    huge = np.broadcast_to(np.uint8(0), (1, 3, 3_000_000, 3_000_000))
    with pytest.raises((OutOfMemoryError, MemoryError)):
        engine(huge)


def test_torch_leaves_the_settings_of_the_process_alone(model: SpanNetwork) -> None:
    before = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    open_engine(model, Setting("torch", threads=before[0] + 1))(photo(8, 8).transpose(2, 0, 1)[None])
    assert (torch.get_num_threads(), torch.backends.cudnn.allow_tf32) == before
