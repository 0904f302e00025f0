"""Our own kernel on a CPU (`native/`, its own build)."""

import numpy as np
import numpy.typing as npt

from dsclora.engines import Batch, check_batch, cores
from dsclora.networks.span import BLOCKS, SpanNetwork

Float64 = npt.NDArray[np.float64]


class Native:
    """`Engine` on the native kernel: Winograd in fp32, rows of activations streamed through all layers."""

    def __init__(self, model: SpanNetwork, threads: int | None = None, kernel: str = "") -> None:
        """Pack the weights.

        Args:
            model: its weights.
            threads: at most; all cores by default. Helpers stay away from a core that is busy.
            kernel: instruction set, one of `dsclora_native.kernels()`; the best by default.
        """
        import dsclora_native

        self.scale, self.halo, self.multiple = model.scale, model.halo, model.multiple
        self.tile = 2048  # it streams: larger windows spare halos, and memory grows with the width alone
        self._threads = threads or cores()
        self._span = dsclora_native.Span(*_folded(model), model.scale, list(model.mean), model.range, kernel)
        self.name = f"native {self._span.kernel}, CPU, fp32"

    def __call__(self, batch: Batch) -> Batch:
        """See `Engine`. The result is a view of (N, h * scale, w * scale, 3)."""
        check_batch(batch)
        count, _, height, width = batch.shape
        made = np.empty((count, height * self.scale, width * self.scale, 3), batch.dtype)
        for source, target in zip(batch, made, strict=True):
            self._span.run(source.transpose(1, 2, 0), target, self._threads)
        return made.transpose(0, 3, 1, 2)


def _folded(model: SpanNetwork) -> tuple[object, ...]:
    """The network's convs, what is linear between two of them folded into one, exactly but for rounding.

    `conv_cat` is linear in each of its four inputs, and two of them, `conv_1` and `conv_2`, are 3x3 convs with nothing
    non-linear behind: each becomes, with its part of `conv_cat`, a 3x3 conv. Zero padding is on their inputs: it stays.
    """
    t = {key: value.astype(np.float64) for key, value in model.weights.items()}
    names = ["conv_1", *(f"block_{b}.c{c}_r" for b in range(1, BLOCKS + 1) for c in (1, 2, 3))]
    weight = {n: t[f"{n}.eval_conv.weight"] for n in (*names, "conv_2")}
    bias = {n: t[f"{n}.eval_conv.bias"] for n in (*names, "conv_2")}
    first, second, block_1, inner = np.split(t["conv_cat.weight"][:, :, 0, 0], 4, axis=1)
    joint = np.concatenate([_after(second, weight["conv_2"]), _after(first, weight["conv_1"])], axis=1)
    joint_bias = t["conv_cat.bias"] + second @ bias["conv_2"] + first @ bias["conv_1"]
    return (
        [_float32(weight[n]) for n in names],
        [_float32(bias[n]) for n in names],
        _float32(joint),
        _float32(joint_bias),
        _float32(np.concatenate([block_1, inner], axis=1)),
        _float32(t["upsampler.0.weight"]),
        _float32(t["upsampler.0.bias"]),
    )


def _after(pointwise: Float64, conv: Float64) -> Float64:
    """The 3x3 conv that a 1x1 conv (outputs, channels) makes of another (channels, inputs, 3, 3)."""
    made: Float64 = np.einsum("oc,ciyx->oiyx", pointwise, conv)
    return made


def _float32(array: Float64) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(array, np.float32)
