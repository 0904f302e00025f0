"""The command line: its verbs, its entry point and its exit codes."""

import errno
import io
import logging
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

import dsclora
from dsclora.cli import about, adapt, evaluate, export, pretrain, profile, quantize, upscale, weights
from dsclora.cli.console import say
from dsclora.cli.interruption import ending_signals
from dsclora.errors import DscloraError, RecipeError, UsageError

app = typer.Typer(
    name="dsclora",
    help="Enlarge pictures with lightweight super-resolution networks; train, measure and ship them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Entry point: errors become one line and an exit code (0 done, 1 failed, 2 wrong usage, 130 interrupted)."""
    for name in ("stdout", "stderr"):  # closed by the caller
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 (for the whole run)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that its encoding lacks must not lose what was measured
        sys.stdout.reconfigure(errors="backslashreplace")
    for number in ending_signals():
        signal.signal(number, signal.default_int_handler)  # cleans up like an interruption by hand
    logging.getLogger("pyvips").setLevel(logging.CRITICAL)  # what libvips warns of is told in our own errors
    try:
        app()
    except SystemExit as done:
        if done.code == 130:
            say("interrupted; finished files are kept, run again with --if-exists skip or --resume to go on")
        # under torchrun: gloo's threads were seen to abort while Python ends, and torchrun then stops the first
        # process, which still judges and writes
        if os.environ.get("RANK", "0") != "0":
            os._exit(int(done.code or 0))
        raise
    except Exception as error:  # noqa: BLE001 (the last resort: no traceback unless asked for)
        if {"-v", "--verbose"} & set(sys.argv):
            traceback.print_exc()
        if isinstance(error, DscloraError):
            say(f"error: {error}")
            sys.exit(2 if isinstance(error, (UsageError, RecipeError)) else 1)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            say(f"error: {error.filename or 'output'}: cannot be written ({error.strerror})")
            sys.exit(1)
        if isinstance(error, MemoryError):
            say(f"error: out of memory ({error or 'no more is given'}); close other programs, or give it less at once")
            sys.exit(1)
        say(f"internal error: {type(error).__name__}: {error}; run again with -v and report it with the output")
        sys.exit(1)


def _version(value: bool) -> None:
    if value:
        print(f"dsclora {dsclora.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


app.command("upscale")(upscale.upscale)
app.command("evaluate")(evaluate.evaluate)
app.command("pretrain")(pretrain.pretrain)
app.command("adapt")(adapt.adapt)
app.command("merge")(weights.merge)
app.command("extract")(weights.extract)
app.command("export")(export.export)
app.command("quantize")(quantize.quantize)
app.command("profile")(profile.profile)
app.command("import")(weights.import_)
app.command("inspect")(weights.inspect)
app.command("models")(about.models)
app.command("doctor")(about.doctor)
