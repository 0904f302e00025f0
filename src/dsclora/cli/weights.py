"""The verbs on weights files: merge, extract, import, inspect."""

import json
from pathlib import Path
from typing import Annotated

import typer

from dsclora.cli.arguments import load_model, parse_adapters
from dsclora.cli.console import print_json, printable, say
from dsclora.cli.options import JsonOption, VerboseOption


def merge(
    base: Annotated[str, typer.Argument(metavar="BASE", help="A bundled model's name or a model file.")],
    adapters: Annotated[list[str], typer.Argument(metavar="ADAPTER...", help="Adapter files, FILE or FILE:STRENGTH.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Model file to write.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Add adapters to a base for good: a model file of the same size and speed.

    Example: dsclora merge span-x4 scans.safetensors:0.8 -o span-x4-scans.safetensors
    """
    from dsclora.networks import span

    content = load_model(base, parse_adapters(adapters))
    span.write(output, content, overwrite)
    if as_json:
        print_json({"output": output, **span.describe(content)})
    else:
        say(f"{output}: {content.name}, {content.parameters:,} parameters")


def extract(
    base: Annotated[str, typer.Argument(metavar="BASE", help="A bundled model's name or a model file.")],
    tuned: Annotated[str, typer.Argument(metavar="TUNED", help="A model file that was trained on from BASE.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Adapter file to write.")],
    rank: Annotated[int, typer.Option("--rank", min=1, help="Of every conv, in loralib's sense.")] = 8,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Make a low-rank adapter of what distinguishes two models, and say what it leaves out.

    Example: dsclora extract span-x4 fine-tuned.safetensors --rank 8 -o tuned.safetensors
    """
    from dsclora import zoo
    from dsclora.networks import adapter

    made, remainder = adapter.extract(zoo.load(base), zoo.load(tuned), rank)
    adapter.write(output, made, overwrite)
    if as_json:
        print_json({"output": output, "lost": remainder.total, "convs": remainder.convs, **adapter.describe(made)})
    else:
        for conv, lost in remainder.convs.items():
            print(f"{conv:<24} rank {made.updates[conv].rank:<3} {lost:6.1%} of the change lost")
        say(f"{output}: {made.parameters:,} numbers; {remainder.total:.1%} of the change lost, biases included")


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help=".safetensors or .pth of any SPAN.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Model file to write.")],
    license: Annotated[str, typer.Option("--license", help="Of the weights; written into the file.")] = "unknown",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Convert other people's SPAN weights: plain or training form, any width and scale.

    Example: dsclora import span_ch26.pth -o span_ch26.safetensors --license MIT
    """
    from dsclora.networks import span, span_import

    content = span_import.import_file(file, license)
    span.write(output, content, overwrite)
    if as_json:
        print_json({"output": output, **span.describe(content)})
    else:
        say(
            f"{file} -> {output}  SPAN x{content.scale}, {content.channels} channels, {content.parameters:,} parameters"
        )


def inspect(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A model or adapter file, or a bundled one's name.")],
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Say what a weights file holds.

    Example: dsclora inspect span-x4
    """
    from dsclora import zoo
    from dsclora.networks import adapter, span, span_import

    if file in zoo.names():
        facts = span.describe(zoo.load(file))
    elif file in zoo.adapter_names() or adapter.is_adapter(file):
        facts = adapter.describe(zoo.load_adapter(file))
    else:
        facts = span.describe(span_import.import_file(file))
    if as_json:
        print_json(facts)
    else:
        for key, value in facts.items():
            print(f"{key:<14} {printable(json.dumps(value) if isinstance(value, dict) else str(value))}")
