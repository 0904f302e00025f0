"""Measure the latency and memory of networks, side by side, each in a process of its own."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from dsclora.engines import Setting
from dsclora.engines.choice import choose
from dsclora.errors import UsageError
from dsclora.measure.process import Runner
from dsclora.networks import Network, check_size

WARM_UP = 2  # rounds that are not counted


@dataclass(frozen=True)
class Latency:
    """The latency of one picture of a size.

    Attributes:
        milliseconds: median.
        low, high: the tenth and the ninetieth percentile.
        peak_mb: peak memory of a process of its own, over what it had before it opened the network; NaN on Windows.
    """

    milliseconds: float
    low: float
    high: float
    peak_mb: float


def resolve_runtime(setting: Setting, networks: Sequence[Network]) -> Setting:
    """Return the setting with the one runtime, by name, that all networks are to run in.

    Raises:
        UsageError: an ONNX file, and a device or runtime that takes none.
        EngineError, MissingExtraError: as `choice.choose`.
    """
    file = next((network.name for network in networks if network.architecture == "onnx"), None)
    if file is not None and setting.device != "cpu":
        raise UsageError(f"{file} is an ONNX file, which is measured on the CPU only, not on {setting.device}")
    if file is not None and setting.engine in ("native", "torch"):
        raise UsageError(
            f"{file} is an ONNX file, which runs in openvino or onnxruntime; --engine {setting.engine} does not"
        )
    return replace(setting, engine=choose(setting, *networks).name)


def measure(
    networks: Sequence[Network], sizes: Sequence[tuple[int, int]], setting: Setting, runs: int = 20
) -> dict[tuple[str, tuple[int, int]], Latency]:
    """Measure the latency of every network at every size, in turn, each in a process of its own.

    In a script, call it below `if __name__ == "__main__":`: the processes read the script too.

    Args:
        networks: with distinct names.
        sizes: (height, width) of the input.
        setting: the runtime, from `resolve_runtime`.
        runs: the runs of each network, after the warm-up.

    Raises:
        UsageError: a network does not take a size.
        EngineError: it cannot run.
    """
    for network in networks:
        for size in sizes:
            check_size(network, *size)
    measured = {}
    for height, width in sizes:
        with ExitStack() as stack:
            runners = [Runner(network, setting, stack) for network in networks]
            rounds = [[runner.seconds(height, width) for runner in runners] for _ in range(WARM_UP + runs)]
            times = 1e3 * np.array(rounds[WARM_UP:])
            for runner, column in zip(runners, times.T, strict=True):
                low, median, high = (float(v) for v in np.percentile(column, (10, 50, 90)))
                measured[runner.network.name, (height, width)] = Latency(median, low, high, runner.peak_mb())
    return measured
