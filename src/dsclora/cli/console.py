"""Progress on stderr: a bar with rate and time left on a terminal; elsewhere only the lines that matter."""

import json
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress


def printable(text: str) -> str:
    """Text for a terminal, one line: control characters, which file names may hold, are written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def say(text: str) -> None:
    """Print a line on stderr."""
    print(f"dsclora: {printable(text)}", file=sys.stderr)


def print_json(value: Any) -> None:
    """Print a JSON object on stdout."""
    print(json.dumps(value, indent=2, default=str, allow_nan=False))


def or_none(value: float) -> float | None:
    """JSON has no infinity (the PSNR of equal pictures) and no NaN (the SSIM of tiny ones)."""
    return value if abs(value) < float("inf") else None


class Meter:
    """A bar over a known amount of work, with lines printed above it.

    Args:
        total: amount of work.
        unit: of the rate, such as "Mpixel".
        quiet: say nothing: another process speaks.
    """

    def __init__(self, total: float, unit: str, quiet: bool = False) -> None:
        self._unit, self._begin, self._quiet = unit, time.perf_counter(), quiet
        self._bar = _bar() if sys.stderr.isatty() and not quiet else None
        if self._bar is not None:
            self._task = self._bar.add_task("", total=total, text="", rate="")

    def __enter__(self) -> "Meter":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def at(self, completed: float, amount: float, text: str) -> None:
        """Move the bar.

        Args:
            completed: of the total.
            amount: done so far, in the rate's unit.
            text: what is being worked on.
        """
        if self._bar is not None:
            rate = amount / max(1e-9, time.perf_counter() - self._begin)
            self._bar.update(self._task, completed=completed, text=printable(text), rate=f"{rate:.2f} {self._unit}/s")

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.console.print(
                f"dsclora: {printable(text)}", markup=False, emoji=False, highlight=False, soft_wrap=True
            )
        else:
            print(f"dsclora: {printable(text)}", file=sys.stderr, flush=True)


def _bar() -> "Progress":
    from rich.console import Console  # here, since it takes 0.15 s to import, which a script would pay for nothing
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.fields[text]}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
