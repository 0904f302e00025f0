"""Upscale files and pictures: the main path, from reading strips over tiles and the engine to writing.

`read.open_picture -> strips.strips (tiles.plan -> engine(batch) -> crop halo, paste -> round once) ->
write.write_picture`
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from dsclora.engines import Batch, CroppingEngine, Engine
from dsclora.errors import OutOfMemoryError, OutputError
from dsclora.inference.jobs import Job, Options, Result, failure, free_name
from dsclora.inference.strips import Source, smallest_tile, strips
from dsclora.pictures.arrays import Pixels
from dsclora.pictures.read import Picture, open_picture
from dsclora.pictures.write import Encoding, encode_picture, write_picture

Report = Callable[[int, int], None]
"""A function that is called with the number of input pixels of a picture that are done, and of all."""


def upscale_file(engine: Engine, job: Job, options: Options, report: Report = lambda _, __: None) -> Result:
    """Enlarge a picture from file to file, in memory bounded by the tile and the width.

    The result depends on the arguments alone, so that jobs can be done in any order, by any worker.

    Args:
        engine: the engine that enlarges.
        job: the file to read and the file to write.
        options: size, format and handling.
        report: called with the number of input pixels done, and of all.

    Raises:
        DscloraError: the picture cannot be read, enlarged or written; nothing is left behind.
    """
    begin = time.perf_counter()
    target = _target(job, options)
    if target is None:
        return Result(job.source, job.target, "skipped")
    read = partial(open_picture, job.source, options.max_pixels)
    picture = read()
    encoding = _encoding(picture, target.suffix, str(target), engine, options)
    overwrite = options.if_exists == "overwrite"

    def write(picture: Picture, rows: Iterator[Pixels], size: tuple[int, int]) -> None:
        write_picture(target, encoding, rows, size, picture, overwrite)

    tile, notices = _enlarge(engine, read, picture, write, options, report)
    return Result(
        job.source,
        target,
        "done",
        (picture.width, picture.height),
        (encoding.width, encoding.height),
        time.perf_counter() - begin,
        tile,
        notices=(*picture.notices, *_losses(picture, encoding), *notices),
    )


def upscale_picture(
    engine: Engine, content: bytes, options: Options, suffix: str = ".png", report: Report = lambda _, __: None
) -> bytes:
    """Enlarge a picture from memory to memory, as `upscale_file` does.

    Args:
        engine: the engine that enlarges.
        content: the content of a picture's file, in any format that can be read.
        options: size, format and handling; `if_exists` does not matter.
        suffix: the format of the result.
        report: called with the number of input pixels done, and of all.

    Returns:
        the content of the file that `upscale_file` would have written.

    Raises:
        DscloraError: the picture cannot be read, enlarged or written.
    """
    read = partial(open_picture, content, options.max_pixels)
    picture = read()
    encoding = _encoding(picture, suffix, "the result", engine, options)
    results: list[bytes] = []

    def write(picture: Picture, rows: Iterator[Pixels], size: tuple[int, int]) -> None:
        results.append(encode_picture(encoding, rows, size, picture))

    _enlarge(engine, read, picture, write, options, report)
    return results[0]


def _target(job: Job, options: Options) -> Path | None:
    """Return the file to write a job's output to now; None to skip the job.

    Raises:
        OutputError: the target exists and may not be replaced, or is the input.
    """
    target = job.target
    if not (target.exists() or target.is_symlink()):
        return target
    if options.if_exists == "skip":
        return None
    if options.if_exists == "rename":  # it did not exist when the job was planned
        return free_name(target)
    if options.if_exists == "error":
        raise OutputError(f"{target}: exists already; see --if-exists skip|overwrite|rename")
    if target.exists() and target.samefile(job.source):
        raise OutputError(f"{target}: is the input itself; choose another output")
    return target


def _encoding(picture: Picture, suffix: str, label: str, engine: Engine, options: Options) -> Encoding:
    """Return the format and size that a picture is to be written in."""
    width, height = options.final_size(picture.width, picture.height, engine.scale)
    return Encoding(suffix, width, height, options.quality, options.strip_metadata, label)


def _losses(picture: Picture, encoding: Encoding) -> list[str]:
    """Return a notice for everything in a picture that its new format does not hold."""
    label, suffix = encoding.label, encoding.suffix
    notices = []
    if picture.alpha and not encoding.saver.alpha:
        notices.append(f"{label}: {suffix} holds no transparency; put on white")
    if suffix.lower() in (".tif", ".tiff") and picture.image.get_typeof("exif-data"):
        notices.append(f"{label}: TIFF holds no EXIF here; colour profile, XMP and resolution are kept")
    if picture.dtype == np.uint16 and encoding.saver.bits == 8:
        notices.append(f"{label}: {suffix} holds 8 of the {Path(picture.label).name}'s 16 bits")
    return notices


def _enlarge(
    engine: Engine,
    read: Callable[[], Picture],
    picture: Picture,
    write: Callable[[Picture, Iterator[Pixels], tuple[int, int]], None],
    options: Options,
    report: Report,
) -> tuple[int, list[str]]:
    """Enlarge and write a picture, with tiles of half the side whenever memory runs out.

    Args:
        engine: the engine that enlarges.
        read: opens the picture once more, for another attempt.
        picture: the open picture, for the first attempt.
        write: writes a picture from strips that make up a size.
        options: size, format and handling.
        report: called with the number of input pixels done, and of all.

    Returns:
        the tile that fitted, and notices.
    """
    least = smallest_tile(engine)
    tile = max(options.tile or engine.tile, least)
    notices: list[str] = []
    while True:
        source = Source(picture.rows(), picture.height, picture.width, picture.bands, picture.alpha, picture.dtype)
        rows = strips(engine, source, options.border, tile, report)
        try:
            write(picture, rows, (picture.width * engine.scale, picture.height * engine.scale))
            return tile, notices
        except OutOfMemoryError:
            if tile == least or engine.halo is None:  # a picture that cannot be cut further
                raise
            tile = max(least, tile // 2)
            notices.append(f"{picture.label}: out of memory; went on with tiles of {tile}")
            picture = read()


def upscale_files(
    engines: Sequence[Engine],
    jobs: Sequence[Job],
    options: Options,
    report: Callable[[int, int, int], None] = lambda _, __, ___: None,
) -> Iterator[Result]:
    """Enlarge many pictures; one that fails is reported and does not stop the others.

    One more picture is under way than there are engines, so that some are read or written while others are enlarged.

    Args:
        engines: the engines that enlarge, all of the same model.
        jobs: from `plan_jobs`: no two with one target.
        options: size, format and handling.
        report: called with the job's position, its input pixels done, and all of them; from other threads.

    Yields:
        a result for every job, in order.

    Raises:
        KeyboardInterrupt: `report` raised it; the results of finished pictures come first.
    """
    engine = (CroppingPool if all(isinstance(e, CroppingEngine) for e in engines) else EnginePool)(engines)

    def work(number: int, job: Job) -> Result:
        nonlocal options
        try:
            report(number, 0, 1)
            result = upscale_file(engine, job, options, partial(report, number))
            if result.tile is not None and result.tile < (options.tile or engine.tile):
                options = replace(options, tile=result.tile)  # more did not fit
            return result
        except Exception as error:  # noqa: BLE001 (one picture's error must not stop the others)
            return failure(job, error)

    with ThreadPoolExecutor(len(engines) + 1) as pool:
        waiting = deque(enumerate(jobs))
        running: deque[Future[Result]] = deque()
        interrupted = False
        try:
            while running or (waiting and not interrupted):
                if waiting and not interrupted and len(running) < 2 * len(engines):
                    running.append(pool.submit(work, *waiting.popleft()))
                    continue
                result = _first_result(running)
                if result is None:
                    interrupted = True  # other pictures under way may still be finished
                else:
                    yield result
        finally:
            for future in running:
                future.cancel()
        if interrupted:
            raise KeyboardInterrupt


def _first_result(running: deque[Future[Result]]) -> Result | None:
    """Wait for the first of several jobs, take it away and return its result; None if `report` interrupted it."""
    try:
        result = running[0].result()
    except KeyboardInterrupt:
        if not running[0].done():
            raise  # of this thread: the second interruption
        result = None
    running.popleft()
    return result


class EnginePool:
    """An `Engine` for several threads: each call goes to an engine that is free.

    Args:
        engines: all of the same model and runtime.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        first = engines[0]
        self.name, self.scale, self.halo, self.tile = first.name, first.scale, first.halo, first.tile
        self.multiple = first.multiple
        self._free = SimpleQueue[Engine]()
        for engine in engines:
            self._free.put(engine)

    def __call__(self, batch: Batch) -> Batch:
        """Enlarge a batch, as `Engine` says."""
        with self._borrowed() as engine:
            return engine(batch)

    @contextmanager
    def _borrowed(self) -> Iterator[Engine]:
        engine = self._free.get()
        try:
            yield engine
        finally:
            self._free.put(engine)


class CroppingPool(EnginePool):
    """An `EnginePool` of engines that crop."""

    def enlarge_crop(self, source: Batch, target: Batch, top: int, left: int) -> None:
        """Enlarge the part of a window, as `CroppingEngine` says."""
        with self._borrowed() as engine:
            assert isinstance(engine, CroppingEngine)
            engine.enlarge_crop(source, target, top, left)
