"""The one training loop: optimiser, averaged weights, validation, checkpoints, exact resume.

It knows no files but its own checkpoint and log, no network and no data: those come as functions of the step.
"""

import bisect
import copy
import itertools
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dsclora.errors import OutputError, TrainingError
from dsclora.training import processes
from dsclora.training.soap import Soap


class Curve(Protocol):
    """What the loop needs to know of a stage (`recipes.Stage` is one)."""

    @property
    def iterations(self) -> int:
        """Steps of the stage."""
        ...

    @property
    def warmup(self) -> int:
        """Steps of linear rise."""
        ...

    @property
    def learning_rate(self) -> float:
        """Peak."""
        ...

    @property
    def final_learning_rate(self) -> float:
        """At the end."""
        ...


StageT = TypeVar("StageT", bound=Curve)

COLLAPSE = 3.0
"""A score so many dB below the best means that training diverged."""

SLOWDOWNS = 8
"""How often the learning rate is halved from one sound validation to the next before a run is ended."""


@dataclass(frozen=True)
class Progress:
    """What is reported as training goes on.

    Attributes:
        step, steps: iterations done and in all.
        loss: mean since the last report.
        learning_rate: of the last step.
        seconds_per_step: since the last report.
        seconds_left: at the mean speed so far, validations and all.
        score: of the averaged weights, where they were just validated.
        best: highest score so far.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float
    seconds_per_step: float
    seconds_left: float
    score: float | None
    best: float


def learning_rate(stage: Curve, step: int) -> float:
    """Learning rate of a stage's step (from 0): linear warm-up, then a half cosine down."""
    if step < stage.warmup:
        return stage.learning_rate * (step + 1) / stage.warmup
    done = (step - stage.warmup) / max(1, stage.iterations - stage.warmup)
    fall = 0.5 * (1 + math.cos(math.pi * done))
    return stage.final_learning_rate + (stage.learning_rate - stage.final_learning_rate) * fall


def check_shares(batches: Sequence[int]) -> None:
    """Check that batches, or parts of them, divide among the processes.

    Raises:
        TrainingError: one does not.
    """
    size = processes.world_size()
    for batch in batches:
        if batch % size:
            raise TrainingError(f"a batch of {batch} patches does not divide among {size} processes")


def precision(directory: Path, resume: bool, here: str, say: Callable[[str], None]) -> str:
    """What `auto` stands for in a run: what suits the processor it began on, and goes on so where it is resumed.

    Args:
        directory: of the run, where it is written down.
        resume: whether the run goes on.
        here: what suits this processor, "bf16" or "fp32"; on several processes that of the first counts.
        say: told where that is another.

    Raises:
        OutputError: the folder cannot be written.
    """
    path = directory / "precision"

    def decide() -> str:
        if resume and path.exists() and (begun := path.read_text()) in ("bf16", "fp32"):
            if begun != here:
                say(f"{directory}: goes on in {begun}, in which it began, though here {here} is the faster")
            return begun
        directory.mkdir(parents=True, exist_ok=True)
        path.write_text(here)
        return here

    try:
        return processes.from_rank_0(decide)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror})") from error


