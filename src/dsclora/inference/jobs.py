"""Plan which picture becomes which file."""

import glob
import itertools
import os
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dsclora.errors import ImageError, UsageError
from dsclora.inference.strips import SMALLEST_TILE, Border
from dsclora.pictures.read import MAX_PIXELS, find_pictures
from dsclora.pictures.write import SAVERS

IfExists = Literal["error", "skip", "overwrite", "rename"]


@dataclass(frozen=True)
class Options:
    """What to make of each picture.

    Attributes:
        scale: factor, up to the model's; None for the model's own.
        fit: (width, height) of a box to fill, the proportions kept.
        long_side: length of the longer side.
        border: how the picture goes on beyond its edges: "reflect", or "zero" for the network's own behaviour.
        tile: largest window side in input pixels; by default the engine's.
        quality: of lossy formats, 1..100.
        strip_metadata: leave out EXIF, XMP, IPTC; the ICC profile stays.
        if_exists: what to do about an existing output.
        max_pixels: of an input.
    """

    scale: float | None = None
    fit: tuple[int, int] | None = None
    long_side: int | None = None
    border: Border = "reflect"
    tile: int | None = None
    quality: int | None = None
    strip_metadata: bool = False
    if_exists: IfExists = "error"
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        """Refuse contradictions.

        Raises:
            UsageError: two sizes at once, or a number out of range.
        """
        if sum(v is not None for v in (self.scale, self.fit, self.long_side)) > 1:
            raise UsageError("--scale, --fit and --long-side exclude each other")
        if self.tile is not None and self.tile < SMALLEST_TILE:
            raise UsageError(f"--tile must be at least {SMALLEST_TILE}, got {self.tile}")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UsageError(f"--quality must be 1 to 100, got {self.quality}")
        sizes = [self.scale, self.long_side, *(self.fit or ())]
        if any(v is not None and not v > 0 for v in sizes):
            raise UsageError("sizes and factors must be positive")

    def final_size(self, width: int, height: int, model_scale: int) -> tuple[int, int]:
        """Width and height to write for a picture of that size.

        Raises:
            UsageError: more than the model's factor.
        """
        if self.fit is not None:
            factor = min(self.fit[0] / width, self.fit[1] / height)
        elif self.long_side is not None:
            factor = self.long_side / max(width, height)
        else:
            factor = self.scale or model_scale
        if factor > model_scale:
            raise UsageError(
                f"{width} x {height} would be enlarged {factor:.4g} times; this model does {model_scale} at most"
            )
        return max(1, round(width * factor)), max(1, round(height * factor))


