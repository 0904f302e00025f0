"""The command line: its verbs, its entry point and its exit codes."""

import errno
import io
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import dsclora
from dsclora.cli import console
from dsclora.cli.console import say
from dsclora.cli.interruption import ending_signals
from dsclora.cli.verbs import CONTEXT, Verbs
from dsclora.errors import DscloraError, RecipeError, UsageError

app = typer.Typer(
    name="dsclora",
    cls=Verbs,
    help="Enlarge pictures with lightweight super-resolution networks; train, measure and ship them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings=CONTEXT,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line, by default this process's, and exit.

    Errors become one line on stderr and an exit code: 0 done, 1 failed, 2 wrong usage, 3 refused by the gate of
    `adapt`, 130 interrupted.

    Raises:
        SystemExit: always.
    """
    for name in ("stdout", "stderr"):  # closed by the caller
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 (for the whole run)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that its encoding lacks must not lose what was measured
        sys.stdout.reconfigure(errors="backslashreplace")
    for number in ending_signals():
        signal.signal(number, signal.default_int_handler)  # cleans up like an interruption by hand
    with console.logging_to_stderr():
        try:
            app(arguments, prog_name="dsclora")
        except SystemExit as done:
            if done.code == 130:
                say("interrupted; finished files are kept, run again with --if-exists skip or --resume to go on")
            # under torchrun: gloo's threads were seen to abort while Python ends, and torchrun then stops the first
            # process, which still judges and writes
            if os.environ.get("RANK", "0") != "0":
                os._exit(int(done.code or 0))
            raise
        except Exception as error:  # noqa: BLE001 (the last resort: no traceback unless asked for)
            if console.is_verbose():
                traceback.print_exc()
            say(_describe(error))
            sys.exit(2 if isinstance(error, UsageError | RecipeError) else 1)


def _describe(error: Exception) -> str:
    """Say in one line what went wrong, and what to do."""
    if isinstance(error, DscloraError):
        return f"error: {error}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
        return f"error: {error.filename or 'output'}: cannot be written ({error.strerror})"
    if isinstance(error, MemoryError):
        return f"error: out of memory ({error or 'no more is given'}); close other programs, or give it less at once"
    return f"internal error: {type(error).__name__}: {error}; run again with -v and report it with the output"


def _version(value: bool) -> None:
    if value:
        print(f"dsclora {dsclora.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
