"""Read and write safetensors files with a checked header."""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dsclora import files
from dsclora.errors import ModelError

Float32 = npt.NDArray[np.float32]

LARGEST_FILE = 256 * 2**20  # the widest SPAN anybody trained is 20 MB; more is not a model for us


def write_safetensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Float32], header: dict[str, str], overwrite: bool
) -> None:
    """Write tensors, as float32, and a header: to a temporary file beside the target, then renamed.

    The same content makes the same bytes, in every process.

    Raises:
        OutputError: the target exists and `overwrite` is false, or cannot be written.
    """
    content = _serialise({k: np.ascontiguousarray(v, np.float32) for k, v in tensors.items()}, header)
    with files.replacing(Path(path), overwrite) as temporary:
        temporary.write_bytes(content)


def _serialise(tensors: dict[str, Float32], header: dict[str, str]) -> bytes:
    """Return the bytes of a file with the header in its own order, where safetensors shuffles it."""
    from safetensors.numpy import save

    content = save(tensors, header)
    start = 8 + int.from_bytes(content[:8], "little")
    facts = json.loads(content[8:start])
    facts["__metadata__"] = header
    text = json.dumps(facts, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + content[start:]


def hash_tensors(tensors: Mapping[str, Float32]) -> str:
    """Return the SHA-256 of names, shapes and float32 little-endian bytes, sorted by name."""
    content = hashlib.sha256()
    for key in sorted(tensors):
        tensor = tensors[key]
        content.update(f"{key}:{tensor.shape};".encode())
        content.update(np.ascontiguousarray(tensor, "<f4").tobytes())
    return content.hexdigest()


def refuse_newer_version(path: Path, header: Mapping[str, str], supported: int) -> None:
    """Check that a file is not of a newer format version.

    Raises:
        ModelError: it is newer.
        KeyError, ValueError: the header does not say.
    """
    version = int(header["format_version"])
    if version > supported:
        raise ModelError(
            f"{path}: written in format version {version}, this dsclora reads up to {supported}; "
            "upgrade with: pip install -U dsclora"
        )


def parse_object(text: str) -> dict[str, Any]:
    """Parse a JSON object from a header.

    Raises:
        ValueError: not JSON (NaN and infinities are not), a number too large for a float, or not an object.
    """
    value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large")
    return number


def check_file(path: Path) -> None:
    """Check that a path is a file, and one not too large to be a model."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    if not path.is_file():
        raise ModelError(f"{path}: not a file")
    if size == 0:
        raise ModelError(f"{path}: the file is empty")
    if size > LARGEST_FILE:
        raise ModelError(f"{path}: {size / 2**20:.0f} MiB is too large for a SPAN model")


def read_safetensors(path: Path) -> tuple[dict[str, Float32], dict[str, str]]:
    """Read tensors, as float32, and header of a safetensors file.

    Raises:
        ModelError: unreadable; says what it looks like.
    """
    from safetensors import SafetensorError, safe_open

    check_file(path)
    try:
        with safe_open(path, "np") as file:
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
            if any(np.iscomplexobj(tensor) for tensor in tensors.values()):
                raise ValueError("complex numbers, which no SPAN has")
            return {k: np.asarray(tensor, np.float32) for k, tensor in tensors.items()}, file.metadata() or {}
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:  # of an unknown dtype
        start = path.read_bytes()[:2]
        if start == b"PK" or (
            start[:1] == b"\x80" and start[1:] <= b"\x05"
        ):  # a zip, or a bare pickle of protocol 2 to 5
            hint = f"it is a PyTorch pickle file; convert it with: dsclora import {path} -o FILE"
        elif isinstance(error, (TypeError, AttributeError)):
            hint = f"its numbers are of another type ({error}); convert it with: dsclora import {path} -o FILE"
        else:
            hint = f"not a readable safetensors file ({error})"
        raise ModelError(f"{path}: {hint}") from error
