"""Write an ncnn model by pnnx."""

import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from dsclora.errors import EngineError
from dsclora.exports.base import Converted, Layout, Precision, append_suffix, round_up
from dsclora.networks import Network
from dsclora.pictures.arrays import Float32

_SHAPES = ("inputshape", "inputshape2")  # options of pnnx


def convert(network: Network, stem: Path, precision: Precision, layout: Layout) -> Converted:
    """Write `.param` and `.bin` by pnnx, for ncnn on phones and Vulkan."""
    import ncnn
    import pnnx

    if layout == "plain":  # pnnx's own way; Upscayl's has the bare name
        stem = append_suffix(stem, ".ncnn")
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "span.onnx"
        source.write_bytes(network.to_onnx().SerializeToString())
        # two sizes, so that neither becomes a constant
        shapes = [[1, 3, *round_up(size, network.multiple)] for size in ((64, 64), (80, 96))]
        sizes = [
            f"{key}={json.dumps(shape, separators=(',', ':'))}" for key, shape in zip(_SHAPES, shapes, strict=True)
        ]
        command = [str(pnnx.EXEC_PATH), str(source), *sizes, f"fp16={int(precision == 'fp16')}"]
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
        parts = [Path(scratch) / f"span.ncnn.{kind}" for kind in ("param", "bin")]
        if done.returncode or not all(part.exists() for part in parts):
            last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it prints no reason"]
            raise EngineError(f"{stem.name}: pnnx does not convert it: {last[0]}")
        text = parts[0].read_text()
        source_blob, target_blob = "in0", "out0"
        if layout == "upscayl":
            text = re.sub(r"\bin0\b", "data", re.sub(r"\bout0\b", "output", text))
            source_blob, target_blob = "data", "output"
        append_suffix(stem, ".param").write_text(text)
        shutil.copyfile(parts[1], append_suffix(stem, ".bin"))
    net = ncnn.Net()
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    if net.load_param(str(append_suffix(stem, ".param"))) or net.load_model(str(append_suffix(stem, ".bin"))):
        raise EngineError(f"{stem.name}: ncnn does not load pnnx's file; it may lack an operator of this network")

    def run(picture: Float32) -> Float32:
        extractor = net.create_extractor()
        extractor.input(source_blob, ncnn.Mat(picture[0]).clone())
        failed, sr = extractor.extract(target_blob)
        if failed:
            raise RuntimeError(f"error {failed}")
        return np.array(sr)[None]

    notes = [f"blobs {source_blob} (RGB, 0..1) to {target_blob}"]
    notes.append(
        "verified with fp32 arithmetic (use_fp16_arithmetic and the like off); ncnn's default on phones is fp16"
    )
    if layout == "upscayl":
        if not re.search(rf"x{network.scale}|{network.scale}x", stem.name):
            notes.append(f"Upscayl reads the factor from the name: put x{network.scale} into it")
        notes.append("copy both files into Upscayl's custom models folder")
    return Converted(f"ncnn {ncnn.__version__}", run, tuple(notes))
