"""The affinity term: memory and time against the plain definition; bias and spread of the estimate from some rows.

    python experiments/affinity.py --base B --teacher T --pictures DIR

On real features: six SConvLBs, 64 x 64 LR patches, batch 8. Each form runs in a process of its own.
"""

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from dsclora.networks import span, span_torch
from dsclora.pictures.pairs import find_pairs, read_pair
from dsclora.training.losses import spatial_affinity

BATCH, PATCH = 8, 64


def plain(student: Tensor, teacher: Tensor) -> Tensor:
    """FAKD's definition, the HW x HW matrices held whole."""
    s, t = (functional.normalize(f.flatten(2), dim=1) for f in (student, teacher))
    return (s.mT @ s - t.mT @ t).abs().mean()


def features(path: Path, patches: Tensor) -> list[Tensor]:
    """Outputs of the six blocks."""
    net = span_torch.from_network(span.read(path))
    found: list[Tensor] = []
    with torch.no_grad():
        x = net.conv_1((patches - net.mean) * net.range)
        for number in range(1, 7):
            x, _ = net.get_submodule(f"block_{number}")(x)
            found.append(x)
    return found


def megabytes() -> float:
    """Peak of this process (not ru_maxrss, which it inherits from its parent)."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    for name in ("base", "teacher", "pictures"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    parser.add_argument("--form", choices=["plain", "chunked", "rows64"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    pairs = find_pairs(given.pictures, 4)
    pictures = [lr for lr, _ in (read_pair(pair, 4) for pair in pairs) if min(lr.shape[:2]) >= PATCH][:BATCH]
    patches = torch.stack([torch.from_numpy(p[:PATCH, :PATCH].copy()).permute(2, 0, 1) for p in pictures]) / 255
    student = [f.requires_grad_() for f in features(given.base, patches)]
    teacher = features(given.teacher, patches)
    rows = torch.randperm(PATCH**2, generator=torch.Generator().manual_seed(0))[:64]

    if given.form is None:
        print(f"{len(pictures)} patches of {PATCH} x {PATCH}, six taps, one thread")
        for form in ("plain", "chunked", "rows64"):
            command = [sys.executable, __file__, "--form", form]
            command += [str(x) for name in ("base", "teacher", "pictures") for x in (f"--{name}", getattr(given, name))]
            print(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
        spread(student, teacher)
        return
    s, t = (f[:1, :, :8, :8] for f in (student[0], teacher[0]))
    (spatial_affinity(s, t) + plain(s, t)).backward()  # type: ignore[no-untyped-call]  # what torch loads once
    before, begin = megabytes(), time.perf_counter()
    total = torch.zeros(())
    for s, t in zip(student, teacher, strict=True):
        loss = (
            plain(s, t) if given.form == "plain" else spatial_affinity(s, t, rows if given.form == "rows64" else None)
        )
        total = total + loss
    total.backward()  # type: ignore[no-untyped-call]
    print(
        f"{given.form:<8} value {total.item():.6f}  extra memory {megabytes() - before:7.0f} MB  "
        f"value and gradient {time.perf_counter() - begin:6.2f} s"
    )


def spread(student: list[Tensor], teacher: list[Tensor], draws: int = 200) -> None:
    """Bias and spread of the value and of the gradient, of the last tap."""
    s, t = student[-1], teacher[-1]
    exact = spatial_affinity(s, t)
    (wanted,) = torch.autograd.grad(exact, s)
    generator = torch.Generator().manual_seed(1)
    for count in (16, 64, 256):
        values, mean, square = [], torch.zeros_like(wanted), 0.0
        for _ in range(draws):
            rows = torch.randperm(PATCH**2, generator=generator)[:count]
            value = spatial_affinity(s, t, rows)
            (gradient,) = torch.autograd.grad(value, s)
            values.append(value.item())
            mean += gradient / draws
            square += float((gradient - wanted).square().sum()) / draws
        drawn = torch.tensor(values, dtype=torch.float64)
        size = float(wanted.norm())
        print(
            f"rows {count:<4} value: bias {(drawn.mean() / exact.item() - 1).item():+.4f}, "
            f"spread {(drawn.std() / exact.item()).item():.4f} of it; gradient: spread {square**0.5 / size:.2f} of its "
            f"length, mean of {draws} off by {float((mean - wanted).norm()) / size:.3f} (unbiased: "
            f"{square**0.5 / size / draws**0.5:.3f})"
        )


if __name__ == "__main__":
    main()
