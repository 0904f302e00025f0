"""What a network costs: parameters, multiply-adds, activations and convs by count, memory and latency by measurement.

Counts follow fvcore, which the NTIRE challenges use: a conv costs `outputs * inputs / groups * k * k` multiply-adds
(MACs; the challenges' tables call them FLOPs, although a multiply-add is two), a bilinear resize four per output
element, a nearest one one, global pooling one per input element, biases, other resizes and everything pointwise
nothing; activations are the elements that convs put out. Weights that several convs share are counted once.
"""

import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx

from dsclora import graph, weights, zoo
from dsclora.engines import Precision, choose, open_engine
from dsclora.errors import DscloraError, EngineError, MissingExtraError, ModelError, UsageError
from dsclora.weights import Model

Float32 = npt.NDArray[np.float32]
WARM_UP = 2  # rounds that are not counted
PAUSE = 0.05  # s, before a network's turn: threads of the one before may still spin
_UNCOUNTED = (
    *("ConvTranspose", "ConvInteger", "QLinearConv", "DeformConv", "GridSample"),
    *("MatMul", "MatMulInteger", "QLinearMatMul", "Gemm", "Einsum", "Attention", "LSTM", "GRU", "RNN"),
    *("BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization"),
)
_RESIZES = {"linear": 4, "nearest": 1}  # multiply-adds per output element


@dataclass(frozen=True)
class Subject:
    """A network to be measured.

    Attributes:
        name: for the table.
        network: a SPAN, or any network of an ONNX file: one float32 input (batch, 3, height, width), RGB in 0..1.
        scale: factor.
    """

    name: str
    network: Model | bytes
    scale: int


@dataclass(frozen=True)
class Cost:
    """Counted for one picture of a size.

    Attributes:
        parameters: weights and biases of convs, slopes of PReLUs.
        macs: multiply-adds.
        activations: elements put out by convs.
        convs: how many.
    """

    parameters: int
    macs: int
    activations: int
    convs: int


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


