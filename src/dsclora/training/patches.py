"""Decoded pictures on disk, and the patches that training cuts from them."""

import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dsclora import files
from dsclora.errors import ImageError, OutputError
from dsclora.pictures.arrays import Uint8
from dsclora.pictures.pairs import Pair, bind_number, read_pair
from dsclora.pictures.read import open_picture
from dsclora.pictures.resize import imresize

logger = logging.getLogger("dsclora")

_PIXEL = np.dtype("V3")
"""Three bytes that are moved together: turning a patch byte by byte takes six times as long."""


@dataclass(frozen=True)
class Batch:
    """The patches of one step, uint8 RGB, channels last in memory.

    Attributes:
        lr: (N, 3, p, p).
        hr: (N, 3, p * scale, p * scale).
        teacher: the same patches of the teacher's pictures, as `hr`; None without a teacher.
    """

    lr: Uint8
    hr: Uint8
    teacher: Uint8 | None = None


class PairStore:
    """The LR and HR pictures of a folder (and a teacher's enlargements), decoded, memory-mapped.

    Attributes:
        scale: HR side over LR side.
        names: file names, in order.
        copies: how often the store has every picture, at each of its sizes.
    """

    def __init__(self, directory: Path, index: dict[str, object]) -> None:
        self._directory, self._index = directory, index
        self.scale, self.copies = int(str(index["scale"])), int(str(index["copies"]))
        rows: list[tuple[str, int, int]] = [(str(n), int(h), int(w)) for n, h, w in index["lr"]]  # type: ignore[attr-defined]
        self.names = [name for name, _, _ in rows]
        self._sizes = [(h, w) for _, h, w in rows]
        self._sides = np.array([min(size) for size in self._sizes])
        self._starts = np.cumsum([0, *(3 * h * w for h, w in self._sizes)])
        self._lr = np.memmap(directory / "lr.u8", np.uint8, "r")
        self._hr = np.memmap(directory / "hr.u8", np.uint8, "r")
        self._teacher: Uint8 | None = None

    def __len__(self) -> int:
        return len(self.names)

    def _view(self, flat: Uint8, number: int, factor: int) -> Uint8:
        h, w = self._sizes[number]
        start, end = (int(s) * factor**2 for s in self._starts[number : number + 2])
        return flat[start:end].reshape(h * factor, w * factor, 3)

    def lr(self, number: int) -> Uint8:
        """Return an LR picture, (h, w, 3)."""
        return self._view(self._lr, number, 1)

    def hr(self, number: int) -> Uint8:
        """Return an HR picture, (h * scale, w * scale, 3)."""
        return self._view(self._hr, number, self.scale)

    @property
    def pixels(self) -> int:
        """The number of LR pixels of all pictures."""
        return int(self._starts[-1]) // 3

    @property
    def median_side(self) -> int:
        """The LR side that half the pictures reach, in height and width."""
        return int(np.sort(self._sides)[len(self._sides) // 2])

    def large(self, patch: int) -> int:
        """Return how many different pictures are at least so many LR pixels high and wide."""
        return len({name for name, side in zip(self.names, self._sides, strict=True) if side >= patch})

    def check_patches(self, patches: Iterable[int]) -> None:
        """Log the number of pictures that are smaller than a patch and left out, before any training.

        There is one line for each side; of a picture at several sizes every one counts.

        Args:
            patches: sides in HR pixels.

        Raises:
            ImageError: all pictures are smaller.
        """
        for patch in sorted(set(patches)):
            # copies of a picture fit alike
            if left_out := (len(self) - len(self._fitting(patch // self.scale))) // self.copies:
                total = len(self) // self.copies
                logger.warning(
                    "%d of %d pictures are smaller than a patch of %d pixels and left out", left_out, total, patch
                )

    def _fitting(self, patch: int) -> npt.NDArray[np.intp]:
        """Return the numbers of the pictures that are at least so many LR pixels high and wide."""
        numbers = np.flatnonzero(self._sides >= patch)
        if not len(numbers):
            raise ImageError(
                f"no picture is {patch * self.scale} pixels high and wide, which the recipe's patch needs; "
                "use a smaller patch or larger pictures"
            )
        return numbers

    def fingerprint(self) -> str:
        """Return a hash of all pixels."""
        content = hashlib.sha256(self._lr)  # type: ignore[arg-type]
        content.update(self._hr)  # type: ignore[arg-type]
        return content.hexdigest()

    def add_teacher(self, key: str, upscale: Callable[[Uint8], Uint8], undegraded: bool = False) -> None:
        """Let a teacher enlarge every LR picture, once, and keep its pictures in the store under `key`.

        With `undegraded` it enlarges the plainly reduced HR pictures instead, for a student of degraded ones.

        The targets are rounded to uint8 and made from the upright picture only, though no teacher but a self-ensemble
        is exactly equivariant to flips. In return the teacher costs nothing during training. Interrupted and called
        again, it goes on with the picture it had come to.

        Raises:
            OutputError: the disk has no room for them.
        """
        path = self._directory / f"teacher-{key}.u8"
        if not path.exists():
            growing = path.with_suffix(".part")
            growing.touch()
            ends = self._starts * self.scale**2
            done = int(np.searchsorted(ends, growing.stat().st_size, "right")) - 1
            _check_room(self._directory, int(ends[-1] - ends[done]), "the teacher's pictures")
            os.truncate(growing, int(ends[done]))
            with growing.open("ab") as file:
                for number in range(done, len(self)):
                    hr = self.hr(number)
                    if not undegraded or number == done or not np.array_equal(hr, self.hr(number - 1)):  # else a copy
                        lr = imresize(hr, 1 / self.scale) if undegraded else self.lr(number)
                        target = np.ascontiguousarray(upscale(lr))
                    file.write(target.tobytes())
            growing.replace(path)
        self._teacher = np.memmap(path, np.uint8, "r")

    def batch(self, seed: int, step: int, size: int, patch: int, share: tuple[int, int] = (0, 1)) -> Batch:
        """Cut the patches of one step: random pictures, positions, flips and quarter turns.

        Args:
            seed, step: the only source of randomness.
            size: the number of patches N.
            patch: side in LR pixels; pictures smaller than that are left out.
            share: (k, n): all are drawn, but only the k-th (from 0) of n equal parts of them is cut.

        Raises:
            ImageError: no picture is large enough.
        """
        random = np.random.default_rng((seed, step))
        lr, hr, teacher = [], [], []
        for place, number in enumerate(random.choice(self._fitting(patch), size).tolist()):
            h, w = self._sizes[number]
            y, x = int(random.integers(h - patch + 1)), int(random.integers(w - patch + 1))
            turns, flip = int(random.integers(4)), bool(random.integers(2))
            if place * share[1] // size != share[0]:
                continue

            def cut(picture: Uint8, factor: int) -> npt.NDArray[np.void]:
                side = patch * factor
                piece = np.ascontiguousarray(picture[y * factor :, x * factor :][:side, :side])  # noqa: B023 (called at once)
                pixels = np.rot90(piece.view(_PIXEL)[..., 0], turns)  # noqa: B023
                return pixels[:, ::-1] if flip else pixels  # noqa: B023

            lr.append(cut(self.lr(number), 1))
            hr.append(cut(self.hr(number), self.scale))
            if self._teacher is not None:
                teacher.append(cut(self._view(self._teacher, number, self.scale), self.scale))
        return Batch(_stacked(lr), _stacked(hr), _stacked(teacher) if teacher else None)


def _stacked(pieces: Sequence[npt.NDArray[np.void]]) -> Uint8:
    """Stack squares of pixels into (N, 3, side, side), channels last in memory, as networks are fastest with."""
    batch = np.empty((len(pieces), *pieces[0].shape), _PIXEL)
    for place, piece in zip(batch, pieces, strict=True):
        place[...] = piece
    return batch.view(np.uint8).reshape(*batch.shape, 3).transpose(0, 3, 1, 2)


def discard(directory: Path) -> None:
    """Remove the store from a folder and no other file; `open_store` makes it again."""
    for file in (directory / "pairs.json", *_pixels_in(directory)):
        with suppress(OSError):  # Windows keeps a file that is mapped
            file.unlink(missing_ok=True)
    with suppress(OSError):
        directory.rmdir()


def _pixels_in(directory: Path) -> list[Path]:
    """List the files that `open_store` and `PairStore.add_teacher` write, finished or not."""
    return [*directory.glob("[lh]r.u8"), *directory.glob("teacher-*.u8"), *directory.glob("teacher-*.part")]


def _decoded(pairs: Sequence[Pair], scale: int, copies: int, window: int | None, sizes: Sequence[float]) -> int:
    """Estimate the bytes of a store of pictures from the sizes in their headers."""
    total = 0.0
    for pair in pairs:
        with suppress(ImageError):  # reported when it is read
            picture = open_picture(pair.hr)
            for size in sizes:
                height, width = (min(size * side, window or math.inf) for side in (picture.height, picture.width))
                total += 3 * height * width * (1 + scale**-2) * copies
    return int(total)


def _check_room(directory: Path, size: int, what: str) -> None:
    """Check that the disk has room for so many bytes, rather now than after hours.

    Raises:
        OutputError: it has not.
    """
    free = shutil.disk_usage(directory).free
    if size > free:
        raise OutputError(f"{directory}: {what} take {size / 1e9:.1f} GB decoded, and {free / 1e9:.1f} GB are free")


def open_store(
    pairs: Sequence[Pair],
    scale: int,
    directory: Path,
    *,
    reduce: Callable[[Uint8, int], Uint8] | None = None,
    reduced_by: str = "",
    copies: int = 1,
    window: int | None = None,
    sizes: Sequence[float] = (1.0,),
) -> PairStore:
    """Decode pictures into a store, or open the one made from the same files before.

    Which files are left out and why is logged, in one line each, all of them before any training.

    Args:
        pairs: from `find_pairs`.
        scale: HR side over LR side.
        directory: where the store lies; made if needed.
        reduce: makes LR where a pair has none, from HR and a number that differs from copy to copy; by default
            `imresize`.
        reduced_by: a text that distinguishes one `reduce` from another.
        copies: how often every picture is taken, for a `reduce` that differs each time.
        window: as `read_pair`.
        sizes: every picture is taken once at each of them, as `read_pair`'s `size`.

    Raises:
        ImageError: no picture can be read.
        OutputError: the disk has no room for them.
    """
    stamp = [[str(f), f.stat().st_size, f.stat().st_mtime_ns] for p in pairs for f in (p.hr, p.lr) if f is not None]
    key = {
        "scale": scale,
        "files": stamp,
        "reduced_by": reduced_by,
        "copies": copies,
        "window": window,
        "sizes": list(sizes),
    }
    path = directory / "pairs.json"  # exists only while the store is whole
    if path.exists():
        index = json.loads(path.read_text())
        if {name: index.get(name) for name in key} == key:
            return PairStore(directory, index)
        path.unlink()
    directory.mkdir(parents=True, exist_ok=True)
    for stale in _pixels_in(directory):
        stale.unlink()
    _check_room(directory, _decoded(pairs, scale, copies, window, sizes), "the pictures")
    rows = _decode(pairs, scale, directory, reduce, copies, window, sizes)
    with files.replacing(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(key | {"lr": rows}))
    return PairStore(directory, key | {"lr": rows})


def _decode(
    pairs: Sequence[Pair], scale: int, directory: Path, reduce: Callable[[Uint8, int], Uint8] | None, copies: int,
    window: int | None, sizes: Sequence[float],
) -> list[tuple[str, int, int]]:  # fmt: skip
    """Write the pixels of pictures; return the name, height and width (LR) of each; arguments as `open_store`."""
    rows: list[tuple[str, int, int]] = []
    with (directory / "lr.u8").open("wb") as lr_file, (directory / "hr.u8").open("wb") as hr_file:
        for number, pair in enumerate(pairs):
            for place, size in enumerate(size for size in sizes for _ in range(copies)):
                try:
                    numbered = bind_number(reduce, number * len(sizes) * copies + place)
                    lr, hr = read_pair(pair, scale, numbered, window, size)
                    lr_file.write(np.ascontiguousarray(lr).tobytes())
                    hr_file.write(np.ascontiguousarray(hr).tobytes())
                    rows.append((pair.name, lr.shape[0], lr.shape[1]))
                except ImageError as error:
                    logger.warning("left out%s: %s", f" at {size:g} of its size" if size != 1 else "", error)
                    if size == 1:
                        break
    if not rows:
        raise ImageError("none of the pictures can be read")
    return rows
