"""Plan the file that each picture becomes, completely, before anything runs."""

import glob
import itertools
import os
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from dsclora.errors import DscloraError, ImageError, OutputError, UsageError
from dsclora.inference.strips import SMALLEST_TILE, Border
from dsclora.pictures.read import MAX_PIXELS, find_pictures
from dsclora.pictures.write import SAVERS

IfExists = Literal["error", "skip", "overwrite", "rename"]


@dataclass(frozen=True)
class Options:
    """The size, format and handling of every picture of a run.

    Attributes:
        scale: the factor, up to the model's; None for the model's own.
        fit: (width, height) of a box to fill, the proportions kept.
        long_side: the length of the longer side.
        border: how the picture goes on beyond its edges: "reflect", or "zero" for the network's own behaviour.
        tile: largest window side in input pixels; by default the engine's.
        quality: the quality of lossy formats, 1..100.
        strip_metadata: leave out EXIF, XMP, IPTC; the ICC profile stays.
        if_exists: the rule for an existing output.
        max_pixels: the most pixels of an input.
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
        for option, value, known in (
            ("--border", self.border, get_args(Border)),
            ("--if-exists", self.if_exists, get_args(IfExists)),
        ):
            if value not in known:
                raise UsageError(f"{option}: choose one of {', '.join(known)}, not {value!r}")
        for option, number in (
            ("--tile", self.tile),
            ("--quality", self.quality),
            ("--long-side", self.long_side),
            ("--max-megapixels", self.max_pixels),
        ):
            if number is not None and not isinstance(number, int):
                raise UsageError(f"{option} takes a whole number, not {number!r}")
        if self.scale is not None and not isinstance(self.scale, int | float):
            raise UsageError(f"--scale takes a number, not {self.scale!r}")
        if self.fit is not None and not (
            isinstance(self.fit, tuple) and len(self.fit) == 2 and all(isinstance(side, int) for side in self.fit)
        ):
            raise UsageError(f"--fit takes a width and a height, not {self.fit!r}")
        if self.max_pixels < 1:
            raise UsageError(f"--max-megapixels must be positive, got {self.max_pixels / 1e6:g}")
        if self.tile is not None and self.tile < SMALLEST_TILE:
            raise UsageError(f"--tile must be at least {SMALLEST_TILE}, got {self.tile}")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UsageError(f"--quality must be 1 to 100, got {self.quality}")
        sizes = [self.scale, self.long_side, *(self.fit or ())]
        if any(v is not None and not v > 0 for v in sizes):
            raise UsageError("sizes and factors must be positive")

    def final_size(self, width: int, height: int, model_scale: int) -> tuple[int, int]:
        """Return the (width, height) to write for a picture of that size.

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
    """A picture to enlarge, and the file that it becomes.

    Attributes:
        source: file to read.
        target: file to write. Two jobs of a plan share one only where it exists and may not be replaced.
    """

    source: Path
    target: Path


