"""Whatever implements `Network` answers alike: ONNX equals PyTorch, weights can be replaced, hashes tell content."""

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional

from dsclora.engines.no_telemetry import import_onnxruntime
from dsclora.networks import Network
from helpers import photo, random_model
from helpers_networks import cubic_kernels, tiny_network

NETWORKS: list[Network] = [
    random_model(2),
    tiny_network(1),
    tiny_network(3),
    tiny_network(1, global_mean=True),
    tiny_network(3, global_mean=True),
]
IDS = ["span", "tiny x1", "tiny x3", "global x1", "global x3"]


@pytest.mark.parametrize("network", NETWORKS, ids=IDS)
def test_onnx_equals_torch(network: Network) -> None:
    proto = network.to_onnx()
    onnx.checker.check_model(proto, full_check=True)
    batch = photo(24, 36).transpose(2, 0, 1)[None].astype(np.float32) / 255
    (large,) = import_onnxruntime().InferenceSession(proto.SerializeToString()).run(None, {"input": batch})
    with torch.inference_mode():
        expected = network.to_torch()(torch.from_numpy(batch)).clamp(0, 1).numpy()
    assert large.shape == (1, 3, 24 * network.scale, 36 * network.scale)
    assert np.abs(large - expected).max() < 2e-5


@pytest.mark.parametrize("network", NETWORKS, ids=IDS)
def test_with_weights_replaces_weights_and_nothing_else(network: Network) -> None:
    key = next(iter(network.weights))
    other = network.with_weights({**network.weights, key: network.weights[key] + 1}, name="other")
    assert (other.name, other.license, other.scale, other.halo) == (
        "other",
        network.license,
        network.scale,
        network.halo,
    )
    assert other.sha256 != network.sha256
    assert other.fingerprint != network.fingerprint
    assert network.with_weights(network.weights).fingerprint == network.fingerprint
    assert network.parameters == sum(p.numel() for p in network.to_torch().parameters())


@pytest.mark.parametrize("scale", [1, 3])
def test_the_tiny_network_enlarges_by_the_cubic_kernel(scale: int) -> None:
    x = torch.from_numpy(photo(8, 12)).permute(2, 0, 1)[None].double() / 255
    expected = functional.interpolate(x, scale_factor=float(scale), mode="bicubic")
    padded = functional.pad(x, (2, 2, 2, 2), "replicate")
    kernels = torch.from_numpy(cubic_kernels(scale)).double()
    large = functional.pixel_shuffle(functional.conv2d(padded, kernels, groups=3), scale)
    assert (large - expected).abs().max() < 1e-6  # the kernels are float32