def load(name: str) -> Subject:
    """A bundled model, or a file: ours, anybody's SPAN (`.pth`, `.safetensors`), or ONNX.

    Raises:
        ModelError: none of these.
    """
    path = Path(name)
    if path.suffix.lower() == ".onnx":
        try:
            content = path.read_bytes()
            shape = _sides(_inferred(onnx.load_from_string(content), 16, 24)[-1])
        except OSError as error:
            raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
        except Exception as error:  # onnx and protobuf have no common type for damage
            raise ModelError(f"{path}: not an ONNX network that can be measured ({error})") from error
        if len(shape) != 4 or shape[1] != 3 or not shape[2] or shape[2] % 16:
            raise ModelError(f"{path}: makes {shape} of a picture of 24 x 16; not an enlargement")
        return Subject(path.stem, content, shape[2] // 16)
    model = weights.import_file(path) if path.is_file() else zoo.load(name)
    return Subject(model.name, model, model.scale)


def count(subject: Subject, height: int, width: int) -> Cost:
    """Count by the rules above, for one picture.

    Raises:
        ModelError: arithmetic or sizes that are not counted here.
    """
    proto = _proto(subject)
    shapes = {tensor.name: list(tensor.dims) for tensor in proto.graph.initializer}
    try:
        for info in _inferred(proto, height, width):
            shapes[info.name] = _sides(info)
    except Exception as error:  # onnx has no common type for what it cannot infer
        raise ModelError(f"{subject.name}: its shapes cannot be told ({error})") from error

    def size(name: str) -> int:
        if not shapes.get(name) or 0 in shapes[name]:
            raise ModelError(f"{subject.name}: the size of {name!r} is not known before it runs; it cannot be counted")
        return int(np.prod(shapes[name]))

    macs = activations = convs = 0
    weighted = set[str]()
    inner = {function.name for function in proto.functions}
    for node in proto.graph.node:
        branches = any(a.type in (a.GRAPH, a.GRAPHS) for a in node.attribute)  # of If, Loop, Scan
        if node.op_type in _UNCOUNTED or branches or node.op_type in inner:
            raise ModelError(f"{subject.name}: has a {node.op_type}, whose arithmetic is not counted here")
        if node.op_type == "Conv":
            made = size(node.output[0])
            macs += made * (size(node.input[1]) // shapes[node.input[1]][0])
            activations, convs = activations + made, convs + 1
        if node.op_type == "Resize":
            mode = next((a.s.decode() for a in node.attribute if a.name == "mode"), "nearest")
            macs += size(node.output[0]) * _RESIZES.get(mode, 0)
        if node.op_type == "GlobalAveragePool":
            macs += size(node.input[0])
        if node.op_type in ("Conv", "PRelu"):
            weighted.update(name for name in node.input[1:] if name)
    return Cost(sum(map(size, weighted)), macs, activations, convs)


def _proto(subject: Subject) -> onnx.ModelProto:
    network = subject.network
    return graph.build(network) if isinstance(network, Model) else onnx.load_from_string(network)


def _inferred(proto: onnx.ModelProto, height: int, width: int) -> list[Any]:
    """Every value of the graph with its shape for one picture of a size; the output is the last."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(proto)
    (given,) = [i for i in fixed.graph.input if i.name not in {t.name for t in fixed.graph.initializer}]
    for dimension, size in zip(given.type.tensor_type.shape.dim, (1, 3, height, width), strict=True):
        dimension.dim_value = size
    fixed.graph.ClearField("value_info")  # exporters leave the shapes of their own size
    for made in fixed.graph.output:
        made.type.tensor_type.ClearField("shape")
    fixed = onnx.shape_inference.infer_shapes(fixed, check_type=True, strict_mode=True, data_prop=True)
    return [given, *fixed.graph.value_info, *fixed.graph.output]


def _sides(info: onnx.ValueInfoProto) -> list[int]:
    """Of a value of a graph; 0 where one is not known."""
    return [dimension.dim_value for dimension in info.type.tensor_type.shape.dim]


@dataclass(frozen=True)
class Setting:
    """In what a network runs: as `engines.open_engine`; an ONNX file in OpenVINO or ONNX Runtime."""

    engine: str = "auto"
    precision: Precision = "fp32"
    device: str = "cpu"
    threads: int | None = None


def settled(setting: Setting, subjects: Sequence[Subject]) -> Setting:
    """The same runtime for all, named.

    Raises:
        UsageError: an ONNX file, and a runtime that takes none.
        EngineError, MissingExtraError: as `engines.choose`.
    """
    foreign = [s.name for s in subjects if not isinstance(s.network, Model)]
    if foreign and setting.device != "cpu":
        raise UsageError(f"{foreign[0]} is an ONNX file, which is measured on the CPU only, not on {setting.device}")
    name = setting.engine
    if foreign and name == "auto":
        name = "openvino"
    scale = max((s.network.scale for s in subjects if isinstance(s.network, Model)), default=None)
    name = choose(name, setting.device, setting.precision, scale).name
    if foreign and name not in ("openvino", "onnxruntime"):
        raise UsageError(
            f"{foreign[0]} is an ONNX file, which runs in openvino or onnxruntime; --engine {name} does not"
        )
    return Setting(name, setting.precision, setting.device, setting.threads)


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


def measure(
    subjects: Sequence[Subject], sizes: Sequence[tuple[int, int]], setting: Setting, runs: int = 20
) -> dict[tuple[str, tuple[int, int]], Latency]:
    """Latency of every network at every size, in turn, each in a process of its own.

    In a script, call it below `if __name__ == "__main__":`: the processes read the script too.

    Args:
        subjects: with distinct names.
        sizes: (height, width) of the input.
        setting: in what; `settled` first.
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
    if isinstance(subject.network, Model):
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