@dataclass(frozen=True)
class Result:
    """The outcome of a job, or of an input that became no job.

    Attributes:
        source, target: the files; target is None where none was planned.
        status: "done", "skipped" or "failed".
        input_size, output_size: (width, height).
        seconds: from opening to the renamed output.
        tile: the window side in use at the end; it shrinks when memory runs out.
        error: the reason of a failure, in one line.
        notices: lines for the user.
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


def failure(job: Job, error: Exception) -> Result:
    """Return the result of a job that failed, with an error of one line that names its file."""
    text = str(error)
    if not isinstance(error, DscloraError):
        text = f"{job.source}: {type(error).__name__}: {error}"
    elif str(job.source) not in text and str(job.target) not in text:
        text = f"{job.source}: {text}"
    return Result(job.source, job.target, "failed", error=text)


def plan_jobs(
    inputs: Sequence[str], output: Path | None, options: Options, model_scale: int, suffix: str | None = None
) -> tuple[list[Job], list[Result]]:
    """Plan the pictures to enlarge and the files to write, so that any worker can do any of the jobs by itself.

    Files go beside themselves as `NAME_x4.EXT`, or into `output`; a folder's tree is mirrored in `FOLDER_x4`, or in
    `output`, and so are the folders that `**` matches. A single file may name its output file. Formats that cannot be
    written become PNG.

    Args:
        inputs: files, folders, or patterns with `*`, `?`, `[...]`, `**`.
        output: a file or a folder, or None.
        options: the final size, which is part of the outputs' names, and the rule for existing outputs.
        model_scale: the model's factor.
        suffix: the format of all outputs, such as ".png"; None to keep each one's.

    Returns:
        the jobs, each with a target of its own, and a result for every input that became no job. An input fails if
        nothing has its name, or if its target is another job's target or an input. It is skipped if it is another
        job's target, as when a run is repeated with `*.png`.

    Raises:
        UsageError: an empty input, or an output that names one picture for several inputs.
    """
    if "" in inputs:
        raise UsageError("an input is empty; a variable that is not set?")
    paths = [path for pattern in inputs for path in _expand(pattern)]
    naming = _Naming(output, _output_file(paths, output, suffix), suffix, _tag(options, model_scale))
    jobs: list[Job] = []
    results: list[Result] = []
    for source, name in paths:
        new, problems = _find_jobs(source, name, naming)
        jobs += new
        results += [Result(source, None, "failed", error=str(problem)) for problem in problems]
    if output is None and options.if_exists != "overwrite":  # "overwrite" would replace them without a word
        jobs, skipped = _drop_outputs(jobs)
        results += skipped
    jobs, failures = separate_targets(jobs, options.if_exists)
    return jobs, results + failures


def separate_targets(jobs: Sequence[Job], if_exists: IfExists) -> tuple[list[Job], list[Result]]:
    """Give every job a target of its own.

    The first of several jobs with one target gets it, even if that job fails later, and the others fail; with "rename"
    they get a number, as does a job whose target exists.

    Args:
        jobs: the jobs, in order.
        if_exists: the rule for existing outputs.

    Returns:
        the jobs that can be done in any order, and a failed result for each of the others. All jobs of a target that
        "error" will refuse, because it exists, are among the former.
    """
    sources = {job.source.resolve() for job in jobs}
    owners: dict[Path, Path] = {}
    separate: list[Job] = []
    failures: list[Result] = []
    for job in jobs:
        try:
            target = job.target.parent.resolve() / job.target.name
            if if_exists == "rename":
                target = free_name(target, owners)
            if target in owners:
                raise OutputError(
                    f"{job.source}: would be written to {job.target}, which is {owners[target]}'s output; "
                    "run it apart with another --output, or use --if-exists rename"
                )
            if if_exists == "overwrite" and job.target.resolve() in sources:
                raise OutputError(f"{job.source}: would replace {job.target}, an input; choose another --output")
            if if_exists != "error" or not _exists(target):  # where it exists, each of its jobs reports that
                owners[target] = job.source
        except (DscloraError, OSError, RuntimeError) as error:
            failures.append(failure(job, error))
            continue
        separate.append(replace(job, target=job.target.with_name(target.name)))
    return separate, failures


@dataclass(frozen=True)
class _Naming:
    """The rules by which outputs are named.

    Attributes:
        output: the folder for all, or None.
        file: the one output file, where it is named.
        suffix: format of all, or None to keep each one's.
        tag: the text to add to the names of outputs that lie beside their inputs.
    """

    output: Path | None
    file: Path | None
    suffix: str | None
    tag: str

    def of_file(self, source: Path, name: Path) -> Path:
        """Return the target of a file that was named; `name` is its path below `output`."""
        if self.file is not None:
            return self.file
        if self.output is None:
            return self.below(source.parent, source, Path(source.stem + self.tag))
        return self.below(self.output, source, name.with_suffix(""))

    def below(self, folder: Path, source: Path, name: Path) -> Path:
        """Return the target in a folder, of a name without suffix."""
        return folder / name.parent / (name.name + (self.suffix or _writable_suffix(source)))

    def of_folder(self, source: Path) -> Path:
        """Return the folder that a folder's outputs go into.

        Raises:
            UsageError: a folder that nothing can be beside.
        """
        if self.output is not None:
            return self.output
        real = source.resolve()
        if not real.name:
            raise UsageError(f"{source}: nothing is beside it to write into; name a folder with --output")
        return real.with_name(real.name + self.tag)


def _tag(options: Options, model_scale: int) -> str:
    if options.fit is not None or options.long_side is not None:
        return "_upscaled"
    return f"_x{options.scale or model_scale:g}"


def _output_file(paths: list[tuple[Path, Path]], output: Path | None, suffix: str | None) -> Path | None:
    """Return `output` if it names the one output file; None if it is a folder.

    Raises:
        UsageError: it names a picture for several inputs, or one of another format than `suffix`.
    """
    if output is None or output.suffix == "" or os.path.isdir(output):  # noqa: PTH112 (never raises)
        return None
    if len(paths) != 1 or os.path.isdir(paths[0][0]):  # noqa: PTH112
        if output.suffix.lower() in SAVERS:
            raise UsageError(f"--output {output} names one picture, but there are several inputs; name a folder")
        return None
    if suffix is not None and not _one_format(suffix, output.suffix.lower()):
        raise UsageError(f"--output {output} and --format {suffix} contradict each other")
    return output


def _find_jobs(source: Path, name: Path, naming: _Naming) -> tuple[list[Job], list[ImageError]]:
    """Return the jobs of a file or a folder, and an error for each part that cannot be read."""
    try:
        source.stat()
    except (FileNotFoundError, NotADirectoryError):
        return [], [ImageError(f"{source}: no such file or folder")]
    except OSError as error:
        return [], [ImageError(f"{source}: cannot be read ({error.strerror})")]
    if not source.is_dir():
        return [Job(source, naming.of_file(source, name))], []
    folder = naming.of_folder(source)
    problems: list[ImageError] = []
    try:
        pictures = find_pictures(source, problems.append)
    except ImageError as error:
        return [], [*problems, error]
    if source.resolve() in folder.resolve().parents:  # its own outputs are not inputs again
        pictures = [path for path in pictures if folder.resolve() not in path.resolve().parents]
    targets = (naming.below(folder, path, path.relative_to(source).with_suffix("")) for path in pictures)
    return [Job(path, target) for path, target in zip(pictures, targets, strict=True)], problems


def _drop_outputs(jobs: list[Job]) -> tuple[list[Job], list[Result]]:
    """Return the jobs whose source is not another one's target, and a result for each of the others."""
    writers = {os.path.abspath(job.target): job.source for job in jobs}  # noqa: PTH100 (not through links)
    kept: list[Job] = []
    skipped: list[Result] = []
    for job in jobs:
        writer = writers.get(os.path.abspath(job.source))  # noqa: PTH100
        if writer is None:
            kept.append(job)
        else:
            notice = f"{job.source}: skipped, it is the output of {writer}; to upscale it anyway, name it alone"
            skipped.append(Result(job.source, None, "skipped", notices=(notice,)))
    return kept, skipped


