"""Proof that a reorganisation left the program's behaviour as it was: record it before and after, and compare.

    PYTHONPATH=src python scripts/unchanged.py record before.json --bench BENCH --train PHOTOS --domain DOMAINS \
        --weights WEIGHTS
    python scripts/unchanged.py compare before.json after.json

A record is a JSON file and a folder beside it with the pictures, models and logs that the calls left. Both records are
to be made on one machine with the same libraries: other processors round otherwise. It takes some ten minutes.

BENCH has Set5 and Set14 with HR, LRx2, LRx3 and LRx4; PHOTOS are pictures; DOMAINS has a folder with `train` for each
domain; WEIGHTS has the published SPAN files that benchmarks/README.md names.
"""

import argparse
import sys
import time
from pathlib import Path

from unchanged_compare import compare
from unchanged_pictures import record_bundled, record_exports, record_pictures
from unchanged_record import Record
from unchanged_trainings import record_trainings
from unchanged_usage import record_usage

SECTIONS = ("pictures", "exports", "bundled", "trainings", "usage")


def record(arguments: argparse.Namespace) -> int:
    target: Path = arguments.target
    folder = target.with_suffix(".files")
    for path in (target, folder):
        if path.exists():
            print(f"{path}: exists already; remove it or choose another name", file=sys.stderr)
            return 2
    places = {name: getattr(arguments, name).resolve() for name in ("bench", "train", "domain", "weights")}
    for path in places.values():
        if not path.is_dir():
            print(f"{path}: no folder; name the one with the data", file=sys.stderr)
            return 2
    folder.mkdir(parents=True)
    begin = time.perf_counter()
    content = Record(folder, {name.upper(): path for name, path in places.items()})
    steps = {
        "pictures": lambda: record_pictures(content, places["bench"], places["train"]),
        "exports": lambda: record_exports(content),
        "bundled": lambda: record_bundled(content),
        "trainings": lambda: record_trainings(content, places["train"], places["domain"], places["weights"]),
        "usage": lambda: record_usage(content, places["bench"], places["weights"]),
    }
    for name in arguments.only or SECTIONS:
        steps[name]()
        content.write(target)  # what is there so far, should a later section be interrupted
    print(f"{target}: recorded in {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    recording = verbs.add_parser("record", help="Run the program that can be imported, and write what it does.")
    recording.add_argument("target", type=Path, metavar="FILE.json")
    for name in ("bench", "train", "domain", "weights"):
        recording.add_argument(f"--{name}", type=Path, required=True, metavar="FOLDER")
    recording.add_argument("--only", action="append", choices=SECTIONS, help="A section; may be repeated.")
    comparing = verbs.add_parser("compare", help="Print every difference of two records; exit 1 if there is one.")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    comparing.add_argument("--only", action="append", help="A section; may be repeated. Default: all.")
    comparing.add_argument("--except", action="append", dest="excepted", metavar="PATTERN", default=[],
                           help="Known differences, as shell patterns of the printed paths.")  # fmt: skip
    arguments = parser.parse_args()
    if arguments.verb == "record":
        return record(arguments)
    return compare(arguments.before, arguments.after, arguments.only, arguments.excepted)


if __name__ == "__main__":
    sys.exit(main())
