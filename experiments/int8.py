"""What int8 costs, and what each ingredient buys: PSNR on folders in the real runtime, classic-y.

python experiments/int8.py BASE PHOTOGRAPHS --adapter INT8-ADAPTER --on Set14 BSD100 [--engine openvino]
"""

import argparse
import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from dsclora import zoo
from dsclora.engines import Setting
from dsclora.engines.choice import open_engine
from dsclora.measure import evaluate
from dsclora.networks import adapter, span_torch
from dsclora.networks.adapter import Range
from dsclora.networks.onnx_network import OnnxNetwork
from dsclora.networks.span import SpanNetwork
from dsclora.pictures import metrics
from dsclora.pictures.arrays import Uint8
from dsclora.pictures.pairs import find_pairs
from dsclora.training import fake_quant, quantize
from dsclora.training.patches import PairStore, open_store


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("photographs", type=Path, help="to calibrate on")
    parser.add_argument("--adapter", help="made by dsclora quantize")
    parser.add_argument("--on", type=Path, nargs="+", required=True)
    parser.add_argument("--engine", choices=["openvino", "onnxruntime"], default="openvino")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("runs/int8"))
    arguments = parser.parse_args()
    base = zoo.load(arguments.base)
    store = open_store(find_pairs(arguments.photographs, base.scale), base.scale, arguments.work)
    net = span_torch.from_network(base)
    calibrate = partial(fake_quant.calibrate, net)

    def patches(store: PairStore) -> Iterator[torch.Tensor]:
        return quantize.patches(store, 0, 192 // base.scale)

    variants: dict[str, tuple[SpanNetwork, dict[str, Range] | None]] = {
        "fp32": (base, None),
        "all convs in int8, calibrated": (base, calibrate(patches(store), 0.0, ())),
        "the first and the last in float": (base, calibrate(patches(store), 0.0)),
        "channels balanced too": (base, calibrate(patches(store))),
    }
    if arguments.adapter:
        added = zoo.load_adapter(arguments.adapter)
        merged = adapter.merge(base, [(added, 1.0)])
        variants["update and ranges trained"] = (merged, dict(added.ranges))
        variants["the same weights in fp32"] = (merged, None)
    for name, (model, ranges) in variants.items():
        proto = model.to_onnx(ranges=ranges).SerializeToString()
        setting = Setting(arguments.engine, threads=arguments.threads)
        network = open_engine(OnnxNetwork(proto, base.scale, name=name), setting)

        def run(lr: Uint8, network=network) -> Uint8:  # type: ignore[no-untyped-def]
            made = network(np.ascontiguousarray(lr.transpose(2, 0, 1)[None] / np.float32(255), np.float32))
            rounded: Uint8 = np.rint(made[0].transpose(1, 2, 0).clip(0, 1) * 255).astype(np.uint8)
            return rounded

        row: dict[str, object] = {"variant": name, "convs_in_int8": len(ranges or {})}
        for folder in arguments.on:
            pairs = find_pairs(folder, base.scale)
            scores = evaluate.scores(run, pairs, base.scale, metrics.protocol("classic-y", base.scale))
            row[folder.name] = round(evaluate.mean(scores)[0], 4)
        picture = np.random.default_rng(0).random((1, 3, 256, 256), np.float32)
        times = []
        for _ in range(9):
            begin = time.perf_counter()
            network(picture)
            times.append(time.perf_counter() - begin)
        row["ms"] = round(1e3 * float(np.median(times)), 1)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