def fit(
    net: nn.Module,
    stages: Sequence[StageT],
    loss: Callable[[nn.Module, StageT, int], Tensor],
    score: Callable[[nn.Module], float],
    directory: Path,
    *,
    method: str = "adam",
    ema: float,
    clip: float,
    validate_every: int,
    checkpoint_every: int,
    identity: str,
    resume: bool = False,
    validate_first: bool = False,
    report: Callable[[Progress], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
    report_every: int = 100,
) -> tuple[nn.Module, float]:
    """Train a network in place and return its averaged weights at their best.

    A checkpoint (`checkpoint.pt`) holds everything that the next step depends on, so a resumed run ends bit for bit
    where an uninterrupted one does, on the same CPU with the same number of threads and processes. Where training
    diverges (weights that are not finite, or a score `COLLAPSE` dB below the best), it goes back to the last
    validation and on with half the learning rate, up to `SLOWDOWNS` times; then it ends there, with its best weights
    if they are better than those first validated.

    Args:
        net: trained in place; only parameters that require gradients change.
        stages: one after the other; the optimiser's state is kept across.
        loss: of the network, the stage and the step (counted from 0 over all stages); must depend on nothing else, but
            for `parallel.share`. On several processes each counts its share, and the mean is minimised.
        score: of the averaged network, the higher the better.
        directory: for `checkpoint.pt`, `log.jsonl` and, where TensorBoard is installed, its log.
        method: the optimiser, "adam" or "soap".
        ema: decay of the averaged weights.
        clip: largest norm of the gradient; a longer one is shortened to it.
        validate_every, checkpoint_every, report_every: iterations.
        identity: of the recipe and data; resuming under another one is refused.
        resume: go on from the checkpoint where there is one.
        validate_first: score the network before the first step too; it is then a candidate for the best.
        report: called at every report and validation.
        say: called with a line of text for whatever else a user should know.

    Returns:
        the averaged network with the weights that scored highest, and that score.

    Raises:
        TrainingError: resuming another run or from a damaged checkpoint; training diverges again and again,
            and nothing was learnt before.
        OutputError: a checkpoint cannot be written.
    """
    if processes.from_rank_0(lambda: identity) != identity:
        raise TrainingError(f"{directory}: recipe, pictures or models are not those of the first process")
    trained = [p for p in net.parameters() if p.requires_grad]
    # each attention of a fresh SPAN multiplies by nearly zero; with Adam's usual epsilon of 1e-8 blocks 2 to 5 stood
    # still for 19,000 iterations, their gradients 1e-15 to 1e-12 (measured)
    adam = partial(torch.optim.Adam, betas=(0.9, 0.99), eps=1e-15)
    optimiser = (Soap if method == "soap" else adam)(trained, lr=1.0)
    averaged = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(ema), use_buffers=False)  # type: ignore[no-untyped-call]
    averaged.requires_grad_(False)
    best_state = _copy(averaged.module.state_dict())
    best, at_first, slowdowns, attempts = -math.inf, math.inf, 0, 0
    path = directory / "checkpoint.pt"

    def snapshot(step: int) -> dict[str, Any]:
        return {
            "identity": identity,
            "step": step,
            "net": net.state_dict(),
            "averaged": averaged.state_dict(),
            "optimiser": optimiser.state_dict(),
            "best": best,
            "best_state": best_state,
            "at_first": at_first,
            "slowdowns": slowdowns,
            "attempts": attempts,
        }

    def restore(saved: dict[str, Any]) -> int:
        nonlocal best, best_state, at_first, slowdowns, attempts
        saved = _copy(saved)
        net.load_state_dict(saved["net"])
        averaged.load_state_dict(saved["averaged"])
        optimiser.load_state_dict(saved["optimiser"])
        best, best_state, at_first = saved["best"], saved["best_state"], saved["at_first"]
        slowdowns, attempts = saved["slowdowns"], saved["attempts"]
        return int(saved["step"])

    steps = sum(stage.iterations for stage in stages)
    ends = list(itertools.accumulate(stage.iterations for stage in stages))
    first = processes.rank() == 0
    directory.mkdir(parents=True, exist_ok=True)
    if first and not resume:
        for stale in (directory / "log.jsonl", *directory.glob("events.out.tfevents.*")):
            stale.unlink(missing_ok=True)
    with (directory / "log.jsonl" if first else Path(os.devnull)).open("a", encoding="utf-8") as log:

        def write_log(row: dict[str, Any]) -> None:
            log.write(json.dumps({"time": time.time(), **row}) + "\n")
            log.flush()

        board = _board(directory) if first else None

        def tell(progress: Progress) -> None:
            if board is not None:
                for name in ("loss", "learning_rate", "score"):
                    if (number := getattr(progress, name)) is not None and math.isfinite(number):
                        board.add_scalar(name, number, progress.step)
            write_log({k: v if v is None or math.isfinite(v) else None for k, v in vars(progress).items()})
            report(progress)

        def validate() -> float:
            averaged.eval()
            return processes.from_rank_0(lambda: score(averaged.module))

        def save(state: dict[str, Any]) -> None:
            if first:
                _save(path, {**state, "good": good})

        saved = processes.from_rank_0(lambda: _load(path, identity) if resume and path.exists() else None)
        if saved is not None:
            step = restore(saved)
        else:
            step = 0
            processes.broadcast([p.detach() for p in (*trained, *averaged.parameters())])  # they may differ by rounding
            if validate_first:
                best = at_first = validate()
                tell(Progress(0, steps, math.nan, 0.0, 0.0, math.inf, best, best))
        good: dict[str, Any] = (saved or {}).get("good") or _copy(snapshot(step))  # gone back to after divergence
        total, counted, clock = torch.zeros(()), 0, time.perf_counter()
        begun, worked = clock, 0
        while step < steps:
            number = bisect.bisect_right(ends, step)
            stage = stages[number]
            rate = learning_rate(stage, step - (ends[number] - stage.iterations)) * 0.5**slowdowns
            for group in optimiser.param_groups:
                group["lr"] = rate
            net.train()
            optimiser.zero_grad(set_to_none=True)
            value = loss(net, stage, step)
            value.backward()  # type: ignore[no-untyped-call]
            processes.average([p.grad for p in trained if p.grad is not None])
            nn.utils.clip_grad_norm_(trained, clip)
            optimiser.step()
            averaged.update_parameters(net)
            total, counted, worked = total + value.detach(), counted + 1, worked + 1
            step += 1

            validating = step % validate_every == 0 or step == steps
            saving = step % checkpoint_every == 0 or step == steps
            reporting = validating or step % report_every == 0
            if not (saving or reporting):
                continue
            sound = processes.from_rank_0(lambda: all(bool(p.isfinite().all()) for p in trained))
            current = None
            if validating and sound:
                current = validate()
                sound = math.isfinite(current) and current > best - COLLAPSE
                if best == -math.inf:
                    at_first = current
                if sound and current > best:
                    best, best_state = current, _copy(averaged.module.state_dict())
            if sound and reporting:
                now = time.perf_counter()
                left = (steps - step) * (now - begun) / worked
                processes.average([total])
                tell(Progress(step, steps, float(total) / counted, rate, (now - clock) / counted, left, current, best))
            if sound and validating:  # a state that was not validated may be one that has collapsed already
                attempts = 0
                good = _copy(snapshot(step))
            if sound and saving:
                save(snapshot(step))
            if not sound:
                if attempts == SLOWDOWNS:
                    problem = f"training diverged before iteration {step}, even at a rate of {rate:.1e}"
                    if not best > at_first:
                        raise TrainingError(
                            f"{directory}: {problem}; start anew in another folder, with a smaller learning rate"
                        )
                    say(f"{problem}; it ends here, with the best weights of the {good['step']} iterations before")
                    write_log({"diverged": step, "ended": good["step"]})
                    break
                diverged = step
                step = restore({**good, "slowdowns": slowdowns + 1, "attempts": attempts + 1})
                good = _copy(snapshot(step))
                save(good)
                write_log({"diverged": diverged, "back_to": step, "slowdowns": slowdowns})
                say(f"diverged before iteration {diverged}; back to {step}, on with half the learning rate")
            if not sound or reporting:
                total, counted, clock = torch.zeros(()), 0, time.perf_counter()
        if board is not None:
            board.close()
    averaged.module.load_state_dict(best_state)
    averaged.eval()
    return averaged.module, best


def _board(directory: Path) -> Any:
    """A TensorBoard log in the run's folder, where TensorBoard is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(directory)


def _copy(state: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(dict(state))


def _load(path: Path, identity: str) -> dict[str, Any]:
    try:
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged archive
        raise TrainingError(f"{path}: damaged; start anew in another folder") from error
    if saved["identity"] != identity:
        raise TrainingError(
            f"{path}: belongs to another recipe, other pictures or another teacher; start anew in another folder"
        )
    return saved


def _save(path: Path, state: dict[str, Any]) -> None:
    growing = path.with_suffix(".part")
    try:
        with growing.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        growing.replace(path)
    except (OSError, RuntimeError) as error:
        raise OutputError(f"{path}: checkpoint cannot be written ({error})") from error
