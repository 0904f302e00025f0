"""The language of the code as a test: first lines of docstrings, and names."""

import ast
from pathlib import Path

import pytest

from helpers import ROOT

FILES = sorted(path for path in (ROOT / "src").rglob("*.py"))
FRAGMENTS = {
    *("of", "as", "what", "whether", "whatever", "how", "where", "which", "for", "from", "by", "in", "to"),
    *("so", "if", "when", "that", "not", "with", "on", "at", "like"),
}
"""A first line that begins with one of these is no sentence. ("Of the format." says nothing.)"""
PARTICIPLES = {"made", "held", "told", "given", "wanted", "own", "found", "taken", "asked", "chosen", "shown", "seen"}
"""A value is named after what it is, not after what was done to it."""


def first_words(tree: ast.AST) -> list[tuple[int, str]]:
    """The first word of the docstring of every module, class and function, with the line it stands in."""
    words = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            line = 1 if isinstance(node, ast.Module) else node.lineno
            words.append((line, text.split()[0].strip("`.,:;").lower()))
    return words


def names(tree: ast.AST) -> list[tuple[int, str]]:
    """Every name that is bound, with its line."""
    bound = [(node.lineno, node.id) for node in ast.walk(tree) if isinstance(node, ast.Name)]
    bound += [(node.lineno, node.arg) for node in ast.walk(tree) if isinstance(node, ast.arg)]
    return bound + [(n.lineno, n.name) for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT / "src" / "dsclora").as_posix())
def test_docstrings_begin_with_a_sentence_and_names_are_nouns(path: Path) -> None:
    tree = ast.parse(path.read_text())
    odd = [f"line {line}: a docstring begins with {word!r}" for line, word in first_words(tree) if word in FRAGMENTS]
    odd += [f"line {line}: a value is called {name!r}" for line, name in names(tree) if name.strip("_") in PARTICIPLES]
    assert not odd, "\n".join(odd)
