"""The budget of an adaptation: how long its stages are, and how often it validates."""

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from dsclora import files
from dsclora.training import processes
from dsclora.training.recipes import AdaptRecipe
from dsclora.training.run import Run

logger = logging.getLogger("dsclora")


@dataclass(frozen=True)
class Plan:
    """The decisions at the start of a run, which hold when it is resumed.

    Attributes:
        factor: the factor by which the recipe's stages are longer.
        validations: the number of times that the held-out pictures are enlarged.
        cached: True if the teacher enlarges the pictures once, instead of the patches of every step.
    """

    factor: float
    validations: int
    cached: bool


class Budget:
    """The length of an adaptation: its recipe's, or a limit by time or by steps.

    Args:
        minutes: from now on; the recipe's stages are made shorter or longer by the speed that is measured.
        iterations: the steps in all.
    """

    def __init__(self, minutes: float | None = None, iterations: int | None = None) -> None:
        self._end = time.perf_counter() + 60 * minutes if minutes is not None else None
        self._iterations = iterations

    @property
    def is_limited(self) -> bool:
        """True where it differs from the recipe's own length."""
        return self._end is not None or self._iterations is not None

    @property
    def seconds(self) -> float | None:
        """The seconds that are left; None where time does not count."""
        return None if self._end is None else self._end - time.perf_counter()

    def factor(self, recipe: AdaptRecipe) -> float:
        """Return the factor by which the recipe's stages are longer, by count alone."""
        if self._iterations is None:
            return 1.0
        return self._iterations / sum(stage.iterations for stage in recipe.stages)


def load_plan(run: Run) -> Plan | None:
    """Return the plan of a resumed run, on all processes; None where the run begins anew."""
    return processes.from_rank_0(
        lambda: Plan(**json.loads(run.plan.read_text())) if run.has_begun and run.resume and run.plan.exists() else None
    )


def save_plan(run: Run, plan: Plan) -> None:
    """Write the plan into the run's folder; the first process alone does it."""
    if processes.rank() == 0:
        with files.replacing(run.plan, overwrite=True) as temporary:
            temporary.write_text(json.dumps(asdict(plan)))


def divide(
    recipe: AdaptRecipe, seconds_left: float, step_costs: Sequence[float], validation: float, judging: float
) -> tuple[float, int]:
    """Divide the time that is left between judging and training.

    Args:
        recipe: the recipe, with the length of its stages and its largest number of validations.
        seconds_left: the seconds until the end.
        step_costs: seconds that a step of each stage takes.
        validation: seconds that scoring the held-out pictures takes.
        judging: seconds that the gate takes.

    Returns:
        the factor by which stages are longer, and the number of validations.
    """
    needed = sum(stage.iterations * cost for stage, cost in zip(recipe.stages, step_costs, strict=True))
    left = seconds_left - judging
    validations = min(recipe.validations, max(2, int(0.25 * left / validation)))
    left -= validation * (validations + 1)
    if left < 5:
        logger.warning("only five seconds are left for training; allow more --minutes")
    return max(5.0, left) / needed, validations


def median_seconds(work: Callable[[], object]) -> float:
    """Return the median time of five calls, after two to warm up."""
    times = []
    for _ in range(7):
        begin = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # a GPU's work has only begun when the call returns
        times.append(time.perf_counter() - begin)
    return float(np.median(times[2:]))
