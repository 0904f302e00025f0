"""Set-up of libvips for a process, and what reading leaves open where nobody set it up."""

import subprocess
import sys
from pathlib import Path

import pyvips

from helpers import ROOT, photo, save

SUFFIXES = (".png", ".jpg", ".webp", ".tif", ".avif", ".gif")


def run(code: str, *arguments: Path) -> str:
    """What a Python process of its own prints: the settings are the whole process's."""
    code = "import os, sys; from pathlib import Path; import numpy as np; import pyvips\n" + code
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout


def every_format(folder: Path) -> list[Path]:
    """A picture in every format that is read."""
    paths = [save(folder / f"in{suffix}", photo(40, 60)) for suffix in SUFFIXES]
    linear = pyvips.Image.new_from_array(photo(48, 64)).copy(interpretation="srgb").colourspace("scrgb") * 1.5
    linear.copy(interpretation="scrgb").uhdrsave(str(folder / "ultra.jpg"))
    return [*paths, folder / "ultra.jpg", ROOT / "tests" / "data" / "telephone.heic"]


def test_configured_libvips_reads_pictures_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "x.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    pyvips.Image.black(9, 9).write_to_file(str(tmp_path / "x.v"))
    code = """
from dsclora.errors import ImageError
from dsclora.pictures import vips, read, write
for name in ("x.svg", "x.v"):  # libvips takes them
    pyvips.Image.new_from_file(f"{sys.argv[1]}/{name}").avg()
vips.configure()
for name in ("x.svg", "x.v"):
    try:
        pyvips.Image.new_from_file(f"{sys.argv[1]}/{name}")
        print("taken", name)
    except pyvips.Error:
        pass
    try:
        read.open_picture(Path(sys.argv[1], name))
    except ImageError as error:
        assert "supported are JPEG, PNG" in str(error), error
for path in sys.argv[2:]:
    print(read.read_rgb8(Path(path)).shape)
picture = read.open_picture(Path(sys.argv[2]))
rows = picture.rows()(0, 40)
encoded = write.encode_picture(write.Encoding(".png", 60, 40), iter(np.array_split(rows, 3)), (60, 40), picture)
assert np.array_equal(read.open_picture(encoded).rows()(0, 40), rows)  # through a PNG stream
"""
    paths = every_format(tmp_path)
    assert run(code, tmp_path, *paths).splitlines() == ["(40, 60, 3)"] * 6 + ["(48, 64, 3)", "(64, 96, 3)"]


def test_ordinary_pictures_stay_open_in_no_cache(tmp_path: Path) -> None:
    """With libvips' cache as it comes, which remembers a hundred operations and what they read."""
    code = """
from dsclora.pictures.read import open_picture
def opened():
    return len(os.listdir("/proc/self/fd"))
before = opened()
for path in sys.argv[1:]:
    for _ in range(10):
        picture = open_picture(Path(path))
        picture.rows()(0, picture.height)
        del picture
print(opened() - before)
"""
    paths = [save(tmp_path / f"{bands}{suffix}", photo(40, 60, bands)) for suffix in SUFFIXES[:5] for bands in (1, 3)]
    assert run(code, *paths).strip() == "0"
