"""Progress on stderr: a bar with rate and time left on a terminal; elsewhere only the lines that matter."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class Meter:
    """A bar over a known amount of work, with lines printed above it.

    Args:
        total: amount of work.
        unit: of the rate, such as "Mpixel".
    """

    def __init__(self, total: float, unit: str) -> None:
        self._unit, self._begin, self._amount = unit, time.perf_counter(), 0.0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task("", total=total, rate="")

    def __enter__(self) -> "Meter":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def at(self, completed: float, amount: float, text: str) -> None:
        """Move the bar.

        Args:
            completed: of the total.
            amount: done so far, in the rate's unit.
            text: what is being worked on.
        """
        rate = amount / max(1e-9, time.perf_counter() - self._begin)
        self._bar.update(self._task, completed=completed, description=text, rate=f"{rate:.2f} {self._unit}/s")

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(f"dsclora: {text}", markup=False, highlight=False, soft_wrap=True)