def _one_format(one: str, other: str) -> bool:
    """Return whether two suffixes name the same format."""
    return one == other or SAVERS.get(one) is SAVERS.get(other) is not None


def _expand(pattern: str) -> list[tuple[Path, Path]]:
    """Return an existing path as it is; else what the pattern matches; else the path, to be reported missing.

    Each comes with the name that it gets below `output`: its own, or for `**` the path below the pattern's fixed part.
    """
    path = Path(pattern)
    if os.path.exists(path) or not glob.has_magic(pattern):  # noqa: PTH110 (never raises)
        return [(path, Path(path.name))]
    matches = [Path(p) for p in sorted(glob.glob(pattern, recursive=True))]
    if "**" not in pattern:
        return [(match, Path(match.name)) for match in matches or [path]]
    # a pattern matches folders as well as their files, and links in circles: the shortest way to a file counts
    far_first = sorted(matches, key=lambda match: len(match.parts), reverse=True)
    ways = {(os.path.realpath(match.parent), match.name): match for match in far_first}
    files = sorted(way for way in ways.values() if not os.path.isdir(way))  # noqa: PTH112 (never raises)
    matched = set(matches)
    folders = [match for match in matches if matched.isdisjoint(match.parents)]
    top = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
    return [(match, match.relative_to(top)) for match in files or folders or [path]]


def _writable_suffix(source: Path) -> str:
    """Return the source's own suffix where it can be written; GIF (256 colours) and HEIC become PNG."""
    suffix = source.suffix.lower()
    if suffix in (".jpe", ".jfif"):
        return ".jpg"
    return source.suffix if suffix in SAVERS else ".png"


def _exists(path: Path) -> bool:
    """Return whether anything has that name, even a dangling link."""
    return path.exists() or path.is_symlink()


def free_name(path: Path, reserved: Container[Path] = ()) -> Path:
    """Return the path, or with the first number that makes it one that neither exists nor is reserved."""
    candidate, number = path, 0
    while candidate in reserved or _exists(candidate):
        number += 1
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return candidate
