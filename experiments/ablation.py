"""What each part of the method is worth, at equal budget: one row of the table per call, or all of them.

    python experiments/ablation.py ROW... --base B [--teacher T] --train DIR [--valid DIR] [--guard DIR] --out DIR
        [--teach-own] [--iterations N]

Every row trains on the same patches (same seed) with its own learning rate, chosen on `valid`; `valid` also chooses the
best weights. Without it a part of `train` is held out to choose by, as in `dsclora adapt`; a guard works as there too.
The benchmarks are looked at once, by `compare.py BASE OUT/ROW.safetensors`.
"""

import argparse
import copy
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from dsclora import zoo
from dsclora.networks import span, span_torch
from dsclora.training import convlora, loop
from dsclora.training.convlora import LAYERED, Target
from dsclora.training.objective import Objective
from dsclora.training.patches import PairStore, open_store
from dsclora.training.recipes import AdaptRecipe, Lora, load_adapt
from dsclora.training.run import Run
from dsclora.training.selection import find_selection
from dsclora.training.teacher import taught_stores
from dsclora.training.validation import ValidationSet


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        targets: convs and ranks; None for no low-rank updates.
        trained: without updates, which parameters are trained, by name.
        ts, ad: weights of pixel distillation and of the spatial affinity.
        rate: peak learning rate.
        rounds: the budget is divided into so many; the updates are merged after each.
    """

    targets: tuple[Target, ...] | None = LAYERED
    trained: Callable[[str], bool] = lambda _: False
    ts: float = 1.0
    ad: float = 0.0
    rate: float = 2e-3
    rounds: int = 1


def of_rank(rank: int) -> tuple[Target, ...]:
    """The layered set's convs, all of one rank, with the authors' multiplier of 2."""
    return tuple(Target(t.convs, rank, 2.0 * rank) for t in LAYERED)


ROWS = {
    "rec": Row(ts=0.0),
    "rec+ts": Row(),
    "rec+ad": Row(ts=0.0, ad=0.002),
    "rec+ts+ad": Row(ad=0.002),
    "rank1": Row(of_rank(1)),
    "rank2": Row(of_rank(2)),
    "rank4": Row(of_rank(4)),
    "rank8": Row(of_rank(8)),
    "all-convs": Row((*LAYERED, Target("conv_1.eval_conv", 2, 4), Target("conv_cat", 8, 16))),
    "full": Row(None, lambda _: True, rate=3e-4),
    "biases": Row(None, lambda name: name.endswith("bias")),
    "rounds": Row(rounds=2),
}


def main() -> None:
    """Train the rows asked for and print their figures on `valid`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    for name in ("base", "train", "out"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    for name in ("teacher", "valid", "guard"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--teach-own", action="store_true", help="as the key of `dsclora adapt`'s recipe")
    parser.add_argument("--iterations", type=int, default=2000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    base = span.read(given.base)
    # with a guard the base can teach, as in `dsclora adapt`
    teaches = given.teacher or (given.base if given.guard else None)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    selection = find_selection(load_adapt(zoo.adapt_recipe()), given.train, base.scale, given.valid, given.guard)
    valid = ValidationSet.read(selection.validation, base.scale)
    store = open_store(selection.train, base.scale, given.out / "pictures")
    guard = open_store(selection.guard, base.scale, given.out / "guard") if selection.guard else None
    teaching = None
    if teaches:
        teacher = span.read(teaches)
        teaching = span_torch.from_network(teacher).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for one in taught_stores(store, guard, given.teach_own):
            one.add_teacher(teacher.fingerprint[:16], span_torch.uint8_function(teaching))
    for name in given.rows or ROWS:
        row, begin = ROWS[name], time.perf_counter()
        plain = span_torch.from_network(base)
        for number in range(row.rounds):
            plain, best, count = train(row, plain, (store, guard), valid, teaching, given, f"{name}-{number}")
        span.write(
            given.out / f"{name}.safetensors", span_torch.to_network(plain, {"row": name}, "MIT"), overwrite=True
        )
        facts = {"row": name, "trained": count, "valid": round(best, 4), "seconds": round(time.perf_counter() - begin)}
        print(json.dumps(facts), flush=True)


def train(
    row: Row, plain: nn.Module, stores: tuple[PairStore, PairStore | None], valid: ValidationSet,
    teaching: span_torch.Span | None, given: argparse.Namespace, name: str,
) -> tuple[span_torch.Span, float, int]:  # fmt: skip
    """One round: the network with what was learnt merged in, its PSNR on `valid`, and how many numbers were trained."""
    if row.targets is None:
        net = copy.deepcopy(plain)
        for parameter_name, parameter in net.named_parameters():
            parameter.requires_grad_(row.trained(parameter_name))
    else:
        net = convlora.attach(plain, row.targets)
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    stage = {
        "iterations": given.iterations // row.rounds,
        "learning_rate": row.rate,
        "warmup": 50,
        "teacher_weight": row.ts if teaching else 0.0,
        "affinity_weight": row.ad,
    }
    lora = [Lora(convs="*", rank=1, alpha=1)]
    recipe = AdaptRecipe(stage=[stage], lora=lora, teach_own=given.teach_own)  # type: ignore[call-arg]
    taps = [f"block_{number}" for number in range(1, 7)]
    objective = Objective(recipe, *stores, teaching if row.ad else None, taps)
    folder = given.out / f"{name}.run"
    fitted, best = loop.Training(
        net,
        recipe.stages,
        objective,
        lambda candidate: valid.score(convlora.detach(candidate, merged=True)),
        Run(folder, resume=True),
        loop.Settings(ema=0.995, clip=1.0, validate_every=250, checkpoint_every=250, validate_first=True),
        json.dumps([name, {k: str(v) for k, v in vars(given).items() if k not in ("rows", "out")}]),
    ).train()
    merged = convlora.detach(fitted, merged=True)
    assert isinstance(merged, span_torch.Span)
    return merged, best, sum(p.numel() for p in net.parameters() if p.requires_grad)


if __name__ == "__main__":
    main()
