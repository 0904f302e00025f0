"""Write an OpenVINO model."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dsclora.engines.no_telemetry import import_openvino
from dsclora.exports.base import Converted, Precision, append_suffix, describe_shape
from dsclora.networks import Network
from dsclora.networks.adapter import Range

_VNNI = "on x86 without VNNI (AVX2 alone) OpenVINO's sums of int8 products saturate: check its pictures there"


def convert(
    network: Network,
    stem: Path,
    precision: Precision,
    size: tuple[int, int] | None,
    ranges: Mapping[str, Range] | None,
) -> Converted:
    """Write `.xml` and `.bin`, with weights in fp16 where the precision says so."""
    openvino = import_openvino()
    path = append_suffix(stem, ".xml")
    core = openvino.Core()
    proto = network.to_onnx(size=size, ranges=ranges if precision == "int8" else None)
    openvino.save_model(core.read_model(proto.SerializeToString()), path, compress_to_fp16=precision == "fp16")
    compiled = core.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    note = "verified with INFERENCE_PRECISION_HINT f32; say so too: the default of some processors is bf16"
    return Converted(
        f"OpenVINO {openvino.__version__.split('-')[0]}",
        lambda picture: np.array(compiled([picture])[0]),
        (note, describe_shape(size), *((_VNNI,) if precision == "int8" else ())),
    )
