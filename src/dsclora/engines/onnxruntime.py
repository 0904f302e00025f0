"""ONNX Runtime on a CPU."""

from typing import Any

import numpy as np

from dsclora.engines import TILE, Batch, check_batch, failed
from dsclora.engines.no_telemetry import import_onnxruntime
from dsclora.networks import INPUT, Network


class OnnxRuntime:
    """`Engine` on ONNX Runtime; fp32 only."""

    def __init__(self, network: Network, threads: int | None = None) -> None:
        onnxruntime = import_onnxruntime()
        self.scale, self.halo, self.multiple, self.tile = network.scale, network.halo, network.multiple, TILE
        self.name = f"ONNX Runtime {onnxruntime.__version__}, CPU, fp32"
        self._network, self._runtime = network, onnxruntime
        self._options = onnxruntime.SessionOptions()
        self._options.log_severity_level = 4  # failures are raised; do not print them too
        if threads is not None:
            self._options.intra_op_num_threads = threads
        self._sessions: dict[np.dtype[Any], Any] = {}

    def __call__(self, batch: Batch) -> Batch:
        """See `Engine`."""
        check_batch(batch)
        try:
            if batch.dtype not in self._sessions:
                proto = self._network.to_onnx(batch.dtype).SerializeToString()
                self._sessions[batch.dtype] = self._runtime.InferenceSession(
                    proto, self._options, providers=["CPUExecutionProvider"]
                )
            inputs = {INPUT: np.ascontiguousarray(batch)}
            output: Batch = self._sessions[batch.dtype].run(None, inputs)[0]
            return output
        except Exception as error:
            raise failed("ONNX Runtime", batch, error) from error
