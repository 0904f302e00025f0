"""Write an ONNX file."""

from collections.abc import Mapping
from pathlib import Path

from dsclora.engines.no_telemetry import import_onnxruntime
from dsclora.exports.base import Converted, Precision, append_suffix, describe_shape
from dsclora.networks import INPUT, OUTPUT, Network
from dsclora.networks.adapter import Range


def convert(
    network: Network,
    stem: Path,
    precision: Precision,
    size: tuple[int, int] | None,
    ranges: Mapping[str, Range] | None,
) -> Converted:
    """Write `.onnx`, for ONNX Runtime, DirectML, TensorRT, converters to CoreML, and browsers."""
    onnxruntime = import_onnxruntime()
    path = append_suffix(stem, ".onnx")
    int8_ranges = ranges if precision == "int8" else None
    proto = network.to_onnx(half=precision == "fp16", size=size, ranges=int8_ranges)
    path.write_bytes(proto.SerializeToString())
    opset = next(each.version for each in proto.opset_import if each.domain in ("", "ai.onnx"))
    about = "verified in fp32 arithmetic, which processors without fp16 arithmetic use"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return Converted(
        f"ONNX Runtime {onnxruntime.__version__}",
        lambda picture: session.run(None, {INPUT: picture})[0],
        (
            f"opset {opset}, {INPUT} (NCHW, RGB, float32, 0..1) to {OUTPUT}",
            describe_shape(size),
            *((about,) if precision == "fp16" else ()),
        ),
    )
