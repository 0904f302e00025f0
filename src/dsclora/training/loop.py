"""The one training loop: optimiser, averaged weights, validation, checkpoints, exact resume.

It knows neither network nor data: those come as functions of the step.
"""

import bisect
import copy
import itertools
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dsclora.errors import TrainingError
from dsclora.training import processes
from dsclora.training.run import Log, Progress, Run
from dsclora.training.soap import Soap

logger = logging.getLogger("dsclora")


class Curve(Protocol):
    """The part of a stage that the loop needs (`recipes.Stage` is one)."""

    @property
    def iterations(self) -> int:
        """The stage's steps."""
        ...

    @property
    def warmup(self) -> int:
        """The steps of linear rise."""
        ...

    @property
    def learning_rate(self) -> float:
        """The peak."""
        ...

    @property
    def final_learning_rate(self) -> float:
        """The rate at the end."""
        ...


StageT = TypeVar("StageT", bound=Curve)

DIVERGENCE_DB = 3.0
"""A score so many dB below the best means that training diverged."""

SLOWDOWNS = 8
"""The most times that the learning rate is halved from one sound validation to the next before a run ends."""


@dataclass(frozen=True)
class Settings:
    """The settings of a training, beside its stages.

    Attributes:
        optimiser: "adam" or "soap".
        ema: decay of the averaged weights.
        clip: largest norm of the gradient; a longer one is shortened to it.
        validate_every, checkpoint_every, report_every: iterations.
        validate_first: score the network before the first step too; it is then a candidate for the best.
    """

    ema: float
    clip: float
    validate_every: int
    checkpoint_every: int
    optimiser: str = "adam"
    validate_first: bool = False
    report_every: int = 100


@dataclass(frozen=True)
class Part:
    """The position of a part in a run: a chain of parts is trained one after the other, each by its own `Training`.

    Attributes:
        number: from 0.
        before: steps of the parts before.
        steps: steps of all parts; None for those of this one.
    """

    number: int = 0
    before: int = 0
    steps: int | None = None


def learning_rate(stage: Curve, step: int) -> float:
    """Return the learning rate of a stage's step (from 0): linear warm-up, then a half cosine down."""
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


