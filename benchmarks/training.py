"""How fast training is: patches a second, the share of time that goes into data, and the ratio to a plain loop.

    python benchmarks/training.py PHOTOGRAPHS [--recipe span-x4] [--teacher MODEL] [--device cpu] [--json]

Rows, in turns in one process, the first stage of the recipe in all of them:
- `plain`: what is usually written: a `DataLoader` of PNG files, decoded for every patch by workers beside the loop; the
  training form as its four convs; float32; the teacher runs on every batch.
- `dsclora`: what `dsclora pretrain` does, in bf16 where the processor has it.
- `compiled`: the same with --compile.
- `constant`: as `dsclora` with one batch again and again, what a data path that takes no time would reach.
"""

import argparse
import copy
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from dsclora import zoo
from dsclora.engines.torch import Torch
from dsclora.errors import TrainingError
from dsclora.networks import span, span_torch
from dsclora.pictures.arrays import Uint8
from dsclora.pictures.pairs import find_pairs
from dsclora.training import pretrain, recipes
from dsclora.training.patches import PairStore, open_store
from dsclora.training.teacher import cache_outputs

Step = Callable[[int], float]
"""Makes one step; returns the seconds that its data took."""

Open = Callable[[], Step]
"""Makes a row ready for a block of steps, outside of the time that is taken."""


class Literal(span_torch.Conv3XC):
    """The training form run as it is written: 1x1, 3x3, 1x1 and the skip, each a conv."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, h, w) to (N, outputs, h, w)."""
        output: Tensor = self.conv(functional.pad(x, (1, 1, 1, 1))) + self.sk(x)
        return output


class Pngs(Dataset[tuple[Tensor, Tensor]]):
    """HR and LR files, decoded for every patch that is cut."""

    def __init__(self, folder: Path, scale: int, patch: int, count: int) -> None:
        self.files, self.scale, self.patch, self.count = sorted(folder.glob("*-hr.png")), scale, patch, count
        self.first = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        random = np.random.default_rng(self.first + index)
        path = self.files[random.integers(len(self.files))]
        hr, lr = (np.asarray(Image.open(p)) for p in (path, path.with_name(path.name.replace("-hr", "-lr"))))
        y, x = (int(random.integers(side - self.patch + 1)) for side in lr.shape[:2])
        turns, flip = int(random.integers(4)), bool(random.integers(2))

        def cut(picture: Uint8, factor: int) -> Tensor:
            side = self.patch * factor
            piece = np.rot90(picture[y * factor :, x * factor :][:side, :side], turns)
            piece = piece[:, ::-1] if flip else piece
            return torch.from_numpy(np.ascontiguousarray(piece.transpose(2, 0, 1))).float().div(255)

        return cut(lr, 1), cut(hr, self.scale)


class Training:
    """A network, its optimiser and its averaged weights; `step` is what the loop does once the loss is there."""

    def __init__(self, net: nn.Module, recipe: recipes.PretrainRecipe) -> None:
        self.net, self.clip = net, recipe.clip
        self.optimiser = torch.optim.Adam(net.parameters(), lr=1e-4, betas=(0.9, 0.99), eps=1e-15)
        self.averaged = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema))  # type: ignore[no-untyped-call]

    def step(self, loss: Tensor) -> None:
        """Gradient, clipped, and one step."""
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), self.clip)
        self.optimiser.step()
        self.averaged.update_parameters(self.net)


def plain(training: Training, teacher: nn.Module | None, pngs: Pngs, batch: int, workers: int) -> Open:
    """The row `plain`. Its workers start and end with each block, so that they decode for no other row's time."""
    device = next(training.net.parameters()).device

    def start() -> Step:
        pngs.first += len(pngs)
        stream = iter(DataLoader(pngs, batch, num_workers=workers, prefetch_factor=1 if workers else None))

        def step(_: int) -> float:
            begin = time.perf_counter()
            lr, hr = (tensor.to(device) for tensor in next(stream))
            data = time.perf_counter() - begin
            sr = training.net(lr)
            loss = functional.l1_loss(sr, hr)
            if teacher is not None:
                with torch.no_grad():
                    wanted = teacher(lr)
                loss = loss + functional.l1_loss(sr, wanted)
            training.step(loss)
            return data

        return step

    return start


def ours(name: str, training: Training, recipe: recipes.PretrainRecipe, store: PairStore) -> Open:
    """The other rows."""
    stage = recipe.stages[0]
    patch = stage.patch // recipe.network.scale
    device = next(training.net.parameters()).device
    first = store.batch(0, 0, stage.batch, patch)
    net = pretrain.compiled(training.net, device) if name == "compiled" else training.net

    def step(number: int) -> float:
        begin = time.perf_counter()
        batch = first if name == "constant" else store.batch(0, number, stage.batch, patch)
        data = time.perf_counter() - begin
        training.step(pretrain.loss_of(net, batch, stage, device))
        return data

    return lambda: step


