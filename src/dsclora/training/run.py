"""One training run: its folder, its checkpoint and its log."""

import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dsclora.errors import OutputError, TrainingError
from dsclora.networks import span_torch
from dsclora.training import processes
from dsclora.training.patches import discard

logger = logging.getLogger("dsclora")


@dataclass(frozen=True)
class Progress:
    """A report from a training that goes on.

    Attributes:
        step, steps: iterations done and in all.
        loss: mean since the last report.
        learning_rate: the rate of the last step.
        seconds_per_step: since the last report.
        seconds_left: at the mean speed so far, validations and all.
        score: the score of the averaged weights, where they were just validated.
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


class Run:
    """A training run in a folder of its own.

    Args:
        folder: for the checkpoint, the log, the precision and, until the run is done, the decoded pictures.
        resume: go on from the folder's checkpoint where there is one.
        overwrite: give up the folder's earlier run, where there is one, and begin anew.
        device: the device to train on. Under `torchrun`, make and use the run inside `processes.joined`.
        report: called with the progress, at every report and validation.

    Attributes:
        has_begun: whether the folder held a checkpoint when the run was opened.
    """

    def __init__(
        self,
        folder: Path,
        *,
        resume: bool = False,
        overwrite: bool = False,
        device: torch.device | str = "cpu",
        report: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self.folder, self.resume, self.overwrite = folder, resume, overwrite
        self.device, self.report = torch.device(device), report
        self.checkpoint, self.plan = folder / "checkpoint.pt", folder / "plan.json"
        self.has_begun = self.checkpoint.exists()
        self._precision: str | None = None

    def refuse_earlier_run(self, remedy: str = "name") -> None:
        """Refuse a folder that holds another run, unless this one resumes or overwrites it.

        Args:
            remedy: what else the user can choose: another "name" or "folder".

        Raises:
            OutputError: it holds one.
        """
        if self.checkpoint.exists() and not self.resume and not self.overwrite:
            raise OutputError(f"{self.folder}: holds a run already; go on with --resume or choose another {remedy}")

    def begin(self) -> None:
        """Remove the files of an earlier run, unless this one resumes it: they must not be mistaken for ours."""
        if not self.resume and processes.rank() == 0:
            stale = [self.checkpoint, self.plan, self.folder / "log.jsonl"]
            for path in (*stale, *self.folder.glob("events.out.tfevents.*")):
                path.unlink(missing_ok=True)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn an error of the file system into one of the user.

        Raises:
            OutputError: the folder cannot be written.
        """
        try:
            yield
        except OSError as error:
            raise OutputError(f"{error.filename or self.folder}: cannot be written ({error.strerror})") from error

    def precision(self, here: str | None = None) -> str:
        """Return the precision that "auto" means in this run; a resumed run keeps that of the processor it began on.

        Args:
            here: the precision that suits this processor, "bf16" or "fp32"; by default it is determined here. On
                several processes the first one's counts.

        Raises:
            OutputError: the folder cannot be written.
        """
        if self._precision is not None:
            return self._precision
        here = here or span_torch.resolve_precision("auto", self.device)
        path = self.folder / "precision"

        def decide() -> str:
            if self.resume and path.exists() and (first := path.read_text()) in ("bf16", "fp32"):
                if first != here:
                    logger.info(
                        "%s: goes on in %s, in which it began, though %s is faster here", self.folder, first, here
                    )
                return first
            self.folder.mkdir(parents=True, exist_ok=True)
            path.write_text(here)
            return here

        try:
            self._precision = processes.from_rank_0(decide)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror})") from error
        return self._precision

    def saved_part(self) -> int:
        """Return the number of the part that a resumed run had come to; 0 where there is no checkpoint."""
        return processes.from_rank_0(
            lambda: int(self._read().get("part", 0)) if self.resume and self.checkpoint.exists() else 0
        )

    def load(self, identity: str, part: int = 0) -> dict[str, Any] | None:
        """Return the checkpoint to go on from, on all processes; None where this part of the run begins anew.

        Args:
            identity: the hash of recipe, pictures and models.
            part: number of the part that is about to be trained; a checkpoint of an earlier one is passed over.

        Raises:
            TrainingError: the checkpoint is damaged, or of another identity.
        """

        def decide() -> dict[str, Any] | None:
            if not self.resume or not self.checkpoint.exists():
                return None
            saved = self._read()
            if saved.get("part", 0) < part:
                return None
            if saved["identity"] != identity:
                raise TrainingError(
                    f"{self.checkpoint}: belongs to another recipe, other pictures or another teacher; "
                    "start anew in another folder"
                )
            return saved

        return processes.from_rank_0(decide)

    def _read(self) -> dict[str, Any]:
        try:
            saved: dict[str, Any] = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for a damaged archive
            raise TrainingError(f"{self.checkpoint}: damaged; start anew in another folder") from error
        return saved

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint, whole or not at all; the first process alone does it.

        Raises:
            OutputError: it cannot be written.
        """
        if processes.rank() > 0:
            return
        growing = self.checkpoint.with_suffix(".part")
        try:
            with growing.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            growing.replace(self.checkpoint)
        except (OSError, RuntimeError) as error:
            raise OutputError(f"{self.checkpoint}: checkpoint cannot be written ({error})") from error

    def discard_pictures(self) -> None:
        """Remove the decoded pictures: gigabytes that nobody needs once the run is done."""
        if processes.rank() == 0:
            for store in ("pictures", "guard"):
                discard(self.folder / store)


class Log:
    """The log of a run: `log.jsonl` and, where TensorBoard is installed, its file; the first process alone writes.

    Args:
        run: the run; its log is appended to.
    """

    def __init__(self, run: Run) -> None:
        first = processes.rank() == 0
        run.folder.mkdir(parents=True, exist_ok=True)
        path = run.folder / "log.jsonl" if first else Path(os.devnull)
        self._file = path.open("a", encoding="utf-8")
        self._board = _board(run.folder) if first else None

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()

    def write(self, row: dict[str, Any]) -> None:
        """Append a row, with the time."""
        self._file.write(json.dumps({"time": time.time(), **row}) + "\n")
        self._file.flush()

    def progress(self, progress: Progress) -> None:
        """Append a report; values that are not finite are written as null."""
        if self._board is not None:
            for name in ("loss", "learning_rate", "score"):
                if (number := getattr(progress, name)) is not None and math.isfinite(number):
                    self._board.add_scalar(name, number, progress.step)
        self.write({k: v if v is None or math.isfinite(v) else None for k, v in vars(progress).items()})


def identity(*parts: object) -> str:
    """Return a hash of everything that a run depends on, as JSON: recipe, pictures, models."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def pictures_hash(pictures: Any) -> list[str]:
    """Return a hash of each pair (LR, HR), for `identity`."""
    return [hashlib.sha256(lr.tobytes() + hr.tobytes()).hexdigest() for lr, hr in pictures]


def _board(folder: Path) -> Any:
    """Return a TensorBoard log in a folder, or None where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(folder)