@dataclass(frozen=True)
class Job:
    """One picture to enlarge: from where to where."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Result:
    """What became of a job.

    Attributes:
        source, target: the files; target is None where none was settled.
        status: "done", "skipped" or "failed".
        input_size, output_size: (width, height).
        seconds: from opening to the renamed output.
        tile: window side that was used; smaller than asked for after running out of memory.
        error: why it failed, one line.
        notices: what the user should know, a line each.
    """

    source: Path
    target: Path | None
    status: Literal["done", "skipped", "failed"]
    input_size: tuple[int, int] | None = None
    output_size: tuple[int, int] | None = None
    seconds: float = 0.0
    tile: int | None = None
    error: str | None = None
    notices: tuple[str, ...] = ()


def plan_jobs(
    inputs: Sequence[str], output: Path | None, options: Options, model_scale: int, suffix: str | None = None
) -> tuple[list[Job], list[Result]]:
    """What to enlarge and where to write it.

    Files go beside themselves as `NAME_x4.EXT`, or into `output`; a folder's tree is mirrored in `FOLDER_x4`, or in
    `output`, what `**` finds there too. A single file may name its output file. Formats that cannot be written become
    PNG.

    Args:
        inputs: files, folders, or patterns with `*`, `?`, `[...]`, `**`.
        output: file or folder, or None.
        options: the size asked for names the outputs.
        model_scale: of the model.
        suffix: format of all outputs, such as ".png"; None to keep each one's.

    Returns:
        the jobs, and a result for every input that is none: failed where it names nothing, skipped where it is what
        another one becomes, as when a run is begun again with `*.png`.

    Raises:
        UsageError: an empty input, or an output that names one picture for several inputs.
    """
    tag = f"_x{options.scale or model_scale:g}" if options.fit is None and options.long_side is None else "_upscaled"
    jobs: list[Job] = []
    failed: list[Result] = []

    def target(source: Path, folder: Path, name: Path) -> Path:
        return folder / name.parent / (name.name + (suffix or _writable_suffix(source)))

    if "" in inputs:
        raise UsageError("an input is empty; a variable that is not set?")
    files = [found for pattern in inputs for found in _expand(pattern)]
    single = len(files) == 1 and not os.path.isdir(files[0][0])  # noqa: PTH112 (never raises)
    names_file = output is not None and output.suffix != "" and not os.path.isdir(output)  # noqa: PTH112
    output_file = output if names_file and single else None
    if output is not None and names_file and not single and output.suffix.lower() in SAVERS:
        raise UsageError(f"--output {output} names one picture, but there are several inputs; name a folder")
    if output_file is not None and suffix is not None and not _one_format(suffix, output_file.suffix.lower()):
        raise UsageError(f"--output {output} and --format {suffix} contradict each other")

    def unreadable(problem: ImageError) -> None:
        failed.append(Result(source, None, "failed", error=str(problem)))

    for source, name in files:
        try:
            source.stat()
        except (FileNotFoundError, NotADirectoryError):
            failed.append(Result(source, None, "failed", error=f"{source}: no such file or folder"))
            continue
        except OSError as error:
            failed.append(Result(source, None, "failed", error=f"{source}: cannot be read ({error.strerror})"))
            continue
        if not source.is_dir():
            beside = target(source, source.parent, Path(source.stem + tag))
            inside = target(source, output, name.with_suffix("")) if output is not None else beside
            jobs.append(Job(source, output_file or inside))
        else:
            real = source.resolve()
            if output is None and not real.name:
                raise UsageError(f"{source}: nothing is beside it to write into; name a folder with --output")
            folder = output or real.with_name(real.name + tag)
            try:
                found = find_pictures(source, unreadable)
            except ImageError as error:
                unreadable(error)
                continue
            if real in folder.resolve().parents:  # its own outputs are not inputs again
                found = [path for path in found if folder.resolve() not in path.resolve().parents]
            jobs.extend(Job(path, target(path, folder, path.relative_to(source).with_suffix(""))) for path in found)
    if output is None and options.if_exists != "overwrite":  # which would replace them unseen
        made = {os.path.abspath(job.target): job.source for job in jobs}  # noqa: PTH100 (not through links)
        origins = [made.get(os.path.abspath(job.source)) for job in jobs]  # noqa: PTH100
        for job, origin in zip(jobs, origins, strict=True):
            if origin is not None:
                notice = f"{job.source}: is what {origin} becomes: not enlarged again (unless it is named alone)"
                failed.append(Result(job.source, None, "skipped", notices=(notice,)))
        jobs = [job for job, origin in zip(jobs, origins, strict=True) if origin is None]
    return jobs, failed


def _one_format(one: str, other: str) -> bool:
    """Whether two suffixes name the same format."""
    return one == other or SAVERS.get(one) is SAVERS.get(other) is not None


def _expand(pattern: str) -> list[tuple[Path, Path]]:
    """An existing path as it is; else what the pattern matches; else the path, to be told missing.

    Each with the name that it gets below `output`: its own, or of what `**` found the path below there.
    """
    path = Path(pattern)
    if os.path.exists(path) or not glob.has_magic(pattern):  # noqa: PTH110 (never raises)
        return [(path, Path(path.name))]
    matches = [Path(p) for p in sorted(glob.glob(pattern, recursive=True))]
    if "**" not in pattern:
        return [(match, Path(match.name)) for match in matches or [path]]
    # it matches folders beside what is in them, and goes round in links: the shortest way to a file counts
    far_first = sorted(matches, key=lambda match: len(match.parts), reverse=True)
    ways = {(os.path.realpath(match.parent), match.name): match for match in far_first}
    files = sorted(way for way in ways.values() if not os.path.isdir(way))  # noqa: PTH112 (never raises)
    matched = set(matches)
    folders = [match for match in matches if matched.isdisjoint(match.parents)]
    top = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
    return [(found, found.relative_to(top)) for found in files or folders or [path]]


def _writable_suffix(source: Path) -> str:
    """The source's own suffix where it can be written; GIF (256 colours) and HEIC become PNG."""
    suffix = source.suffix.lower()
    if suffix in (".jpe", ".jfif"):
        return ".jpg"
    return source.suffix if suffix in SAVERS else ".png"


def free_name(path: Path, taken: Set[Path]) -> Path:
    """The path, or with the first number that makes it one that neither exists nor is taken."""
    candidate, number = path, 0
    while candidate in taken or candidate.exists() or candidate.is_symlink():
        number += 1
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return candidate