def make_rows(
    recipe: recipes.PretrainRecipe,
    store: PairStore,
    teacher: span.SpanNetwork | None,
    pngs: Pngs,
    device: torch.device,
    workers: int,
) -> dict[str, Open]:
    """By name; all begin with the same weights."""
    network, stage = recipe.network, recipe.stages[0]
    fresh = span_torch.SpanTrain(network.channels, network.scale, range=network.range)
    lr = store.batch(0, 0, stage.batch, stage.patch // network.scale).lr
    span_torch.lsuv_init(fresh, span_torch.to_tensor(lr), network.spread or 1.0)
    usual = span_torch.Span(network.channels, network.scale, range=network.range, conv=Literal)
    usual.load_state_dict(fresh.state_dict())
    teaching = span_torch.from_network(teacher).to(device) if teacher is not None else None
    rows = {"plain": plain(Training(usual.to(device), recipe), teaching, pngs, stage.batch, workers)}
    for name in ("dsclora", "compiled", "constant"):
        net = copy.deepcopy(fresh).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        try:
            rows[name] = ours(name, Training(net, recipe), recipe, store)
        except TrainingError as error:
            print(f"left out: {error}", file=sys.stderr)
    return rows


def measure(rows: dict[str, Open], rounds: int, block: int) -> dict[str, tuple[float, float]]:
    """By row: seconds a step and the share of data in them, medians over rounds of blocks."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
    for number in range(rounds + 1):
        for name, start in rows.items():
            step = start()
            step(0)  # warms up
            begin = time.perf_counter()
            data = sum(step(number * block + k) for k in range(block))
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds = time.perf_counter() - begin
            del step  # its workers end
            if number:  # the first round warms up
                times[name].append((seconds / block, data / seconds))
    return {
        name: (float(np.median([t for t, _ in pairs])), float(np.median([d for _, d in pairs])))
        for name, pairs in times.items()
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--recipe", default="span-x4")
    parser.add_argument("--teacher", help="bundled model or model file; without one no row distils")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--workers", type=int, default=2, help="of the DataLoader")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--block", type=int, default=10, help="steps in a row")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    recipe, teacher = recipes.load_pretrain(args.recipe), zoo.load(args.teacher) if args.teacher else None
    scale, stage, device = recipe.network.scale, recipe.stages[0], torch.device(args.device)
    if recipe.optimiser != "adam" or recipe.network.form != "training":
        parser.error(f"{args.recipe}: all rows train the training form by Adam; take a recipe that does")
    if teacher is not None and teacher.scale != scale:
        parser.error(
            f"the teacher enlarges x{teacher.scale}, the recipe x{scale}; the plain loop knows nothing of that"
        )
    patch = stage.patch // scale
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        store = open_store(find_pairs(args.photographs, scale), scale, folder / "store")
        if teacher is not None:
            cache_outputs(store, teacher, Torch(teacher, device=args.device))
        for number in range(len(store)):
            if min(store.lr(number).shape[:2]) >= patch:
                Image.fromarray(store.hr(number)).save(folder / f"{number}-hr.png")
                Image.fromarray(store.lr(number)).save(folder / f"{number}-lr.png")
        pngs = Pngs(folder, scale, patch, (args.block + 1) * stage.batch)
        rows = make_rows(recipe, store, teacher, pngs, device, args.workers)
        measured = measure(rows, args.rounds, args.block)
    usual, constant = measured["plain"][0], measured["constant"][0]
    table = [
        {
            "row": name,
            "patches_per_s": round(stage.batch / seconds, 1),
            "data_share": round(share, 4),
            "ratio_to_plain": round(usual / seconds, 3),
            "ratio_to_constant": round(constant / seconds, 3),
        }
        for name, (seconds, share) in measured.items()
    ]
    machine = torch.cuda.get_device_name() if args.device == "cuda" else platform.machine()
    facts = {
        "device": machine,
        "threads": args.threads,
        "workers": args.workers,
        "torch": torch.__version__,
        "precision": span_torch.resolve_precision(stage.precision, device),
        "recipe": Path(args.recipe).stem,
        "teacher": teacher.name if teacher is not None else None,
    }
    if args.json:
        print(json.dumps({**facts, "rows": table}, indent=2))
        return
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    print(f"{'':10} {'patches/s':>10} {'data':>7} {'x plain':>8} {'x constant':>11}")
    for row in table:
        print(
            f"{row['row']:10} {row['patches_per_s']:10.1f} {row['data_share']:7.1%} {row['ratio_to_plain']:8.2f} "
            f"{row['ratio_to_constant']:11.2f}"
        )


if __name__ == "__main__":
    main()
