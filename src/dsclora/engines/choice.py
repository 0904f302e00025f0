"""The runtimes, and the choice between them."""

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from dsclora.engines import DEFAULT_SETTING, Engine, Precision, Setting, cores
from dsclora.engines.no_telemetry import import_openvino
from dsclora.errors import EngineError, MissingExtraError
from dsclora.networks import Network

_AT_ONCE = 4  # engines open at the same time; each takes its memory


def native_kernels() -> list[str]:
    """Return the native kernel's instruction sets for this processor, the best first; none if it cannot be loaded."""
    try:
        import dsclora_native
    except ImportError:  # not installed, or built for another Python or C++ library
        return []
    return list(dsclora_native.kernels())


@cache
def bf16_on_cpu() -> bool:
    """Return whether OpenVINO computes in bf16 on this processor (AVX512_BF16 or the like); elsewhere it takes fp32."""
    return "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@dataclass(frozen=True)
class Runtime:
    """A runtime that dsclora can use.

    Attributes:
        name: the value of `--engine`.
        package: the package that must be importable.
        extra: the extra of dsclora that brings it; "" for the main package, None for a package of its own.
        devices: where it can run.
        precisions: the numbers that it can compute with.
        architectures: the only kinds of network that it runs; None for all.
        excluded: kinds of network that it does not run.
        largest_scale: the largest scale of a network, where there is a limit.
    """

    name: str
    package: str
    extra: str | None
    devices: tuple[str, ...]
    precisions: tuple[Precision, ...]
    architectures: frozenset[str] | None = None
    excluded: frozenset[str] = frozenset()
    largest_scale: float = math.inf

    @property
    def installed(self) -> bool:
        """True if its package can be found; nothing is imported."""
        return importlib.util.find_spec(self.package) is not None

    @property
    def usable(self) -> bool:
        """True if it is installed, can be loaded and fits this processor."""
        if self.package != "dsclora_native" or not self.installed:
            return self.installed
        return bool(native_kernels())

    @property
    def install(self) -> str:
        """The command that installs it."""
        if self.extra is None:
            return f"pip install ./{self.name} in a checkout (needs a C++ compiler)"
        return f"pip install 'dsclora[{self.extra}]'" if self.extra else "pip install dsclora"

    def refusal(self, network: Network) -> str | None:
        """Return the reason why it cannot run a network; None if it can."""
        kind = network.architecture
        if (self.architectures is not None and kind not in self.architectures) or kind in self.excluded:
            return f"engine {self.name} does not run {network.name or 'the network'}, which is of the kind {kind!r}"
        if network.scale > self.largest_scale:
            return (
                f"engine {self.name} enlarges {self.largest_scale:g} times at most, this network {network.scale} times"
            )
        return None


RUNTIMES = (
    Runtime("native", "dsclora_native", None, ("cpu",), ("fp32",), architectures=frozenset({"span"}), largest_scale=4),
    Runtime("openvino", "openvino", "", ("cpu",), ("fp32", "bf16")),
    Runtime("onnxruntime", "onnxruntime", "ort", ("cpu",), ("fp32",)),
    Runtime("torch", "torch", "train", ("cpu", "cuda", "mps"), ("fp32", "bf16"), excluded=frozenset({"onnx"})),
)
"""The runtimes, in order of preference."""


def choose(setting: Setting = DEFAULT_SETTING, *networks: Network) -> Runtime:
    """Return the runtime that a setting names, or the preferred one that can run the networks in that setting.

    Args:
        setting: an engine's name or "auto", device and precision.
        networks: the networks to run, all of them in the one runtime.

    Raises:
        EngineError: unknown name or device, or ones that do not fit each other, the precision, a network or this
            processor.
        MissingExtraError: not installed.
    """
    fitting = _fitting(setting, networks)
    for runtime in fitting:
        if runtime.usable:
            if runtime.name == "openvino" and setting.precision == "bf16" and not bf16_on_cpu():
                raise EngineError("OpenVINO does not compute in bf16 on this processor; leave out --precision")
            return runtime
    preferred = fitting[0] if setting.engine != "auto" else next(r for r in fitting if r.extra is not None)
    if preferred.installed:
        raise EngineError(f"engine {preferred.name} cannot run on this processor; use --engine openvino")
    raise MissingExtraError(preferred.package, preferred.extra or "", f"engine {preferred.name}", preferred.install)


def _fitting(setting: Setting, networks: Sequence[Network]) -> list[Runtime]:
    """Return the runtimes that fit a setting and all networks, installed or not; at least one."""
    name, device, precision = setting.engine, setting.device, setting.precision
    if device not in {d for r in RUNTIMES for d in r.devices}:
        raise EngineError(f"unknown device {device!r}: choose cpu, cuda or mps")
    if name != "auto" and name not in {r.name for r in RUNTIMES}:
        raise EngineError(f"unknown engine {name!r}: choose auto, {', '.join(r.name for r in RUNTIMES)}")
    fitting = [r for r in RUNTIMES if device in r.devices and name in ("auto", r.name)]
    if not fitting:
        raise EngineError(f"engine {name} does not run on {device}; use --engine torch")
    fitting = [r for r in fitting if precision in r.precisions]
    if not fitting:
        raise EngineError(f"engine {name} has no {precision} on a CPU; leave out --precision")
    refusals = {r.name: next(filter(None, map(r.refusal, networks)), None) for r in fitting}
    if all(refusals.values()):
        remedy = "leave out --engine" if device == "cpu" else "leave out --device"
        raise EngineError(f"{next(iter(refusals.values()))}; {remedy}")
    return [r for r in fitting if not refusals[r.name]]


def open_engine(network: Network, setting: Setting = DEFAULT_SETTING) -> Engine:
    """Make a network ready to run.

    Args:
        network: the network to run.
        setting: the runtime, or "auto", and its settings.

    Raises:
        EngineError, MissingExtraError: as `choose`; or the runtime cannot do this precision.
        ModelError: the network has no form that the runtime takes.
    """
    runtime = choose(setting, network)
    if runtime.name == "native":
        from dsclora.engines.native import Native
        from dsclora.networks.span import SpanNetwork

        assert isinstance(network, SpanNetwork)  # by `Runtime.architectures`
        return Native(network, setting.threads)
    if runtime.name == "openvino":
        from dsclora.engines.openvino import OpenVino

        return OpenVino(network, setting.precision, setting.threads)
    if runtime.name == "onnxruntime":
        from dsclora.engines.onnxruntime import OnnxRuntime

        return OnnxRuntime(network, setting.threads)
    from dsclora.engines.torch import Torch

    return Torch(network, setting.precision, setting.device, setting.threads)


def open_engines(network: Network, most: int, setting: Setting = DEFAULT_SETTING) -> list[Engine]:
    """Open as many engines as are worth running on different pictures at the same time.

    Native engines share the threads. Threads of other runtimes would slow each other down: of these, one is opened.

    Args:
        network: as `open_engine`.
        most: the number of pictures.
        setting: as `open_engine`; `threads` counts those of all engines together, by default all cores.
    """
    if choose(setting, network).name != "native":
        return [open_engine(network, setting)]
    total = setting.threads or cores()
    count = max(1, min(most, total, _AT_ONCE))
    shares = [total // count + (n < total % count) for n in range(count)]
    return [open_engine(network, replace(setting, threads=share)) for share in shares]
