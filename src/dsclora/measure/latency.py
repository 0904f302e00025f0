"""Measure the latency and memory of networks, side by side, each in a process of its own."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from dsclora.engines import Setting
from dsclora.engines.choice import choose
from dsclora.errors import UsageError
from dsclora.measure.cost import Subject
from dsclora.measure.process import Runner
from dsclora.networks.span import SpanNetwork

WARM_UP = 2  # rounds that are not counted


@dataclass(frozen=True)
class Latency:
    """Measured for one picture of a size.

    Attributes:
        milliseconds: median.
        low, high: the tenth and the ninetieth percentile.
        peak_mb: peak memory of a process of its own, over what it had before it opened the network; NaN on Windows.
    """

    milliseconds: float
    low: float
    high: float
    peak_mb: float


def resolve_runtime(setting: Setting, subjects: Sequence[Subject]) -> Setting:
    """The same runtime for all, named.

    Raises:
        UsageError: an ONNX file, and a runtime that takes none.
        EngineError, MissingExtraError: as `engines.choose`.
    """
    foreign = [s.name for s in subjects if not isinstance(s.network, SpanNetwork)]
    if foreign and setting.device != "cpu":
        raise UsageError(f"{foreign[0]} is an ONNX file, which is measured on the CPU only, not on {setting.device}")
    name = setting.engine
    if foreign and name == "auto":
        name = "openvino"
    spans = [s.network for s in subjects if isinstance(s.network, SpanNetwork)]
    name = choose(replace(setting, engine=name), *spans).name
    if foreign and name not in ("openvino", "onnxruntime"):
        raise UsageError(
            f"{foreign[0]} is an ONNX file, which runs in openvino or onnxruntime; --engine {name} does not"
        )
    return Setting(name, setting.precision, setting.device, setting.threads)


def measure(
    subjects: Sequence[Subject], sizes: Sequence[tuple[int, int]], setting: Setting, runs: int = 20
) -> dict[tuple[str, tuple[int, int]], Latency]:
    """Latency of every network at every size, in turn, each in a process of its own.

    In a script, call it below `if __name__ == "__main__":`: the processes read the script too.

    Args:
        subjects: with distinct names.
        sizes: (height, width) of the input.
        setting: in what; `resolve_runtime` first.
        runs: of each, after the warm-up.

    Raises:
        EngineError: it cannot run.
    """
    measured = {}
    for height, width in sizes:
        with ExitStack() as stack:
            runners = [Runner(subject, setting, stack) for subject in subjects]
            rounds = [[runner.seconds(height, width) for runner in runners] for _ in range(WARM_UP + runs)]
            times = 1e3 * np.array(rounds[WARM_UP:])
            for runner, column in zip(runners, times.T, strict=True):
                low, median, high = (float(v) for v in np.percentile(column, (10, 50, 90)))
                measured[runner.subject.name, (height, width)] = Latency(median, low, high, runner.peak_mb())
    return measured