class Training(Generic[StageT]):
    """The training of a network in place, from the first step or a checkpoint to its averaged weights at their best.

    A checkpoint holds everything that the next step depends on, so a resumed run ends bit for bit where an
    uninterrupted one does, on the same CPU with the same number of threads and processes. Where training diverges
    (weights that are not finite, or a score `DIVERGENCE_DB` below the best), it goes back to the last validation and on
    with half the learning rate, up to `SLOWDOWNS` times; then it ends there, with its best weights if they are better
    than those first validated.

    Args:
        net: the network, trained in place; only parameters that require gradients change.
        stages: one after the other; the optimiser's state is kept across.
        objective: the loss of the network, the stage and the step (counted from 0 over all stages); must depend on
            nothing else, but for `processes.shard`. On several processes each counts its share, and the mean is
            minimised.
        score: the score of the averaged network; higher is better.
        run: the folder, and whether to resume.
        settings: optimiser, averaging and intervals.
        identity: the hash of recipe and data; resuming under another one is refused.
        part: the position of these stages in the run.

    Raises:
        TrainingError: recipe and data are not those of the first process.
    """

    def __init__(
        self,
        net: nn.Module,
        stages: Sequence[StageT],
        objective: Callable[[nn.Module, StageT, int], Tensor],
        score: Callable[[nn.Module], float],
        run: Run,
        settings: Settings,
        identity: str,
        part: Part = Part(),
    ) -> None:
        if processes.from_rank_0(lambda: identity) != identity:
            raise TrainingError(f"{run.folder}: recipe, pictures or models are not those of the first process")
        self.net, self._stages, self._objective, self._score = net, list(stages), objective, score
        self._run, self._settings, self._identity, self._part = run, settings, identity, part
        self._ends = list(itertools.accumulate(stage.iterations for stage in stages))
        self.steps = self._ends[-1]
        self._trained = [p for p in net.parameters() if p.requires_grad]
        self._optimiser = _optimiser(settings.optimiser, self._trained)
        average = get_ema_multi_avg_fn(settings.ema)  # type: ignore[no-untyped-call]
        self._averaged = AveragedModel(net, multi_avg_fn=average, use_buffers=False)
        self._averaged.requires_grad_(False)
        self.done, self.rate = 0, 0.0
        self.best, self._at_first, self._slowdowns, self._attempts = -math.inf, math.inf, 0, 0
        self._best_state = _copy(self._averaged.module.state_dict())
        self._good: dict[str, Any] = {}  # the state to go back to after divergence
        self._ended = False
        self._losses, self._counted, self._clock = torch.zeros(()), 0, 0.0  # since the last report
        self._begun, self._worked = 0.0, 0  # since the start of this process

    def train(self) -> tuple[nn.Module, float]:
        """Train to the end.

        Returns:
            the averaged network with the weights that scored highest, and that score.

        Raises:
            TrainingError: resuming another run or from a damaged checkpoint; training diverges again and again, and
                nothing was learnt before.
            OutputError: a checkpoint cannot be written.
        """
        with Log(self._run) as self._log:
            self._begin()
            while self.done < self.steps and not self._ended:
                self.step()
                if self._is_due(self._settings.checkpoint_every) or self._is_reporting():
                    self._inspect()
        self._averaged.module.load_state_dict(self._best_state)
        self._averaged.eval()
        return self._averaged.module, self.best

    def step(self) -> None:
        """Take one step along the gradient of the loss."""
        number = bisect.bisect_right(self._ends, self.done)
        stage = self._stages[number]
        of_stage = self.done - (self._ends[number] - stage.iterations)
        self.rate = learning_rate(stage, of_stage) * 0.5**self._slowdowns
        for group in self._optimiser.param_groups:
            group["lr"] = self.rate
        self.net.train()
        self._optimiser.zero_grad(set_to_none=True)
        loss = self._objective(self.net, stage, self.done)
        loss.backward()  # type: ignore[no-untyped-call]
        processes.average([p.grad for p in self._trained if p.grad is not None])
        nn.utils.clip_grad_norm_(self._trained, self._settings.clip)
        self._optimiser.step()
        self._averaged.update_parameters(self.net)
        self._losses, self._counted = self._losses + loss.detach(), self._counted + 1
        self._worked += 1
        self.done += 1

    def validate(self) -> float:
        """Return the score of the averaged weights; the first process counts."""
        self._averaged.eval()
        return processes.from_rank_0(lambda: self._score(self._averaged.module))

    def recover(self) -> None:
        """Go back to the last sound validation and halve the learning rate; or end there, after many attempts.

        Raises:
            TrainingError: nothing was learnt before.
        """
        before, diverged, last = self._part.before, self.done, self._good["step"]
        problem = f"training diverged before iteration {before + diverged}"
        if self._attempts == SLOWDOWNS:
            problem += f", even at a rate of {self.rate:.1e}"
            if not self.best > self._at_first:
                raise TrainingError(
                    f"{self._run.folder}: {problem}; start anew in another folder, with a smaller learning rate"
                )
            logger.warning(
                "%s; it ends here, with the best weights of the %d iterations before", problem, before + last
            )
            self._log.write({"diverged": before + diverged, "ended": before + last})
            self._ended = True
            return
        attempts = self._attempts + 1
        self.load_state_dict({**self._good, "slowdowns": self._slowdowns + 1, "attempts": attempts})
        self._good = _copy(self.state_dict())
        self._save(self._good)
        back = before + self.done
        self._log.write({"diverged": before + diverged, "back_to": back, "slowdowns": self._slowdowns})
        logger.warning(
            "diverged before iteration %d; going back to %d with half the learning rate", before + diverged, back
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step depends on; tensors are shared with the network's."""
        return {
            "identity": self._identity,
            "part": self._part.number,
            "step": self.done,
            "net": self.net.state_dict(),
            "averaged": self._averaged.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "best": self.best,
            "best_state": self._best_state,
            "at_first": self._at_first,
            "slowdowns": self._slowdowns,
            "attempts": self._attempts,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned; it is copied."""
        state = _copy(state)
        self.net.load_state_dict(state["net"])
        self._averaged.load_state_dict(state["averaged"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.best, self._best_state, self._at_first = state["best"], state["best_state"], state["at_first"]
        self._slowdowns, self._attempts = state["slowdowns"], state["attempts"]
        self.done = int(state["step"])

    def _begin(self) -> None:
        saved = self._run.load(self._identity, self._part.number)
        if saved is not None:
            self.load_state_dict(saved)
        else:
            # processes may differ by rounding
            processes.broadcast([p.detach() for p in (*self._trained, *self._averaged.parameters())])
            if self._settings.validate_first:
                self.best = self._at_first = score = self.validate()
                self._tell(math.nan, 0.0, math.inf, score)
        self._good = (saved or {}).get("good") or _copy(self.state_dict())
        self._begun, self._worked = self._restart_clock(), 0

    def _is_due(self, every: int) -> bool:
        return self.done % every == 0 or self.done == self.steps

    def _is_reporting(self) -> bool:
        return self._is_due(self._settings.validate_every) or self.done % self._settings.report_every == 0

    def _inspect(self) -> None:
        """Validate, report and save, as far as each is due, if training is sound; else recover."""
        sound = processes.from_rank_0(lambda: all(bool(p.isfinite().all()) for p in self._trained))
        validating, score = self._is_due(self._settings.validate_every), None
        if validating and sound:
            score = self.validate()
            sound = self._accept(score)
        if not sound:
            self.recover()
            self._restart_clock()
            return
        if self._is_reporting():
            self._report(score)
        if validating:  # a state that was not validated may be one that has diverged already
            self._attempts = 0
            self._good = _copy(self.state_dict())
        if self._is_due(self._settings.checkpoint_every):
            self._save(self.state_dict())
        if self._is_reporting():
            self._restart_clock()

    def _accept(self, score: float) -> bool:
        """Keep the averaged weights if they are the best so far; return whether their score is sound."""
        sound = math.isfinite(score) and score > self.best - DIVERGENCE_DB
        if self.best == -math.inf:
            self._at_first = score
        if sound and score > self.best:
            self.best, self._best_state = score, _copy(self._averaged.module.state_dict())
        return sound

    def _report(self, score: float | None) -> None:
        now = time.perf_counter()
        total = self._part.steps or self.steps
        left = (total - self._part.before - self.done) * (now - self._begun) / self._worked
        processes.average([self._losses])
        self._tell(float(self._losses) / self._counted, (now - self._clock) / self._counted, left, score)

    def _tell(self, loss: float, seconds_per_step: float, seconds_left: float, score: float | None) -> None:
        step, steps = self._part.before + self.done, self._part.steps or self.steps
        progress = Progress(step, steps, loss, self.rate, seconds_per_step, seconds_left, score, self.best)
        self._log.progress(progress)
        self._run.report(progress)

    def _restart_clock(self) -> float:
        self._losses, self._counted, self._clock = torch.zeros(()), 0, time.perf_counter()
        return self._clock

    def _save(self, state: dict[str, Any]) -> None:
        self._run.save({**state, "good": self._good})


def _optimiser(kind: str, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    if kind == "soap":
        return Soap(parameters, lr=1.0)
    # each attention of a fresh SPAN multiplies by nearly zero; with Adam's usual epsilon of 1e-8 blocks 2 to 5 stood
    # still for 19,000 iterations, their gradients 1e-15 to 1e-12 (measured)
    return torch.optim.Adam(parameters, betas=(0.9, 0.99), eps=1e-15, lr=1.0)


def _copy(state: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(dict(state))
