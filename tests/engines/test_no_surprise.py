"""No engine and no verb opens a socket, starts a process, or writes outside of what it was told to write."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dsclora.engines.choice import RUNTIMES
from helpers import ROOT

NAMES = [
    pytest.param(r.name, marks=pytest.mark.skipif(not r.usable, reason=f"{r.name} is not here: {r.install}"))
    for r in RUNTIMES
]

SITE = """
import sys

def refuse(event, arguments):
    processes = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"}
    if event.startswith("socket.") or event in processes:
        sys.stderr.write(f"surprise: {event} {arguments}\\n")
        sys.stderr.flush()
        import os
        os._exit(77)

sys.addaudithook(refuse)
"""

ENLARGE = """
import sys
import numpy as np
from dsclora import zoo
from dsclora.engines import Setting
from dsclora.engines.choice import bf16_on_cpu, open_engine
engine = open_engine(zoo.load("span-x4"), Setting(sys.argv[1]))
assert engine(np.zeros((1, 3, 16, 20), np.uint8)).shape == (1, 3, 64, 80)
bf16_on_cpu()
"""

EXPORT = """
import sys
from pathlib import Path
from dsclora import zoo
from dsclora.exports import export
for target in ("onnx", "openvino", "torchscript", "pt2"):
    export.export(zoo.load("span-x4"), target, Path(sys.argv[1]))
"""


def isolated(folder: Path, *arguments: object, refuse: bool = True) -> subprocess.CompletedProcess[str]:
    """Run Python with an empty home and an empty folder for temporary files, without a network where that is allowed.

    Any socket and any process ends it, where Python opens or starts it.
    """
    site = folder / "site"
    site.mkdir(parents=True)
    if refuse:
        (site / "sitecustomize.py").write_text(SITE)
    places = {name: folder / name.lower() for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
    for place in places.values():
        place.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("ORT_", "CI", "XDG_"))}
    environment |= {name: str(place) for name, place in places.items()}
    environment["PYTHONPATH"] = os.pathsep.join([str(site), str(ROOT / "src")])
    done = subprocess.run(
        [*without_network(), *map(str, arguments)], env=environment, capture_output=True, text=True, check=False
    )
    left = [str(path) for place in places.values() for path in place.rglob("*") if path.is_file()]
    assert not left, f"written unasked: {left}"
    return done


def without_network() -> list[str]:
    command = ["unshare", "-rn"]
    if shutil.which(command[0]) is None:
        return []
    return command if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0 else []


def test_the_trap_works(tmp_path: Path) -> None:
    done = isolated(tmp_path, sys.executable, "-c", "import socket; socket.getaddrinfo('localhost', 80)")
    assert done.returncode == 77
    assert "surprise: socket.getaddrinfo" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_engine_does_nothing_else(name: str, tmp_path: Path) -> None:
    done = isolated(tmp_path, sys.executable, "-c", ENLARGE, name)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_an_engine_makes_no_call_for_a_socket(name: str, tmp_path: Path) -> None:
    """Also outside of Python."""
    log = tmp_path / "calls"
    strace = ["strace", "-f", "-qq", "-e", "trace=%network,execve", "-e", "signal=none", "-o", str(log)]
    if subprocess.run([*strace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace is not allowed to trace here")
    done = isolated(tmp_path / "run", *strace, sys.executable, "-c", ENLARGE, name, refuse=False)
    assert done.returncode == 0, done.stderr
    calls = [line for line in log.read_text().splitlines() if not line.endswith("+++")]
    assert [call for call in calls if "execve(" not in call] == []
    assert len({call.split("execve(")[1].split(",")[0] for call in calls if call.endswith("= 0")}) == 1


@pytest.mark.slow
def test_exports_write_their_files_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = isolated(tmp_path / "run", sys.executable, "-W", "ignore", "-c", EXPORT, out)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in out.iterdir()} == {
        "span-x4.onnx",
        "span-x4.xml",
        "span-x4.bin",
        "span-x4.pt",
        "span-x4.pt2",
    }


@pytest.mark.slow
def test_upscale_writes_its_picture_alone(tmp_path: Path) -> None:
    out = tmp_path / "large.png"
    sample = ROOT / "samples" / "cat.png"
    done = isolated(tmp_path / "run", sys.executable, "-m", "dsclora.cli", "upscale", sample, "-o", out)
    assert done.returncode == 0, done.stderr
    assert out.exists()
