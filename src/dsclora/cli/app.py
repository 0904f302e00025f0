"""The command line: its verbs, its entry point and its exit codes."""

import errno
import io
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import dsclora
from dsclora.cli import about, adapt, console, evaluate, export, pretrain, profile, quantize, upscale, weights
from dsclora.cli.console import say
from dsclora.cli.interruption import ending_signals
from dsclora.cli.options import with_shared_options
from dsclora.errors import DscloraError, RecipeError, UsageError

_PANELS: dict[str, list[Callable[..., None]]] = {
    "Pictures": [upscale.upscale, about.models],
    "Your own": [adapt.adapt, weights.merge, weights.extract, quantize.quantize],
    "Networks": [weights.import_, weights.inspect, export.export, pretrain.pretrain],
    "Measure": [evaluate.evaluate, profile.profile],
    "Run": [about.doctor],
}
_WITHOUT_PICTURES = [about.models, about.doctor, weights.merge, weights.extract, weights.import_, weights.inspect]


class _Verbs(TyperGroup):
    """The group of all verbs: names the verb that is meant where a picture stands in its place."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        word = args[0]
        if self.get_command(ctx, word) is None and _is_picture(word):
            raise UsageError(f"{word} is not a command; to enlarge it: dsclora upscale {word}")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="dsclora",
    cls=_Verbs,
    help="Enlarge pictures with lightweight super-resolution networks; train, measure and ship them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
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


def _is_picture(word: str) -> bool:
    """Return whether a word that is no verb is the path of a picture or a folder."""
    if word.startswith("-"):
        return False
    if os.path.exists(word):  # noqa: PTH110 (never raises)
        return True
    from dsclora.pictures.read import READABLE

    return Path(word).suffix.lower() in READABLE


def limit_libvips() -> None:
    """Let libvips read seven formats alone, and remember nothing of finished work.

    Its cache keeps a hundred pictures with their files open, and nothing is asked for twice.
    """
    import pyvips

    from dsclora.pictures.read import LOADERS

    logging.getLogger("pyvips").setLevel(logging.CRITICAL)  # what libvips warns of is told in our own errors
    pyvips.cache_set_max(0)
    pyvips.operation_block_set("VipsForeignLoad", True)
    for loader in LOADERS:
        pyvips.operation_block_set(f"VipsForeignLoad{loader}", False)


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


for _panel, _verbs in _PANELS.items():
    for _verb in _verbs:
        _prepare = None if _verb in _WITHOUT_PICTURES else limit_libvips
        app.command(_verb.__name__.rstrip("_"), rich_help_panel=_panel)(with_shared_options(_verb, _prepare))
