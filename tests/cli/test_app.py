"""The command line as such: help, exit codes, one-line errors, what is imported, what is logged."""

import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dsclora
from dsclora.cli import about
from helpers import dsclora_, invoke, photo, save

PANELS = {
    "Pictures": ["upscale", "models"],
    "Your own": ["adapt", "merge", "extract", "quantize"],
    "Networks": ["import", "inspect", "export", "pretrain"],
    "Measure": ["evaluate", "profile"],
    "Run": ["doctor"],
}
VERBS = [verb for verbs in PANELS.values() for verb in verbs]


def test_help_shows_the_verbs_in_panels() -> None:
    panels: dict[str, list[str]] = {}
    for line in dsclora_("--help").stdout.splitlines():
        if heading := re.match(r"╭─ ([\w ]+?) ─", line):
            verbs = panels.setdefault(heading[1], [])
        elif (row := re.match(r"│ (\w+) ", line)) and "Options" not in list(panels)[-1:]:
            verbs.append(row[1])
            assert "..." not in line
    assert panels == {"Options": [], **PANELS}
    assert dsclora_("--version").stdout.strip() == f"dsclora {dsclora.__version__}"


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    text = dsclora_(verb, "--help").stdout
    assert f"Example: dsclora {verb} " in text + " "
    options = [line for line in text.splitlines() if re.match(r"│ \*? *--?\w", line)]
    assert sum("--json" in line for line in options) == 1
    assert sum("--verbose" in line for line in options) == 1
    for line in options:
        flag = "<bool>" in line
        assert flag or "default" in line.lower() or "[required]" in line, line


@pytest.mark.slow
def test_the_three_ways_to_start_it() -> None:
    for module in ("dsclora", "dsclora.cli"):
        done = subprocess.run([sys.executable, "-m", module, "models"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == invoke("models")
    script = "import sys; sys.argv = ['dsclora', 'models']; import dsclora.cli; dsclora.cli.main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == invoke("models")


def test_help_imports_neither_numpy_nor_pyvips() -> None:
    script = (
        "import sys; from dsclora.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print(*sorted({'numpy', 'pyvips', 'onnx', 'openvino', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""


@pytest.mark.slow
def test_torch_is_never_imported_by_the_light_half(tmp_path: Path) -> None:
    source = save(tmp_path / "in.png", photo(16, 16))
    code = (
        "import sys; sys.modules['torch'] = None\n"  # importing it now fails
        f"sys.argv = ['dsclora', 'upscale', {str(source)!r}]\n"
        "from dsclora.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "in_x4.png").exists()


def test_training_without_torch_is_one_line(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "sys.argv = ['dsclora', 'pretrain', 'r.toml', '--train', '.', '--valid', '.']\n"
        "from dsclora.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'dsclora[train]'" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["upscale", "in.png", "--scale", "9"], 2, "more than span-x4's factor, 4"),
        (["upscale", "in.png", "--fit", "big"], 2, "WIDTHxHEIGHT"),
        (["upscale", "in.png", "--scale", "2", "--long-side", "9"], 2, "exclude each other"),
        (["upscale", "in.png", "--long-side", "9999"], 1, "in.png.*4 at most"),
        (["upscale", "in.png", "--format", "bmp"], 2, "choose one of jpg"),
        (["upscale", "in.png", "-o", "out.bmp"], 1, "cannot write .bmp"),
        (["upscale", "none.png"], 1, "none.png: no such file"),
        (["upscale", "in.png", "--model", "span-x9"], 1, "no bundled model is called 'span-x9'"),
        (["upscale", "in.png", "--model", "bad.safetensors"], 1, "bad.safetensors: not a readable"),
        (["upscale", "in.png", "--device", "cuda"], 1, "sees no cuda device"),
        (["upscale", "in.png", "--max-megapixels", "0.0001"], 1, "--max-megapixels"),
        (["upscale", "in.png", "--border", "wrap"], 2, "border"),
        (["evaluate", "nothing"], 1, "nothing: not a folder"),
        (["evaluate", "."], 1, "no picture could be measured"),
        (["upscale", "in.png", "--model", "span-x4-foto"], 1, r"'span-x4-foto' \(did you mean span-x4-photo\?\)"),
        (["upscale", "in.png", "--adapter", "span-x4-doc"], 1, r"'span-x4-doc' \(did you mean span-x4-docs\?\)"),
        (["upscale", "in.png", "--adaptor", "span-x4-docs"], 2, "--adapter"),
        (["upscal", "in.png"], 2, "Did you mean 'upscale'"),
        (["in.png"], 2, "dsclora upscale in.png"),
        (["none.JPG", "-o", "out.png"], 2, "dsclora upscale none.JPG"),
        (["export", "--to", "onxx", "-o", "x"], 2, r"\(did you mean onnx\?\)"),
        (["inspect", "in.png"], 1, "in.png: not a readable safetensors"),
        (["import", "none.pth", "-o", "x.safetensors"], 1, "none.pth.*No such file"),
        (["pretrain", "none.toml", "--train", ".", "--valid", "."], 2, "none.toml: cannot be read"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(tmp_path: Path, arguments: list[str], code: int, reason: str) -> None:
    save(tmp_path / "in.png", photo(12, 14))
    (tmp_path / "bad.safetensors").write_bytes(b"\x00" * 50)
    if arguments[0] == "evaluate":
        (tmp_path / "in.png").write_bytes(b"no picture")
    before = sorted(tmp_path.rglob("*"))
    done = dsclora_(*arguments, cwd=tmp_path, code=code)
    assert re.search(reason, done.stderr), done.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_too_little_memory_is_one_line(tmp_path: Path) -> None:
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, -1))\n"
        f"sys.argv = 'dsclora export --to onnx --size 100000x100000 -o {tmp_path}/out'.split()\n"
        "from dsclora.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith("dsclora: error: out of memory (Unable to allocate")
    assert list(tmp_path.rglob("*.onnx")) == []


def test_v_is_heard_wherever_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "in.png", photo(9, 9))
    loud = ["upscale", "in.png", "-o", "out.png", "--if-exists", "overwrite"]
    assert "130,828 parameters) on" not in dsclora_(*loud, "-m", "span-x4", cwd=tmp_path).stderr
    assert "130,828 parameters) on" in dsclora_(*loud, "-vm", "span-x4", cwd=tmp_path).stderr

    def fail() -> None:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(about, "models", fail)
    code, out, err = invoke("models")
    assert (code, out) == (1, "")
    assert err == (
        "dsclora: internal error: RuntimeError: no such thing; run again with -v and report it with the output\n"
    )
    assert "Traceback" in invoke("models", "-v")[2]
    assert "Traceback" not in invoke("models")[2], "one command's -v is not the next one's"


def test_what_other_layers_log_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    log = logging.getLogger("dsclora.training")

    def models() -> None:
        log.info("a name\nwith %s", "a line break")
        log.debug("a detail")

    monkeypatch.setattr(about, "models", models)
    assert invoke("models") == (0, "", "dsclora: a name\\nwith a line break\n")
    assert invoke("models", "-v")[2].splitlines()[1] == "dsclora: a detail"
    assert logging.getLogger("dsclora").handlers == []
