"""PyTorch on a CPU, an NVIDIA GPU or Apple's."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from dsclora.engines import TILE, Batch, Precision, check_batch, failed
from dsclora.errors import EngineError
from dsclora.networks import Network


@contextmanager
def _settings_of_process(threads: int | None) -> Iterator[None]:
    """Compute with so many threads and without TF32, and leave the process's settings as they were."""
    before = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False  # fp32 is to mean fp32
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


class Torch:
    """`Engine` on PyTorch."""

    def __init__(
        self, network: Network, precision: Precision = "fp32", device: str = "cpu", threads: int | None = None
    ) -> None:
        if (device == "cuda" and not torch.cuda.is_available()) or (
            device == "mps" and not torch.backends.mps.is_available()
        ):
            raise EngineError(f"PyTorch {torch.__version__} sees no {device} device here; use --device cpu")
        self.scale, self.halo, self.multiple, self.tile = network.scale, network.halo, network.multiple, TILE
        self.name = f"PyTorch {torch.__version__}, {device}, {precision}"
        self._device, self._precision, self._threads = device, precision, threads
        self._net = network.to_torch().eval().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, batch: Batch) -> Batch:
        """See `Engine`."""
        check_batch(batch)
        try:
            with (
                _settings_of_process(self._threads),
                torch.inference_mode(),
                torch.autocast(self._device, torch.bfloat16, enabled=self._precision == "bf16"),
            ):
                x = torch.from_numpy(np.array(batch)).to(self._device)
                if batch.dtype == np.float32:
                    y = self._net(x).float().clamp(0, 1)
                else:
                    peak = float(np.iinfo(batch.dtype).max)
                    y = self._net(x.float().div(peak)).float().mul(peak).round().clamp(0, peak).to(x.dtype)
            output: Batch = y.contiguous().cpu().numpy()
            return output
        except (RuntimeError, MemoryError) as error:
            raise failed("PyTorch", batch, error) from error
