"""The command line: one command per verb."""

from dsclora.cli.app import app, main

__all__ = ["app", "main"]
