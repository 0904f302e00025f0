"""The architecture as a test: imports point down, torch stays in its half, only the faces print."""

import ast
from pathlib import Path

import pytest

from conftest import ROOT

SOURCE = ROOT / "src" / "dsclora"
# from the ground up; a module may import from every layer below its own
LAYERS = [
    ["errors"],
    ["files", "resize", "metrics", "tiles", "recipes", "meter"],
    ["image", "weights", "degrade"],
    ["adapter", "sheets", "pairs", "losses", "span", "parallel", "soap"],
    ["graph", "convlora", "fit", "objective", "page", "split", "zoo"],
    ["sources", "quantized"],
    ["engines", "engines.native", "engines.openvino", "engines.onnxruntime", "engines.torch"],
    ["enlarge"],
    ["upscale", "evaluate", "pretrain", "adapt", "quantize", "doctor", "export", "profile"],
    ["ntire"],
    ["cli"],
    ["__main__"],
]
TORCH = {
    "span",
    "convlora",
    "fit",
    "losses",
    "objective",
    "parallel",
    "pretrain",
    "soap",
    "adapt",
    "quantized",
    "quantize",
    "engines.torch",
}
FACES = {"cli", "meter"}


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(p): ast.parse(p.read_text()) for p in SOURCE.rglob("*.py")}


def imported(tree: ast.AST) -> set[str]:
    """Modules of this package that a module imports, inside functions too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "dsclora":
            base = node.module.removeprefix("dsclora").lstrip(".")
            for alias in node.names:
                full = f"{base}.{alias.name}".lstrip(".")
                found.add(full if full in MODULES else base)
    return found - {""}


def test_every_module_has_its_layer() -> None:
    assert {m for layer in LAYERS for m in layer} == set(MODULES) - {""}


@pytest.mark.parametrize("module", sorted(set(MODULES) - {""}))
def test_imports_point_down(module: str) -> None:
    level = {m: n for n, layer in enumerate(LAYERS) for m in layer}
    lazily_chosen = {m for m in MODULES if m.startswith("engines.")} if module == "engines" else set()
    for other in imported(MODULES[module]) - lazily_chosen:
        same_family = module.startswith("engines") and other == "engines"
        assert level[other] < level[module] or same_family, f"{module} imports {other}"


@pytest.mark.parametrize("module", sorted(set(MODULES) - TORCH))
def test_the_light_half_does_not_import_torch_at_the_top(module: str) -> None:
    for node in MODULES[module].body:
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not any(n.split(".")[0] == "torch" for n in names)
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert not imported(node) & TORCH


@pytest.mark.parametrize("module", sorted(set(MODULES) - FACES))
def test_only_faces_print(module: str) -> None:
    calls = [n.func for n in ast.walk(MODULES[module]) if isinstance(n, ast.Call)]
    assert not any(isinstance(f, ast.Name) and f.id == "print" for f in calls)
