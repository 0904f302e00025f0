"""The NTIRE efficient super-resolution challenges: their protocol over a folder, their score, a submission's layout.

By https://github.com/Amazingren/NTIRE2025_ESR and its successor of 2026. Their runtimes are CUDA events on one GPU of
theirs; here a runtime is the wall time of one call on this machine, the baseline's measured in turn with the others.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from dsclora.engines import Setting
from dsclora.errors import ImageError, UsageError
from dsclora.measure.cost import Cost, count_cost
from dsclora.measure.process import Runner
from dsclora.networks import Network, check_size
from dsclora.pictures import metrics
from dsclora.pictures.pairs import Pair, read_pair

SCALE = 4

COUNTED_AT = (256, 256)  # (height, width) of the input for MACs and activations


@dataclass(frozen=True)
class Preset:
    """The scoring of a challenge: the weighted sum of `exp(2 * value / baseline's)`, lower is better.

    Attributes:
        baseline: the name of the baseline network.
        weights: the weights of runtime, MACs and parameters.
        valid, test: PSNR in dB to be reached on DIV2K_LSDIR valid and test.
    """

    baseline: str
    weights: Mapping[str, float]
    valid: float = 26.90
    test: float = 26.99

    def scores(self, values: Mapping[str, float], baseline: Mapping[str, float]) -> dict[str, float]:
        """Return the score of each criterion, and "final"."""
        scores = {key: float(np.exp(2 * values[key] / baseline[key])) for key in self.weights}
        return scores | {"final": sum(weight * scores[key] for key, weight in self.weights.items())}


PRESETS = {
    "ntire2025": Preset("EFDN", {"runtime": 0.7, "macs": 0.15, "parameters": 0.15}),
    "ntire2026": Preset("SPAN of 28 channels", {"runtime": 0.8, "macs": 0.1, "parameters": 0.1}),
}


@dataclass(frozen=True)
class Entry:
    """A row of the challenge's table.

    Attributes:
        name: the network's name; the baseline's row is the first.
        psnr: in dB: RGB, uint8, 4 pixels cut; the mean over the pictures.
        runtime: milliseconds, the mean over pictures and repetitions.
        cost: at 256 x 256.
        peak_mb: memory of its process.
        scores: by criterion, and "final".
    """

    name: str
    psnr: float
    runtime: float
    cost: Cost
    peak_mb: float
    scores: Mapping[str, float]


def compete(
    preset: Preset,
    baseline: Network,
    entries: Sequence[Network],
    pairs: Sequence[Pair],
    setting: Setting,
    runs: int = 5,
    report: Callable[[int], None] = lambda _: None,
) -> list[Entry]:
    """Run the protocol: every picture through every network, in turn, several times.

    In a script, call it below `if __name__ == "__main__":`, as `latency.measure`.

    Args:
        preset: the challenge's rules.
        baseline, entries: x4 networks of distinct names.
        pairs: LR and HR pictures.
        setting: the runtime of all, from `latency.resolve_runtime`.
        runs: repetitions, after one that is not counted.
        report: called with the number of pictures done.

    Raises:
        UsageError: not x4, a baseline that costs nothing, or a picture of a size that a network does not take.
        ModelError: as `cost.count_cost`.
        ImageError, EngineError: a picture cannot be read, a network cannot run.
    """
    networks = [baseline, *entries]
    for network in networks:
        if network.scale != SCALE:
            raise UsageError(f"{network.name} enlarges {network.scale} times; the challenge is x{SCALE}")
    costs = [count_cost(network, *COUNTED_AT) for network in networks]
    if not costs[0].macs or not costs[0].parameters:
        raise UsageError(f"{baseline.name}: a baseline without parameters gives no score")
    protocol = metrics.protocol("ntire-rgb", SCALE)
    decibels: list[list[float]] = []
    seconds: list[list[float]] = []
    with ExitStack() as stack:
        runners = [Runner(network, setting, stack) for network in networks]
        for number, pair in enumerate(pairs, 1):
            lr, hr = read_pair(pair, SCALE)
            for network in networks:
                check_size(network, *lr.shape[:2])
            batch = np.ascontiguousarray(lr.transpose(2, 0, 1)[None] / np.float32(255), np.float32)
            if min(hr.shape[:2]) <= 2 * protocol.border:
                raise ImageError(f"{pair.hr}: nothing is left of it inside the protocol's border, {protocol.border}")
            enlarged = [runner.enlarge(batch)[0][0].transpose(1, 2, 0) for runner in runners]  # also the warm-up
            decibels.append([protocol.psnr(np.rint(sr.clip(0, 1) * 255).astype(np.uint8), hr) for sr in enlarged])
            seconds.append(np.mean([[runner.enlarge(batch)[1] for runner in runners] for _ in range(runs)], 0).tolist())
            report(number)
        peaks = [runner.peak_mb() for runner in runners]
    psnr, runtime = np.mean(decibels, axis=0), 1e3 * np.mean(seconds, axis=0)
    values = [
        {"runtime": float(took), "macs": float(cost.macs), "parameters": float(cost.parameters)}
        for took, cost in zip(runtime, costs, strict=True)
    ]
    return [
        Entry(s.name, float(psnr[i]), float(runtime[i]), costs[i], peaks[i], preset.scores(values[i], values[0]))
        for i, s in enumerate(networks)
    ]
