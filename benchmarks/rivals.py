"""What users would pick instead, on the same weights: `open_...(model, threads)` gives a function of float32 pictures.

(1, 3, h, w) in 0..1 to (1, 3, h * scale, w * scale).
"""

import enum
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from dsclora import export, graph
from dsclora.weights import Model

Float32 = npt.NDArray[np.float32]
Run = Callable[[Float32], Float32]


def open_ncnn(model: Model, threads: int) -> tuple[Run, str]:
    """Tencent's ncnn on the CPU, fp32 storage and arithmetic, weights by pnnx."""
    with tempfile.TemporaryDirectory() as folder:
        made = export._ncnn(model, Path(folder) / "span", "fp32", "plain", threads)
    return made.run, made.runtime


def open_mnn(model: Model, threads: int) -> tuple[Run, str]:
    """Alibaba's MNN on the CPU, high precision."""
    import MNN
    from MNN import expr, nn

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "span.onnx", Path(folder) / "span.mnn"
        source.write_bytes(graph.build(model).SerializeToString())
        converter = Path(sys.executable).with_name("mnnconvert")
        command = [converter, "-f", "ONNX", "--modelFile", source, "--MNNModel", target, "--bizCode", "span"]
        subprocess.run([str(word) for word in command], check=True, capture_output=True)
        manager = nn.create_runtime_manager(({"backend": "CPU", "precision": "high", "numThread": threads},))
        net = nn.load_module_from_file(str(target), ["input"], ["output"], runtime_manager=manager)

    def run(batch: Float32) -> Float32:
        given = expr.convert(expr.const(batch, batch.shape, expr.NCHW), expr.NC4HW4)
        made = net.forward([given])
        made = made[0] if isinstance(made, list) else made
        return np.array(expr.convert(made, expr.NCHW).read())

    return run, f"MNN {MNN.version()}"


def open_spandrel(model: Model, threads: int) -> tuple[Run, str]:
    """The SPAN class of spandrel, what chaiNNer and ComfyUI run, eager and with planes in memory."""
    import torch

    if "torchvision" not in sys.modules:
        try:
            import torchvision  # noqa: F401
        except (ImportError, RuntimeError):  # a stand-in: three names of it are imported for other networks
            part = ModuleType("torchvision.transforms.functional")
            part.__dict__.update(
                InterpolationMode=enum.Enum("InterpolationMode", "BILINEAR"), rotate=None, normalize=None
            )
            sys.modules |= {n: ModuleType(n) for n in ("torchvision", "torchvision.transforms")} | {part.__name__: part}
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        made = export._spandrel(model, Path(folder) / "span")
    return made.run, made.runtime


def open_compiled(model: Model, threads: int) -> tuple[Run, str]:
    """`torch.compile` of our network, channels last."""
    import torch

    from dsclora import span

    torch.set_num_threads(threads)
    net: Any = span.from_model(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    compiled: Any = torch.compile(net, dynamic=False)

    def run(batch: Float32) -> Float32:
        with torch.inference_mode():
            lr = torch.from_numpy(batch).to(memory_format=torch.channels_last)
            return compiled(lr).clamp(0, 1).contiguous().numpy()  # type: ignore[no-any-return]

    return run, f"torch.compile {torch.__version__}"


RIVALS = {"ncnn": open_ncnn, "mnn": open_mnn, "spandrel": open_spandrel, "torch-compile": open_compiled}
