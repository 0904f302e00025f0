"""Build the documentation in build/site: docs/, the reference made from the command line, and the models' cards.

python scripts/site.py
"""

import html
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "build" / "docs"


def main() -> None:
    """Gather the pages and build them; warnings are errors."""
    shutil.rmtree(PAGES, ignore_errors=True)
    shutil.copytree(ROOT / "docs", PAGES)
    (PAGES / "reference.md").write_text(reference(), encoding="utf-8")
    (PAGES / "models.md").write_text(models(), encoding="utf-8")
    command = [str(Path(sys.executable).with_name("zensical")), "build", "--strict", "--clean"]
    sys.exit(subprocess.run(command, cwd=ROOT, check=False).returncode)


def reference() -> str:
    """Every command and option, as typer documents them."""
    command = [sys.executable, "-m", "typer", "dsclora.cli", "utils", "docs", "--name", "dsclora"]
    made = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    made = re.sub(r"^Example: (.*)$", r"Example: `\1`", html.unescape(made), flags=re.MULTILINE)
    return made.replace("# `dsclora`", "# Commands", 1).replace("<", "&lt;")


def models() -> str:
    """The cards of what is bundled, a section each."""
    folder = Path(str(files("dsclora"))) / "zoo"
    cards = sorted(folder.glob("span-*.md")) + sorted((folder / "adapters").glob("*.md"))
    sections = [re.sub(r"^#", "##", card.read_text(encoding="utf-8"), flags=re.MULTILINE) for card in cards]
    return "\n".join(["# What is bundled\n", *sections])


if __name__ == "__main__":
    main()
