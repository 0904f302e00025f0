"""The main path: a picture is read in strips, cut into tiles, enlarged by an engine, put together and written.

`image.open_picture -> enlarge.strips (tiles.plan -> engine(batch) -> crop halo, paste -> round once) -> image.write`
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from dsclora.engines import Batch, Engine
from dsclora.errors import DscloraError, OutOfMemoryError, OutputError
from dsclora.inference.jobs import Job, Options, Result, free_name
from dsclora.inference.strips import SMALLEST_TILE, Source, strips
from dsclora.pictures.read import open_picture
from dsclora.pictures.write import Output, write_picture


def upscale_file(
    engine: Engine, job: Job, options: Options, report: Callable[[int, int], None] = lambda _, __: None
) -> Result:
    """Enlarge a picture from file to file, in memory bounded by the tile and the width.

    Args:
        engine: does the work.
        job: from where to where.
        options: how.
        report: called with input pixels done and in all.

    Raises:
        DscloraError: whatever is wrong with this picture; nothing is left behind.
    """
    begin = time.perf_counter()
    target = job.target
    if target.exists() or target.is_symlink():
        if options.if_exists == "skip":
            return Result(job.source, target, "skipped")
        if options.if_exists == "rename":
            target = free_name(target, set())
        elif options.if_exists == "error":
            raise OutputError(f"{target}: exists already; see --if-exists skip|overwrite|rename")
        elif target.exists() and target.samefile(job.source):
            raise OutputError(f"{target}: is the input itself; choose another output")
    picture = open_picture(job.source, options.max_pixels)
    size = options.final_size(picture.width, picture.height, engine.scale)
    output = Output(target, *size, options.quality, options.strip_metadata, options.if_exists == "overwrite")
    notices = list(picture.notices)
    if picture.alpha and not output.saver.alpha:
        notices.append(f"{target}: {target.suffix} holds no transparency; put on white")
    if target.suffix.lower() in (".tif", ".tiff") and picture.image.get_typeof("exif-data"):
        notices.append(f"{target}: TIFF holds no EXIF here; colour profile, XMP and resolution are kept")
    if picture.dtype == np.uint16 and output.saver.bits == 8:
        notices.append(f"{target}: {target.suffix} holds 8 of the {job.source.name}'s 16 bits")

    tile = options.tile or engine.tile
    while True:
        source = Source(picture.rows(), picture.height, picture.width, picture.bands, picture.alpha, picture.dtype)
        made = strips(engine, source, options.border, tile, report)
        try:
            write_picture(output, made, picture.width * engine.scale, picture.height * engine.scale, picture)
            break
        except OutOfMemoryError:
            if tile == SMALLEST_TILE:
                raise
            tile = max(SMALLEST_TILE, tile // 2)
            notices.append(f"{job.source}: out of memory; went on with tiles of {tile}")
            picture = open_picture(job.source, options.max_pixels)
    seconds = time.perf_counter() - begin
    return Result(
        job.source, target, "done", (picture.width, picture.height), size, seconds, tile, notices=tuple(notices)
    )


def upscale_files(
    engines: Sequence[Engine],
    jobs: list[Job],
    options: Options,
    report: Callable[[int, int, int], None] = lambda _, __, ___: None,
) -> Iterator[Result]:
    """Enlarge many pictures; one that fails is told and does not stop the others.

    One more picture is under way than there are engines, so that some are read or written while others are enlarged.

    Args:
        engines: do the work, all of the same model.
        jobs: in order. Of several with one target, the first is done and the others fail (or, with
            `if_exists="rename"`, get a number).
        options: how.
        report: called with the job's position, and its input pixels done and in all; from other threads.

    Yields:
        a result for every job, in order.

    Raises:
        KeyboardInterrupt: `report` did; first the results of what was finished all the same.
    """
    taken: dict[Path, Path] = {}
    claimed: set[Path] = set()
    sources = {job.source.resolve() for job in jobs}
    engine = _Whichever(engines)

    def work(number: int, job: Job) -> Result:
        nonlocal options
        try:
            report(number, 0, 1)
            result = upscale_file(engine, job, options, partial(report, number))
            if result.tile is not None and result.tile < (options.tile or engine.tile):
                options = replace(options, tile=result.tile)  # more did not fit
            return result
        except Exception as error:  # noqa: BLE001 (whatever is wrong with one picture must not stop the others)
            return _failed(job, error)

    with ThreadPoolExecutor(len(engines) + 1) as pool:
        running: deque[tuple[Path, Job, Future[Result]]] = deque()

        interrupted = False

        def settle() -> Iterator[Result]:
            nonlocal interrupted
            key, job, future = running[0]
            try:
                result = future.result()
            except KeyboardInterrupt:
                if not future.done():
                    raise  # of this thread: asked for a second time
                interrupted = True  # raised by `report`; what else is under way may still become whole
                running.popleft()
                return
            running.popleft()
            if result.status != "failed":
                taken[key] = job.source
            yield result

        try:
            for number, job in enumerate(jobs):
                try:
                    key = job.target.parent.resolve() / job.target.name
                    if options.if_exists == "rename":
                        key = free_name(key, claimed)
                    while len(running) >= 2 * len(engines) or key in {other for other, _, _ in running}:
                        yield from settle()
                    if interrupted:
                        break
                    if key in taken:
                        raise OutputError(
                            f"{job.source}: would be written to {job.target}, which is {taken[key]}'s output; "
                            "run it apart with another --output, or use --if-exists rename"
                        )
                    if options.if_exists == "overwrite" and job.target.resolve() in sources:
                        raise OutputError(
                            f"{job.source}: would replace {job.target}, an input; choose another --output"
                        )
                except (DscloraError, OSError, RuntimeError) as error:
                    while running:  # in order
                        yield from settle()
                    yield _failed(job, error)
                    continue
                claimed.add(key)
                named = replace(job, target=job.target.with_name(key.name))
                running.append((key, job, pool.submit(work, number, named)))
            while running:
                yield from settle()
        finally:
            for _, _, future in running:
                future.cancel()
        if interrupted:
            raise KeyboardInterrupt


class _Whichever:
    """An `Engine` for several threads: each call goes to an engine that is free."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.name, self.scale, self.halo, self.tile = (
            getattr(engines[0], n) for n in ("name", "scale", "halo", "tile")
        )
        self._free = SimpleQueue[Engine]()
        for engine in engines:
            self._free.put(engine)

    def __call__(self, batch: Batch) -> Batch:
        """See `Engine`."""
        engine = self._free.get()
        try:
            return engine(batch)
        finally:
            self._free.put(engine)


def _failed(job: Job, error: Exception) -> Result:
    text = str(error)
    if not isinstance(error, DscloraError):
        text = f"{job.source}: {type(error).__name__}: {error}"
    elif str(job.source) not in text and str(job.target) not in text:
        text = f"{job.source}: {text}"
    return Result(job.source, job.target, "failed", error=text)
