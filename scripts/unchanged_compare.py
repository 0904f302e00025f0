"""The comparison of two records: every difference in a line, with how far apart pixels, tensors and losses are."""

import fnmatch
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from unchanged_record import pixels, tensors

ABSENT = "(absent)"

Place = tuple[str, ...]
"""Section, call, aspect and so on down to a value."""

TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I8": "<i1", "U8": "<u1", "I32": "<i4", "I64": "<i8"}


def compare(before: Path, after: Path, only: list[str] | None, excepted: list[str]) -> int:
    """Print the differences of two records and their number.

    Args:
        before, after: JSON files; the folders beside them are looked into where they are there.
        only: sections that are compared; all by default.
        excepted: shell patterns of printed places that do not count.

    Returns:
        the exit code, 1 where anything differs.
    """
    records = [json.loads(path.read_text(encoding="utf-8")) for path in (before, after)]
    machines = [record["information"].get("machine") or {} for record in records]
    for key in sorted(set(machines[0]) & set(machines[1]) & {"cpu", "python", "platform", "libvips", "training"}):
        if machines[0][key] != machines[1][key]:
            print(f"note: recorded with another {key}: {machines[0][key]}, {machines[1][key]}", file=sys.stderr)
    facts = [record["facts"] for record in records]
    if only is not None:
        facts = [{section: calls for section, calls in each.items() if section in only} for each in facts]
    leaves = [dict(_leaves(each)) for each in facts]
    folders = (before.with_suffix(".files"), after.with_suffix(".files"))
    count: Counter[str] = Counter()
    places = sorted(leaves[0].keys() | leaves[1].keys())
    for place in places:
        old, new = (each.get(place, ABSENT) for each in leaves)
        printed = " / ".join(place)
        if old == new or any(fnmatch.fnmatch(printed, pattern) for pattern in excepted):
            continue
        count[place[0]] += 1
        print(f"{printed}: {_distance(place, old, new, folders)}")
    for section, number in sorted(count.items()):
        print(f"{section}: {number} differences")
    print(f"{sum(count.values())} differences in {len(places)} facts")
    return 1 if count else 0


def _leaves(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Yield the values of nested objects with their places; a list of plain values is one."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, (*place, key))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for number, item in enumerate(value):
            yield from _leaves(item, (*place, str(number)))
    else:
        yield place, value


def _distance(place: Place, old: Any, new: Any, folders: tuple[Path, Path]) -> str:
    """Say in words how far apart two values are."""
    if "files" in place and ABSENT not in (str(old), str(new)):
        paths = _files(place, folders)
        if paths is not None and place[-1] == "sha256":
            return _apart(*paths)
        if paths is not None and "tensors" in place:
            return _tensors_apart(place[-1], *paths)
    if isinstance(old, list) and isinstance(new, list):
        return _lists_apart(old, new)
    return f"{_short(old)} -> {_short(new)}"


def _files(place: Place, folders: tuple[Path, Path]) -> tuple[Path, Path] | None:
    """Find the file of a fact in both records' folders; calls that share a room are looked for in all of them."""
    section, call, name = place[0], place[1], place[place.index("files") + 1]
    found = []
    for folder in folders:
        rooms = [folder / section / call, *sorted((folder / section).glob("*"))]
        found.append(next((room / name for room in rooms if (room / name).is_file()), None))
    first, second = found
    return None if first is None or second is None else (first, second)


def _apart(old: Path, new: Path) -> str:
    try:
        values = [pixels(path).astype(np.float64) for path in (old, new)]
    except Exception as error:  # noqa: BLE001 (no picture: bytes differ, and there is no more to say)
        return f"other bytes ({type(error).__name__})"
    if values[0].shape != values[1].shape:
        return f"other pixels, {values[0].shape} -> {values[1].shape}"
    apart = np.abs(values[0] - values[1])
    return f"{np.count_nonzero(apart)} of {apart.size} values differ, by at most {apart.max():g} levels"


def _tensors_apart(name: str, old: Path, new: Path) -> str:
    values = []
    for path in (old, new):
        header, contents = tensors(path)
        if name not in header or header[name]["dtype"] not in TYPES:
            return "other bytes"
        values.append(np.frombuffer(contents[name], TYPES[header[name]["dtype"]]).astype(np.float64))
    if values[0].shape != values[1].shape:
        return "other shape"
    apart = np.abs(values[0] - values[1])
    largest = np.abs(values[0]).max(initial=0)
    return f"{np.count_nonzero(apart)} of {apart.size} numbers differ, by at most {apart.max():.3g} (of {largest:.3g})"


def _lists_apart(old: list[Any], new: list[Any]) -> str:
    pairs = list(zip(old, new, strict=False))
    first = next((number for number, (a, b) in enumerate(pairs) if a != b), len(pairs))
    if all(isinstance(item, str) for item in (*old, *new)):
        gone, come = sorted(set(old) - set(new)), sorted(set(new) - set(old))
        return f"without {_short(gone)}, with {_short(come)}" if gone or come else "other order"
    numbers = [(a, b) for a, b in pairs if isinstance(a, (int, float)) and isinstance(b, (int, float))]
    worst = max((abs(a - b) for a, b in numbers), default=0.0)
    return f"{len(old)} and {len(new)} values, the first that differs is number {first}, by at most {worst:.3g}"


def _short(value: Any) -> str:
    text = value if value == ABSENT else json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
