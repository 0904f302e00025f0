"""The record of what the program does: calls of its command line, with what each answers and which files it leaves.

Only the command line and the files are looked at, never a module of the program, so that a record outlives any
reorganisation of them.
"""

import hashlib
import json
import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pyvips

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff"}

MEASURED = {
    "seconds", "milliseconds", "reference_milliseconds", "latency_ms", "latency_ms_p10", "latency_ms_p90", "peak_mb",
    "runtime", "final",
}  # fmt: skip
"""JSON keys whose values are times or memory, or are computed from them: another one at every run."""

WORDED = {"error", "failed", "notices", "notes", "why", "install"}
"""JSON keys whose values are sentences: their wording may improve."""

_OPAQUE = {".html", ".xml", ".pt", ".pt2", ".jsonl", ".py", ".md", ".txt", ".pth"}
# a page and a README are prose; OpenVINO's .xml names its version and the folder it was made in; archives of torch
# hold times and addresses; log.jsonl is read by itself

LIMIT = 900  # seconds that a call may take


class Record:
    """Facts, by section and call, and the folder in which the calls run and leave their files.

    Attributes:
        folder: of the files; it is kept, for `compare` to say how far apart two pictures or tensors are.
        facts: what is compared, `facts[section][call][aspect]`.
        information: what is only told, such as messages.
    """

    def __init__(self, folder: Path, places: dict[str, Path]) -> None:
        self.folder = folder.resolve()
        self.facts: dict[str, dict[str, dict[str, Any]]] = {}
        self.information: dict[str, Any] = {}
        self._places = {"WORK": self.folder, **places}
        self._environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100", "NO_COLOR": "1"}
        if path := os.environ.get("PYTHONPATH"):  # calls run in other folders
            parts = [str(Path(part).resolve()) for part in path.split(os.pathsep) if part]
            self._environment["PYTHONPATH"] = os.pathsep.join(parts)

    def call(self, section: str, name: str, *arguments: str | Path, room: str | None = None) -> Any:
        """Run a verb and record its exit code, the keys and values of its JSON, and the files that it makes.

        Args:
            section, name: where it is recorded.
            arguments: verb and options; with `--json` the answer is read.
            room: name of a working folder that several calls share; one of its own by default.

        Returns:
            the JSON answer, or None.
        """
        room_path = self.folder / section / (room or name)
        room_path.mkdir(parents=True, exist_ok=True)
        before = _stamps(room_path)
        begin = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "dsclora", *map(str, arguments)],
            cwd=room_path,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        after = _stamps(room_path)
        made = sorted(path for path, stamp in after.items() if before.get(path) != stamp)
        fact: dict[str, Any] = {"exit": done.returncode, "files": {_named(p): describe(room_path / p) for p in made}}
        if gone := sorted(map(str, before.keys() - after.keys())):
            fact["gone"] = gone
        answer = _answer(done.stdout) if "--json" in arguments else None
        if answer is not None:
            fact["keys"] = key_paths(answer)
            fact["values"] = self._steady(answer)
        self.facts.setdefault(section, {})[name] = fact
        said = self._spelled(done.stderr).splitlines()
        self.information[f"{section}/{name}"] = {"first": said[:1], "last": said[-1:]}
        print(f"{time.perf_counter() - begin:6.1f} s  exit {done.returncode}  {section}/{name}", file=sys.stderr)
        return answer

    def room(self, section: str, name: str) -> Path:
        """Return the working folder of a call."""
        return self.folder / section / name

    def add(self, section: str, name: str, aspect: str, value: Any) -> None:
        """Record another fact of a call."""
        self.facts.setdefault(section, {}).setdefault(name, {})[aspect] = value

    def write(self, path: Path) -> None:
        """Write facts and information as one JSON file."""
        content = {"facts": self.facts, "information": self.information}
        path.write_text(json.dumps(content, indent=1, sort_keys=True, default=str) + "\n", encoding="utf-8")

    def _spelled(self, text: str) -> str:
        """Replace the folders of this machine by their names."""
        for name, path in self._places.items():
            text = text.replace(str(path), name)
        return text

    def _steady(self, value: Any) -> Any:
        """Leave out of an answer what changes from run to run, and sentences."""
        if isinstance(value, dict):
            kept = {key: item for key, item in value.items() if key not in MEASURED | WORDED}
            return {key: self._steady(item) for key, item in kept.items()}
        if isinstance(value, list):
            return [self._steady(item) for item in value]
        return self._spelled(value) if isinstance(value, str) else value


