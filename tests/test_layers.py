"""The architecture as a test: a folder is a layer, imports point down, torch stays in its half, only faces print."""

import ast
from pathlib import Path

import pytest

from helpers import ROOT

SOURCE = ROOT / "src" / "dsclora"
# from the ground up; a layer may import from every step below its own, and nothing from its own step
STEPS = [
    ["errors"],
    ["files"],
    ["pictures", "networks"],
    ["zoo", "engines"],
    ["inference"],
    ["measure", "exports", "training"],
    ["api"],
    ["cli", "server"],
    ["__main__"],
]
STEP = {layer: number for number, step in enumerate(STEPS) for layer in step}
TREES = {path.relative_to(SOURCE): ast.parse(path.read_text()) for path in SOURCE.rglob("*.py")}
MODULES = {path.with_suffix("").as_posix().removesuffix("/__init__").replace("/", ".") for path in TREES}


def layer_of(path: Path) -> str:
    return path.parts[0].removesuffix(".py")


def may_import_torch(path: Path) -> bool:
    return (
        path.parts[0] == "training"
        or (path.parts[0] == "networks" and path.stem.endswith(("_torch", "spandrel_import")))
        or path == Path("engines", "torch.py")
    )


def imported(tree: ast.AST) -> set[str]:
    """Modules of this package that a module imports, inside functions too."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "dsclora":
            base = node.module.removeprefix("dsclora").lstrip(".")
            for alias in node.names:
                full = f"{base}.{alias.name}".lstrip(".")
                names.add(full if full in MODULES else base)
    return names - {""}


def modules() -> list[str]:
    return sorted(str(path) for path in TREES if path != Path("__init__.py"))


@pytest.mark.parametrize("module", modules())
def test_imports_point_down(module: str) -> None:
    layer = layer_of(Path(module))
    for other in imported(TREES[Path(module)]):
        target = other.split(".")[0]
        assert target == layer or STEP[target] < STEP[layer], f"{module} imports {other}"


@pytest.mark.parametrize("module", [module for module in modules() if not may_import_torch(Path(module))])
def test_the_light_half_does_not_import_torch_at_the_top(module: str) -> None:
    for node in TREES[Path(module)].body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not any(name.split(".")[0] == "torch" for name in names)
        if isinstance(node, ast.Import | ast.ImportFrom):
            heavy = {name for name in imported(node) if may_import_torch(Path(*name.split(".")).with_suffix(".py"))}
            assert not heavy, f"{module} imports {heavy} at the top"


@pytest.mark.parametrize("module", [module for module in modules() if layer_of(Path(module)) != "cli"])
def test_only_the_command_line_prints(module: str) -> None:
    calls = [node.func for node in ast.walk(TREES[Path(module)]) if isinstance(node, ast.Call)]
    assert not any(isinstance(function, ast.Name) and function.id == "print" for function in calls)
