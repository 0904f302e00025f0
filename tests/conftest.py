"""Fixtures of all tests, and where shared/ lies."""

import os
from pathlib import Path

import pytest
import torch

from dsclora.networks import span
from dsclora.networks.span import SpanNetwork
from helpers import ROOT, random_model

torch.set_num_threads(1)  # tiny networks; on a busy machine a second thread makes them wait, not faster


@pytest.fixture(scope="session")
def shared() -> Path:
    """Benchmarks and official weights, outside the repository: skip without them, except in CI."""
    folder = Path(os.environ.get("DSCLORA_SHARED", ROOT.parent / "shared"))
    if not (folder / "data" / "bench").is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"{folder} is missing, and CI must have it")
        pytest.skip(f"needs benchmarks and official weights in {folder} (or DSCLORA_SHARED)")
    return folder


@pytest.fixture(scope="session")
def model() -> SpanNetwork:
    return random_model()


@pytest.fixture
def model_file(model: SpanNetwork, tmp_path: Path) -> Path:
    path = tmp_path / "model" / "random.safetensors"
    span.write(path, model)
    return path
