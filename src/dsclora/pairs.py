"""Folders of pictures become seeded batches of LR/HR patches.

Every picture is decoded once into a store on disk (`PairStore`) that is memory-mapped afterwards, so training on
10 or 10,000 pictures takes the same memory, and a resumed run starts at once. A batch depends on the seed and the
step alone: a run that was interrupted goes on with the very patches it would have seen.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dsclora import files, image
from dsclora.errors import ImageError
from dsclora.resize import crop_to_multiple, imresize

Uint8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Batch:
    """Patches of one step, uint8 RGB.

    Attributes:
        lr: (N, 3, p, p).
        hr: (N, 3, p * scale, p * scale).
        teacher: what the teacher makes of the pictures the patches were cut from, as `hr`; None without a teacher.
    """

    lr: Uint8
    hr: Uint8
    teacher: Uint8 | None = None


class PairStore:
    """LR and HR pictures of a folder (and a teacher's enlargements), decoded, memory-mapped.

    Attributes:
        scale: HR side over LR side.
        names: file names, in order.
    """

    def __init__(self, directory: Path, index: dict[str, object]) -> None:
        self._directory, self._index = directory, index
        self.scale = int(str(index["scale"]))
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
        """LR picture, (h, w, 3)."""
        return self._view(self._lr, number, 1)

    def hr(self, number: int) -> Uint8:
        """HR picture, (h * scale, w * scale, 3)."""
        return self._view(self._hr, number, self.scale)

    def fingerprint(self) -> str:
        """Hash of the LR pictures, which tell the HR ones."""
        return hashlib.sha256(self._lr).hexdigest()  # type: ignore[arg-type]

    def add_teacher(self, name: str, upscale: Callable[[Uint8], Uint8]) -> None:
        """Let a teacher enlarge every LR picture, once: what it makes is kept in the store under `name`.

        The targets are rounded to uint8 and made from the upright picture only, though no teacher is exactly
        equivariant to flips. In return the teacher costs nothing during training.
        """
        path = self._directory / f"teacher-{name}.u8"
        if not path.exists():
            growing = path.with_suffix(".part")
            with growing.open("wb") as file:
                for number in range(len(self)):
                    file.write(np.ascontiguousarray(upscale(self.lr(number))).tobytes())
            growing.replace(path)
        self._teacher = np.memmap(path, np.uint8, "r")

    def batch(self, seed: int, step: int, size: int, patch: int) -> Batch:
        """Patches of one step: random pictures, positions, flips and quarter turns.

        Args:
            seed, step: the only source of randomness.
            size: patches N.
            patch: side in LR pixels; pictures smaller than that are left out.

        Raises:
            ImageError: no picture is large enough.
        """
        large = np.flatnonzero(self._sides >= patch)
        if not len(large):
            raise ImageError(
                f"no picture is {patch * self.scale} pixels high and wide, which the recipe's patch needs; "
                "use a smaller patch or larger pictures"
            )
        random = np.random.default_rng((seed, step))
        lr, hr, teacher = [], [], []
        for number in random.choice(large, size).tolist():
            h, w = self._sizes[number]
            y, x = int(random.integers(h - patch + 1)), int(random.integers(w - patch + 1))
            turns, flip = int(random.integers(4)), bool(random.integers(2))

            def cut(picture: Uint8, factor: int) -> Uint8:
                side = patch * factor
                piece = picture[y * factor :, x * factor :][:side, :side]  # noqa: B023 (called at once)
                piece = np.rot90(piece, turns)  # noqa: B023
                return (piece[:, ::-1] if flip else piece).transpose(2, 0, 1)  # noqa: B023

            lr.append(cut(self.lr(number), 1))
            hr.append(cut(self.hr(number), self.scale))
            if self._teacher is not None:
                teacher.append(cut(self._view(self._teacher, number, self.scale), self.scale))
        return Batch(np.stack(lr), np.stack(hr), np.stack(teacher) if teacher else None)


def open_store(folder: Path, scale: int, directory: Path, report: Callable[[str], None] = lambda _: None) -> PairStore:
    """Decode a folder of HR pictures into a store, or open the one made from the same files before.

    LR is made by `imresize` from the HR picture cut to a multiple of the scale.

    Args:
        folder: pictures, at any depth.
        scale: HR side over LR side.
        directory: where the store lies; made if needed.
        report: told, in one line each, which files are left out and why.

    Raises:
        ImageError: no picture can be read.
    """
    pictures = image.find(folder)
    stamp = [[str(f.relative_to(folder)), f.stat().st_size, f.stat().st_mtime_ns] for f in pictures]
    path = directory / "pairs.json"  # exists only while what it describes is whole
    if path.exists():
        index = json.loads(path.read_text())
        if index["files"] == stamp and index["scale"] == scale:
            return PairStore(directory, index)
        path.unlink()
    directory.mkdir(parents=True, exist_ok=True)
    for stale in directory.glob("*.u8"):
        stale.unlink()
    rows: list[tuple[str, int, int]] = []
    with (directory / "lr.u8").open("wb") as lr_file, (directory / "hr.u8").open("wb") as hr_file:
        for file in pictures:
            try:
                hr = crop_to_multiple(image.read_rgb8(file), scale)
                if min(hr.shape[:2]) < scale:
                    raise ImageError(f"{file}: smaller than {scale} pixels")
            except ImageError as error:
                report(f"left out: {error}")
                continue
            lr = imresize(hr, 1 / scale)
            lr_file.write(lr.tobytes())
            hr_file.write(np.ascontiguousarray(hr).tobytes())
            rows.append((str(file.relative_to(folder)), lr.shape[0], lr.shape[1]))
    if not rows:
        raise ImageError(f"{folder}: holds no readable picture")
    index = {"scale": scale, "files": stamp, "lr": rows}
    with files.replacing(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(index))
    return PairStore(directory, index)


def read_pairs(folder: Path, scale: int, border: int) -> list[tuple[str, Uint8, Uint8]]:
    """Whole pictures for validation: (name, LR, HR), HR cut to LR x scale.

    Args:
        folder: HR pictures.
        scale: HR side over LR side; LR is made by `imresize`.
        border: pixels that the protocol will cut from each side.

    Raises:
        ImageError: a picture cannot be read, or nothing is left of it inside the border.
    """
    pairs = []
    for file in image.find(folder):
        hr = crop_to_multiple(image.read_rgb8(file), scale)
        if min(hr.shape[:2]) <= 2 * border:
            raise ImageError(f"{file}: too small to validate on")
        pairs.append((file.name, imresize(hr, 1 / scale), hr))
    return pairs
