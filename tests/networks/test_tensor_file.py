"""Tensor files: the same content makes the same bytes, which everybody's safetensors reads."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from dsclora.networks import span, tensor_file
from helpers import ROOT, random_model

WRITE = """
import sys
from dsclora.networks import adapter, span
network = span.read(sys.argv[1])
span.write(sys.argv[2] + ".model", network)
weight = network.weights["conv_cat.weight"][:, :, 0, 0]
update = adapter.Update(weight[:2], weight[:, :2], 2, 2.0)
adapter.write(sys.argv[2] + ".adapter", adapter.create(network, {"conv_cat": update}, {"note": "é"}, "MIT"))
"""


@pytest.mark.slow
def test_the_same_content_makes_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    source = tmp_path / "random.safetensors"
    span.write(source, random_model())
    for number in range(3):  # the order of a hash map changes with the process
        command = [sys.executable, "-c", WRITE, str(source), str(tmp_path / str(number))]
        subprocess.run(command, check=True, env={"PYTHONPATH": str(ROOT / "src")})
    for kind in ("model", "adapter"):
        assert len({(tmp_path / f"{number}.{kind}").read_bytes() for number in range(3)}) == 1
    assert (tmp_path / "0.model").read_bytes() == source.read_bytes()


def test_safetensors_reads_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    tensors = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.ones((1, 1, 5), np.float32)}
    header = {"z": "last in the alphabet", "a": 'quotes " and é'}
    tensor_file.write_safetensors(path, tensors, header, False)
    with safe_open(path, "np") as file:
        assert file.metadata() == header
    read = load_file(path)
    assert read.keys() == tensors.keys()
    assert all(np.array_equal(read[key], tensors[key]) for key in tensors)
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0