def key_paths(value: Any, prefix: str = "") -> list[str]:
    """Return the sorted paths of all keys of a JSON value; the items of a list share one."""
    if isinstance(value, dict):
        inner = [path for key, item in value.items() for path in key_paths(item, f"{prefix}.{key}")]
        return sorted({*inner, *(f"{prefix}.{key}" for key in value)})
    if isinstance(value, list):
        return sorted({path for item in value for path in key_paths(item, f"{prefix}[]")})
    return []


def describe(path: Path) -> Any:
    """Describe a file by what must not change of it, by its kind."""
    suffix = path.suffix.lower()
    if suffix in PICTURES:
        return _picture(path)
    if suffix == ".safetensors":
        return _tensor_file(path)
    if suffix == ".onnx":
        return _onnx(path)
    if suffix in _OPAQUE or path.name.startswith("events.out."):
        return "present"
    return {"sha256": sha256(path.read_bytes())}


def sha256(content: bytes) -> str:
    """Return the SHA-256 of bytes in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def pixels(path: Path) -> npt.NDArray[Any]:
    """Read the stored pixels of a picture, (h, w, bands), as the file has them."""
    image = pyvips.Image.new_from_file(str(path))
    values: npt.NDArray[Any] = image.numpy()
    return values.reshape(image.height, image.width, image.bands)


def tensors(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Read a safetensors file.

    Returns:
        the header, and the bytes of each tensor.
    """
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8 : 8 + length])
    body = content[8 + length :]
    named = {key: entry["data_offsets"] for key, entry in header.items() if key != "__metadata__"}
    return header, {key: body[begin:end] for key, (begin, end) in named.items()}


def find_pictures(folder: Path) -> list[Path]:
    """Return the pictures in a folder and its folders, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES and path.is_file())


def clear(folder: Path) -> None:
    """Remove the checkpoints of runs: they are large, and the weights of their ends are there."""
    for path in folder.rglob("checkpoint.pt"):
        path.unlink()


def _picture(path: Path) -> dict[str, Any]:
    image = pyvips.Image.new_from_file(str(path))
    fields = sorted(set(image.get_fields()) - {"filename", "vips-sequential"})
    values = pixels(path)
    return {
        "sha256": sha256(np.ascontiguousarray(values).tobytes()),
        "shape": [*values.shape, str(values.dtype)],
        "metadata": fields,
    }


def _tensor_file(path: Path) -> dict[str, Any]:
    header, contents = tensors(path)
    metadata = header.pop("__metadata__", {})
    told: dict[str, Any] = {key: _parsed(value) for key, value in metadata.items()}
    return {
        "tensors": {key: sha256(content) for key, content in contents.items()},
        "layout": {key: [entry["dtype"], *entry["shape"]] for key, entry in header.items()},
        "keys": key_paths(told),
        "metadata": told,
    }


def _onnx(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    model = onnx.load_from_string(content)
    facts = {
        "sha256": sha256(content),
        "producer": [model.producer_name, model.producer_version],
        "ir_version": model.ir_version,
        "opsets": {entry.domain: entry.version for entry in model.opset_import},
    }
    facts["nodes"] = len(model.graph.node)
    facts["graph_sha256"] = sha256(model.graph.SerializeToString(deterministic=True))
    return facts


def _parsed(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _answer(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _named(path: Path) -> str:
    """Return a file's name without what changes from run to run: TensorBoard's has a time, a host and a process."""
    return re.sub(r"(events\.out\.tfevents)\..*", r"\1", path.as_posix())


def _stamps(folder: Path) -> dict[Path, tuple[int, int]]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder): (path.stat().st_mtime_ns, path.stat().st_ino) for path in found}
