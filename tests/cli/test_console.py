"""Lines, bars and tables, on a terminal and elsewhere."""

import io
import logging
import sys

import pytest

from dsclora.cli import console, tables


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_piped_table_is_never_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    tables.print_table(["name", ">ms"], [["x" * 200, "1.5"], ["[bold]a\tb", "12.25"]])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [["name", "ms"], ["x" * 200, "1.5"], ["[bold]a\\tb", "12.25"]]
    assert lines[1].endswith("    1.5"), "numbers are aligned to the right"
    assert all(line == line.rstrip() for line in lines)


def test_a_table_fits_its_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    tables.print_facts({"why": "word " * 30}, "title")
    lines = screen.getvalue().splitlines()
    assert lines[0] == "title"
    assert max(map(len, lines)) <= 40
    assert screen.getvalue().count("word") == 30


def test_what_is_logged_goes_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with console.logging_to_stderr(), console.Meter(2, "picture") as meter:
        meter.at(1, 1, "one.png")
        logging.getLogger("dsclora").info("one.png: done")
    assert "dsclora: one.png: done" in screen.getvalue()
    assert "picture/s" in screen.getvalue()


def test_a_quiet_meter_is_for_all_that_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    with console.logging_to_stderr():
        with console.Meter(1, "iteration", quiet=True):
            logging.getLogger("dsclora").info("said by another process")
        console.say("said by this one")
    assert capsys.readouterr().err == "dsclora: said by this one\n"
