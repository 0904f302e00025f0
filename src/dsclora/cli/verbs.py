"""The verbs, in the order of the help: the module of each, and the search for one by its name."""

import importlib
import logging
import os
from pathlib import Path
from typing import Any

import typer
import typer.main
from typer.core import TyperGroup

from dsclora.cli.options import with_shared_options
from dsclora.errors import UsageError

CONTEXT = {"help_option_names": ["-h", "--help"]}
_VERBS = {  # panel of the help, and module
    "upscale": ("Pictures", "upscale"),
    "models": ("Pictures", "about"),
    "adapt": ("Your own", "adapt"),
    "merge": ("Your own", "weights"),
    "extract": ("Your own", "weights"),
    "quantize": ("Your own", "quantize"),
    "import": ("Networks", "weights"),
    "inspect": ("Networks", "weights"),
    "export": ("Networks", "export"),
    "pretrain": ("Networks", "pretrain"),
    "evaluate": ("Measure", "evaluate"),
    "profile": ("Measure", "profile"),
    "doctor": ("Run", "about"),
}
_WITHOUT_PICTURES = ("about", "weights")


class Verbs(TyperGroup):
    """The group of all verbs, each imported and built when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """List the verbs, without importing any."""
        return list(_VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a verb, or None for another word."""
        if cmd_name in _VERBS and cmd_name not in self.commands:
            self.commands[cmd_name] = _build(cmd_name)
        return self.commands.get(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the verb that a command line begins with.

        Raises:
            UsageError: it begins with a picture.
        """
        if args[0] not in _VERBS:
            if _is_picture(args[0]):
                raise UsageError(f"{args[0]} is not a command; to enlarge it: dsclora upscale {args[0]}")
            for name in _VERBS:  # for Typer to suggest a near miss
                self.get_command(ctx, name)
        return super().resolve_command(ctx, args)


def _build(name: str) -> Any:
    panel, module = _VERBS[name]
    verb = getattr(importlib.import_module(f"dsclora.cli.{module}"), "import_" if name == "import" else name)
    prepare = None if module in _WITHOUT_PICTURES else _limit_libvips
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, context_settings=CONTEXT)
    alone.command(name, rich_help_panel=panel)(with_shared_options(verb, prepare))
    return typer.main.get_command(alone)


def _is_picture(word: str) -> bool:
    """Return whether a word that is no verb is the path of a picture or a folder."""
    if word.startswith("-"):
        return False
    if os.path.exists(word):  # noqa: PTH110 (never raises)
        return True
    from dsclora.pictures.read import READABLE

    return Path(word).suffix.lower() in READABLE


def _limit_libvips() -> None:
    """Set up libvips for this process."""
    from dsclora.pictures import vips

    logging.getLogger("pyvips").setLevel(logging.CRITICAL)  # our own errors say what libvips warns of
    vips.configure()
