"""Our own kernel on a CPU (`native/`, its own build)."""

import numpy as np

from dsclora.engines import Batch, check_batch, cores
from dsclora.networks.span import SpanNetwork


class Native:
    """`Engine` on the native kernel: Winograd in fp32, rows of activations streamed through all layers."""

    def __init__(self, model: SpanNetwork, threads: int | None = None, kernel: str = "") -> None:
        """Pack the weights.

        Args:
            model: the network to run.
            threads: the most threads; all cores by default. Helpers stay away from a core that is busy.
            kernel: the instruction set, one of `dsclora_native.kernels()`; the best by default.
        """
        import dsclora_native

        self.scale, self.halo, self.multiple = model.scale, model.halo, model.multiple
        self.tile = 2048  # rows are streamed: larger windows need fewer halos, and memory grows with the width alone
        self._threads = threads or cores()
        self._span = dsclora_native.Span(
            dict(model.weights), model.scale, model.channels, model.mean, model.range, kernel
        )
        self.name = f"native {self._span.kernel}, CPU, fp32"

    def __call__(self, batch: Batch) -> Batch:
        """Enlarge a batch, as `Engine` says; the result is a view of (N, h * scale, w * scale, 3)."""
        check_batch(batch)
        count, _, height, width = batch.shape
        enlarged = np.empty((count, height * self.scale, width * self.scale, 3), batch.dtype)
        for source, target in zip(batch, enlarged, strict=True):
            self._span.run(source.transpose(1, 2, 0), target, self._threads)
        return enlarged.transpose(0, 3, 1, 2)

    def enlarge_crop(self, source: Batch, target: Batch, top: int, left: int) -> None:
        """Enlarge the part of a window, as `CroppingEngine` says."""
        if target.strides[1:] == (3 * target.itemsize, target.itemsize):
            self._span.run(source, target, self._threads, top, left)
        else:  # the kernel writes rows of contiguous pixels
            contiguous = np.empty(target.shape, target.dtype)
            self._span.run(source, contiguous, self._threads, top, left)
            target[...] = contiguous
