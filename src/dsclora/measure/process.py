"""Run networks in processes of their own, to measure their time and memory."""

import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from dsclora.engines import Setting
from dsclora.engines.choice import open_engine
from dsclora.errors import DscloraError, EngineError, MissingExtraError
from dsclora.networks import Float32, Network

PAUSE = 0.05  # s, before a network's turn: threads of the one before may still spin


class Runner:
    """A network in a process of its own, so that its memory is its own and no other's threads are in its way."""

    def __init__(self, network: Network, setting: Setting, stack: ExitStack) -> None:
        self._pool, self.network = stack.enter_context(ProcessPoolExecutor(1, get_context("spawn"))), network
        self._ask(_open, network, setting)

    def seconds(self, height: int, width: int) -> float:
        """Return the seconds of one run on a random picture, after one that refills the cache."""
        time.sleep(PAUSE)
        return float(self._ask(_seconds, height, width))

    def enlarge(self, lr: Float32) -> tuple[Float32, float]:
        """Return the enlarged picture of a picture (1, 3, h, w) in 0..1, and the seconds that it took."""
        time.sleep(PAUSE)
        answer: tuple[Float32, float] = self._ask(_enlarge, lr)
        return answer

    def peak_mb(self) -> float:
        """Return the peak memory so far, in MiB over that of the process before it opened the network."""
        return float(self._ask(_peak_mb))

    def _ask(self, function: Any, *arguments: Any) -> Any:
        try:
            return self._pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise EngineError(
                f"{self.network.name}: the process that runs it ended; out of memory, or a script without "
                'an `if __name__ == "__main__":`?'
            ) from error
        except EngineError as error:
            raise type(error)(f"{self.network.name}: {error}") from error
        except DscloraError:
            raise
        except Exception as error:  # runtimes have no common type of error
            raise EngineError(f"{self.network.name}: {error}") from error


_state: dict[str, Any] = {}  # the state of a runner's process


def _open(network: Network, setting: Setting) -> None:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak of the imports is forgotten
    _state["before"] = _highest_mb()
    try:
        _state["engine"] = open_engine(network, setting)
    except MissingExtraError as error:  # it cannot be pickled
        raise EngineError(str(error)) from None


def _seconds(height: int, width: int) -> float:
    if _state.get("size") != (height, width):
        random = np.random.default_rng(0)
        _state["picture"] = random.random((1, 3, height, width), np.float32)
        _state["size"] = (height, width)
    _enlarge(_state["picture"])
    return _enlarge(_state["picture"])[1]


def _enlarge(lr: Float32) -> tuple[Float32, float]:
    begin = time.perf_counter()
    sr = _state["engine"](lr)
    return sr, time.perf_counter() - begin


def _peak_mb() -> float:
    return _highest_mb() - float(_state["before"])


def _highest_mb() -> float:
    """Return the peak memory of this process. Not `ru_maxrss` on Linux, which begins with the parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024
