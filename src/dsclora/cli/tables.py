"""Tables on stdout: set by rich on a terminal, plain lines that are never wrapped elsewhere."""

import io
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dsclora.cli.console import printable

if TYPE_CHECKING:
    from rich.table import Table

_WIDE = 10_000  # characters: what is piped is never wrapped


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print a table on stdout; elsewhere than on a terminal in plain lines, as wide as they are.

    Args:
        columns: headings; a leading ">" aligns to the right. All empty: no line of headings.
        rows: a text for each column.
        title: a line above.
    """
    from rich import box
    from rich.table import Table

    on_terminal = sys.stdout.isatty()
    table = Table(
        box=box.SIMPLE_HEAD if on_terminal else None,
        pad_edge=on_terminal,
        padding=(0, 2, 0, 0),
        show_header=any(columns),
        header_style="bold",
    )
    for heading in columns:
        right = heading.startswith(">")
        table.add_column(heading.lstrip(">"), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_plain(cell) for cell in row))
    if title:
        print(printable(title))
    _print_rich(table, on_terminal)


def print_facts(facts: Mapping[str, str], title: str = "") -> None:
    """Print names and values on stdout, one below the other."""
    print_table(["", ""], list(facts.items()), title)


def _plain(text: str) -> Any:
    from rich.text import Text

    return Text(printable(text))  # names may hold what rich takes for markup


def _print_rich(table: "Table", on_terminal: bool) -> None:
    from rich.console import Console

    if on_terminal:
        Console(file=sys.stdout).print(table)
        return
    lines = io.StringIO()
    Console(file=lines, width=_WIDE, no_color=True, force_terminal=False).print(table)
    for line in lines.getvalue().splitlines():
        print(line.rstrip())
