"""Lines and a progress bar on stderr, JSON on stdout."""

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress

LOG = logging.getLogger("dsclora")
_meters: list["Meter"] = []  # the bars on the screen, the innermost last
_as_json = False


def apply(as_json: bool, verbose: bool) -> None:
    """Apply --json and --verbose, which every verb has."""
    global _as_json
    _as_json = as_json
    LOG.setLevel(logging.DEBUG if verbose else logging.INFO)


def wants_json() -> bool:
    """Return whether --json was given."""
    return _as_json


def is_verbose() -> bool:
    """Return whether --verbose was given."""
    return LOG.isEnabledFor(logging.DEBUG)


@contextmanager
def logging_to_stderr() -> Iterator[None]:
    """Print what is logged, by this and all other layers, as `dsclora: TEXT`."""
    handler, before = _Lines(), (LOG.level, LOG.propagate)
    LOG.addHandler(handler)
    LOG.propagate = False
    apply(as_json=False, verbose=False)
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(before[0])
        LOG.propagate = before[1]


class _Lines(logging.Handler):
    """A log handler that prints each record as a line, above the progress bar where one is on."""

    def emit(self, record: logging.LogRecord) -> None:
        line = f"dsclora: {printable(record.getMessage())}"
        if _meters:
            _meters[-1].print(line)
        else:
            print(line, file=sys.stderr, flush=True)


def say(text: str) -> None:
    """Print a line on stderr."""
    LOG.info("%s", text)


def printable(text: str) -> str:
    """Return text as one line for a terminal: control characters, which file names may hold, become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_json(value: Any) -> None:
    """Print a JSON object on stdout."""
    print(json.dumps(value, indent=2, default=str, allow_nan=False))


def or_none(value: float) -> float | None:
    """Return None for values that JSON lacks: infinity (the PSNR of equal pictures) and NaN (the SSIM of tiny ones)."""
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
        _meters.append(self)
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _meters.remove(self)
        if self._bar is not None:
            self._bar.stop()

    def at(self, completed: float, amount: float, text: str) -> None:
        """Move the bar.

        Args:
            completed: the part of the total that is done.
            amount: the amount done so far, in the rate's unit.
            text: the name of the current piece of work.
        """
        if self._bar is not None:
            rate = amount / max(1e-9, time.perf_counter() - self._begin)
            self._bar.update(self._task, completed=completed, text=printable(text), rate=f"{rate:.2f} {self._unit}/s")

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        say(text)

    def print(self, line: str) -> None:
        """Print a line above the bar as it is; nothing, if another process speaks."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)


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
