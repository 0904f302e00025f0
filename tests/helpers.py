"""What tests share: tiny models, pictures, engines that need no runtime, and the command line."""

import contextlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import pyvips
import torch

from dsclora.cli import main
from dsclora.networks import span
from dsclora.networks.span import SpanNetwork

ROOT = Path(__file__).resolve().parent.parent
CPUINFO = Path("/proc/cpuinfo")
CPU_FLAGS = frozenset(CPUINFO.read_text().split()) if CPUINFO.exists() else frozenset[str]()


def random_model(scale: int = 2, channels: int = 6, seed: int = 0) -> SpanNetwork:
    """A SPAN with random weights, small enough that its output stays in range now and then."""
    random = np.random.default_rng(seed)
    tensors = {}
    for prefix in span.PLAIN_PREFIXES:
        inputs = {"conv_1.eval_conv": 3, "conv_cat": 4 * channels}.get(prefix, channels)
        outputs = 3 * scale**2 if prefix == "upsampler.0" else channels
        side = 1 if prefix == "conv_cat" else 3
        spread = 1.2 / (inputs * side * side) ** 0.5
        tensors[f"{prefix}.weight"] = random.normal(0, spread, (outputs, inputs, side, side)).astype(np.float32)
        tensors[f"{prefix}.bias"] = random.normal(0.3, 0.1, outputs).astype(np.float32)
    return SpanNetwork(tensors, scale, channels, range=2.0, license="CC0-1.0", name="random")


def photo(height: int, width: int, bands: int = 3, seed: int = 0, dtype: Any = np.uint8) -> npt.NDArray[Any]:
    """Something with edges, ramps and noise, (height, width, bands)."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    planes = [
        120 + 90 * np.sin(x / (5 + b)) * np.cos(y / 7) + 30 * ((x // 9 + y // 11) % 2) + random.normal(0, 4, y.shape)
        for b in range(bands)
    ]
    peak = np.iinfo(dtype).max
    return (np.clip(np.stack(planes, -1) / 255, 0, 1) * peak).round().astype(dtype)


def save(path: Path, pixels: npt.NDArray[Any], prepare: Callable[[Any], Any] = lambda image: image) -> Path:
    """Write pixels with libvips alone, so that what dsclora reads was not written by dsclora."""
    kind = {1: "b-w", 2: "b-w", 3: "srgb", 4: "srgb"}[pixels.shape[2]]
    if pixels.dtype == np.uint16:
        kind = {"b-w": "grey16", "srgb": "rgb16"}[kind]
    path.parent.mkdir(parents=True, exist_ok=True)
    image = prepare(pyvips.Image.new_from_array(pixels, interpretation=kind))
    target = pyvips.Target.new_to_file(str(path))
    image.write_to_target(target, path.suffix)
    return path


class Nearest:
    """An engine that repeats pixels: no network, exact, quick. Remembers the batches it saw."""

    name = "nearest"
    halo = 0
    multiple = 1
    tile = 512

    def __init__(self, scale: int = 2) -> None:
        self.scale = scale
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        self.shapes.append(batch.shape)
        return batch.repeat(self.scale, 2).repeat(self.scale, 3)


class Wide:
    """An engine of integer arithmetic that looks exactly as far as SPAN: equal means equal, not nearly so."""

    name = "wide"
    scale = 2
    halo = span.HALO
    multiple = 1
    tile = 512

    def __call__(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        h, w = batch.shape[2:]
        padded = np.pad(batch.astype(np.int64), ((0, 0), (0, 0), (self.halo,) * 2, (self.halo,) * 2))
        total = sum(
            (3 * k + 1) * padded[:, :, self.halo + dy : self.halo + dy + h, self.halo + dx : self.halo + dx + w]
            for k, (dy, dx) in enumerate([(0, 0), (-21, -21), (21, 21), (-21, 21), (21, -21), (0, 13), (-8, 0)])
        )
        return np.asarray(total % 256).astype(batch.dtype).repeat(2, 2).repeat(2, 3)


class Aligned:
    """An engine of integer arithmetic for sides that divide by four: what it does hangs on the place in its grid."""

    name = "aligned"
    scale = 2
    halo = 2
    multiple = 4
    tile = 512

    def __call__(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        h, w = batch.shape[2:]
        assert h % 4 == w % 4 == 0
        padded = np.pad(batch.astype(np.int64), ((0, 0), (0, 0), (2, 2), (2, 2)))
        total = padded[:, :, :h, :w] + 3 * padded[:, :, 4:, 4:] + 5 * padded[:, :, 2:-2, 2:-2]
        y, x = np.mgrid[:h, :w] % 4
        return np.asarray((total * (1 + y + 4 * x)) % 256).astype(batch.dtype).repeat(2, 2).repeat(2, 3)


class Global:
    """An engine of integer arithmetic that sees the whole picture."""

    name = "global"
    scale = 1
    halo: int | None = None
    multiple = 1
    tile = 512

    def __call__(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.asarray((batch + batch.sum(dtype=np.int64)) % 256).astype(batch.dtype)


@contextmanager
def _restored() -> Iterator[None]:
    """Undo what a command line may do to its process, which here is the tests'."""
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    handlers = {number: signal.getsignal(number) for number in numbers}
    environment, threads, cache = dict(os.environ), torch.get_num_threads(), pyvips.cache_get_max()
    level = logging.getLogger("pyvips").level
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.environ.clear()
        os.environ.update(environment)
        torch.set_num_threads(threads)
        pyvips.cache_set_max(cache)
        pyvips.operation_block_set("VipsForeignLoad", False)
        logging.getLogger("pyvips").setLevel(level)


def invoke(*arguments: object, cwd: Path | None = None) -> tuple[int, str, str]:
    """Run a command line in this process; returns its exit code, stdout and stderr."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", newline="", write_through=True) for _ in range(2))
    place = contextlib.chdir(cwd) if cwd is not None else contextlib.nullcontext()
    exits = pytest.raises(SystemExit)
    with _restored(), place, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), exits as done:
        main([str(argument) for argument in arguments])
    streams = []
    for stream in (out, err):
        stream.seek(0)
        streams.append(stream.read())
    return int(done.value.code or 0), streams[0], streams[1]


def dsclora_(
    *arguments: object, cwd: Path | None = None, code: int = 0, process: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a command line, if need be in a process of its own, and check its exit code."""
    command = [sys.executable, "-W", "error", "-m", "dsclora.cli", *map(str, arguments)]
    if process:
        done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)
    else:
        done = subprocess.CompletedProcess(command, *invoke(*arguments, cwd=cwd))
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


def parsed(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout)
