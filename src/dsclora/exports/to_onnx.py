"""Write an ONNX file."""

from collections.abc import Mapping
from pathlib import Path

from dsclora.exports.base import Converted, Precision, append_suffix, describe_shape
from dsclora.networks import INPUT, OUTPUT, span_graph
from dsclora.networks.adapter import Range
from dsclora.networks.span import SpanNetwork


def convert(
    model: SpanNetwork,
    stem: Path,
    precision: Precision,
    size: tuple[int, int] | None,
    ranges: Mapping[str, Range] | None,
) -> Converted:
    """A file for ONNX Runtime, DirectML, TensorRT, CoreML's converters, browsers."""
    import onnxruntime

    path = append_suffix(stem, ".onnx")
    made = span_graph.build(model, half=precision == "fp16", size=size, ranges=ranges if precision == "int8" else None)
    path.write_bytes(made.SerializeToString())
    about = "a processor without fp16 arithmetic computes it in fp32: so it was verified"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return Converted(
        f"ONNX Runtime {onnxruntime.__version__}",
        lambda picture: session.run(None, {INPUT: picture})[0],
        (
            f"opset {span_graph.OPSET}, {INPUT} (NCHW, RGB, float32, 0..1) to {OUTPUT}",
            describe_shape(size),
            *((about,) if precision == "fp16" else ()),
        ),
    )
