"""Write the training form that spandrel, chaiNNer and ComfyUI recognise."""

from pathlib import Path

import numpy as np

from dsclora.errors import UsageError
from dsclora.exports.base import Converted, append_suffix
from dsclora.networks import Network, span, tensor_file
from dsclora.networks.span import SpanNetwork
from dsclora.pictures.arrays import Float32

ARCHITECTURES = ("span",)
"""The kinds of network that this target takes."""


def convert(network: Network, stem: Path) -> Converted:
    """Write the training form, lossless, which spandrel, chaiNNer and ComfyUI recognise."""
    import spandrel
    import torch

    assert isinstance(network, SpanNetwork)  # by `ARCHITECTURES`
    plain, norm = _normalised(network)
    path = append_suffix(stem.with_name(f"{network.scale}x_{stem.name}"), ".safetensors")
    tensors = training_form(plain) | ({} if norm else {"no_norm": np.zeros(1, np.float32)})
    tensor_file.write_safetensors(path, tensors, {"format": "pt"}, False)
    loaded = spandrel.ModelLoader().load_from_file(path).eval()

    def run(picture: Float32) -> Float32:
        with torch.inference_mode():
            return loaded(torch.from_numpy(picture)).numpy()  # type: ignore[no-any-return]

    kind = f"{loaded.architecture.name} x{loaded.scale}"
    return Converted(f"spandrel {spandrel.__version__}", run, (f"recognised as {kind}", "for chaiNNer and ComfyUI"))


def _normalised(model: SpanNetwork) -> tuple[SpanNetwork, bool]:
    """Return the same function on an input that spandrel's SPAN knows, and whether that has SPAN's mean and range.

    Raises:
        UsageError: another mean, which zero padding keeps from being folded into the first conv's bias.
    """
    if model.mean == span.SPAN_MEAN:
        return span.with_range(model, span.SPAN_RANGE), True
    if not any(model.mean):
        return span.with_range(model, 1.0), False
    raise UsageError(f"{model.name}: a SPAN in spandrel has the mean {span.SPAN_MEAN} or none, not {model.mean}")


def training_form(model: SpanNetwork) -> dict[str, Float32]:
    """Return the training form that collapses exactly to a plain network: 1x1 convs around every 3x3 pass values on.

    The skip is zero, the first 1x1 copies the inputs into the first half of its outputs, the last one takes the first
    half; so every other factor is 0 or 1.

    Returns:
        the official training keys, `eval_conv` among them.
    """
    tensors = dict(model.weights)
    for name in span.CONVS_3X3:
        weight, bias = (model.weights[f"{name}.eval_conv.{kind}"] for kind in ("weight", "bias"))
        outputs, inputs = weight.shape[:2]
        middle = np.zeros((2 * outputs, 2 * inputs, 3, 3), np.float32)
        middle[:outputs, :inputs] = weight
        parts = {
            "sk": (np.zeros((outputs, inputs)), np.zeros(outputs)),
            "conv.0": (np.eye(2 * inputs, inputs), np.zeros(2 * inputs)),
            "conv.1": (middle, np.concatenate([bias, np.zeros(outputs)])),
            "conv.2": (np.eye(outputs, 2 * outputs), np.zeros(outputs)),
        }
        for part, (of_part, shift) in parts.items():
            kernel = of_part if of_part.ndim == 4 else of_part[..., None, None]
            tensors[f"{name}.{part}.weight"] = kernel.astype(np.float32)
            tensors[f"{name}.{part}.bias"] = shift.astype(np.float32)
    return tensors
