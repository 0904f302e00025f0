"""Run networks in processes of their own, to measure their time and memory."""

import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dsclora.engines import Setting
from dsclora.engines.choice import open_engine
from dsclora.errors import DscloraError, EngineError, MissingExtraError
from dsclora.measure.cost import Subject
from dsclora.networks.span import SpanNetwork
from dsclora.pictures.arrays import Float32

PAUSE = 0.05  # s, before a network's turn: threads of the one before may still spin


class Runner:
    """A network in a process of its own, so that its memory is its own and no other's threads are in its way."""

    def __init__(self, subject: Subject, setting: Setting, stack: ExitStack) -> None:
        self._pool, self.subject = stack.enter_context(ProcessPoolExecutor(1, get_context("spawn"))), subject
        self._ask(_open, subject, setting)

    def seconds(self, height: int, width: int) -> float:
        """Of one run on a made-up picture, after one that refills the cache."""
        time.sleep(PAUSE)
        return float(self._ask(_seconds, height, width))

    def enlarge(self, lr: Float32) -> tuple[Float32, float]:
        """What it makes of a picture (1, 3, h, w) in 0..1, and the seconds that it took."""
        time.sleep(PAUSE)
        made: tuple[Float32, float] = self._ask(_enlarge, lr)
        return made

    def peak_mb(self) -> float:
        """Peak memory so far, over what the process had before it opened the network."""
        return float(self._ask(_peak_mb))

    def _ask(self, what: Any, *arguments: Any) -> Any:
        try:
            return self._pool.submit(what, *arguments).result()
        except BrokenProcessPool as error:
            raise EngineError(
                f"{self.subject.name}: the process that runs it ended; out of memory, or a script without "
                'an `if __name__ == "__main__":`?'
            ) from error
        except DscloraError:
            raise
        except Exception as error:  # whatever a runtime raises
            raise EngineError(f"{self.subject.name}: {error}") from error


_state: dict[str, Any] = {}  # of a runner's process


class _Callable(Protocol):
    def __call__(self, batch: Float32) -> Float32: ...


def _open(subject: Subject, setting: Setting) -> None:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: what imports took is forgotten
    _state["before"] = _highest_mb()
    try:
        _state["run"] = opened(subject, setting)
    except MissingExtraError as error:  # does not travel between processes
        raise EngineError(str(error)) from None


def opened(subject: Subject, setting: Setting) -> _Callable:
    """A network ready to run in this process, (1, 3, h, w) float32 in 0..1 to (1, 3, h * scale, w * scale)."""
    if isinstance(subject.network, SpanNetwork):
        return open_engine(subject.network, setting.engine, setting.precision, setting.device, setting.threads)
    if setting.engine == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = setting.threads or 0
        session = onnxruntime.InferenceSession(subject.network, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda batch: session.run(None, {name: batch})[0]
    import openvino

    from dsclora.engines.openvino import HINTS

    core = openvino.Core()
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": HINTS[setting.precision]}
    if setting.threads is not None:
        config["INFERENCE_NUM_THREADS"] = setting.threads
    compiled: dict[tuple[int, ...], Any] = {}

    def run(batch: Float32) -> Float32:
        if batch.shape not in compiled:  # a fixed shape, as SPAN gets it: a dynamic one is slower
            network = core.read_model(subject.network)
            network.reshape(list(batch.shape))
            compiled.clear()
            compiled[batch.shape] = core.compile_model(network, "CPU", config)
        return np.array(compiled[batch.shape]([batch])[0])

    return run


def _seconds(height: int, width: int) -> float:
    if _state.get("size") != (height, width):
        random = np.random.default_rng(0)
        _state["picture"] = random.random((1, 3, height, width), np.float32)
        _state["size"] = (height, width)
    _enlarge(_state["picture"])
    return _enlarge(_state["picture"])[1]


def _enlarge(lr: Float32) -> tuple[Float32, float]:
    begin = time.perf_counter()
    made = _state["run"](lr)
    return made, time.perf_counter() - begin


def _peak_mb() -> float:
    return _highest_mb() - float(_state["before"])


def _highest_mb() -> float:
    """Most memory that the process has held. Not `ru_maxrss` on Linux, which begins with the parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024
