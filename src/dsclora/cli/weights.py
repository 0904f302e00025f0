"""The verbs on weights files: merge, extract, import, inspect."""

from pathlib import Path
from typing import Annotated

import typer

from dsclora.cli.arguments import load_network
from dsclora.cli.console import print_json, say, wants_json
from dsclora.cli.options import BaseArgument, OutputFileOption, OverwriteOption


def merge(
    base: BaseArgument,
    adapters: Annotated[
        list[str], typer.Argument(metavar="ADAPTER...", help="Adapters: NAME or FILE, with :STRENGTH if it is not 1.")
    ],
    output: OutputFileOption,
    overwrite: OverwriteOption = False,
) -> None:
    """Add adapters to a base for good.

    The result is a model file of the same size and speed.

    Example: dsclora merge span-x4 scans.safetensors:0.8 -o span-x4-scans.safetensors
    """
    from dsclora import networks

    network, _ = load_network(base, adapters)
    networks.write_file(output, network, overwrite)
    if wants_json():
        print_json({"output": output, **networks.describe(network)})
    else:
        say(f"{output}: {network.name}, {network.parameters:,} parameters")


def extract(
    base: BaseArgument,
    tuned: Annotated[str, typer.Argument(metavar="TUNED", help="A model file that was trained on from BASE.")],
    output: OutputFileOption,
    rank: Annotated[int, typer.Option("--rank", min=1, help="Rank of every conv's update, in loralib's sense.")] = 8,
    overwrite: OverwriteOption = False,
) -> None:
    """Make an adapter of two models' difference.

    The difference is reduced to a low rank; it says what that leaves out.

    Example: dsclora extract span-x4 fine-tuned.safetensors --rank 8 -o tuned.safetensors
    """
    from dsclora import zoo
    from dsclora.networks import adapter, extraction

    extracted, remainder = extraction.extract(zoo.load(base), zoo.load(tuned), rank)
    adapter.write(output, extracted, overwrite)
    if wants_json():
        print_json({"output": output, "lost": remainder.total, "convs": remainder.convs, **adapter.describe(extracted)})
    else:
        for conv, lost in remainder.convs.items():
            print(f"{conv:<24} rank {extracted.updates[conv].rank:<3} {lost:6.1%} of the change lost")
        say(f"{output}: {extracted.parameters:,} numbers; {remainder.total:.1%} of the change lost, biases included")


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help=".safetensors or .pth of any SPAN.")],
    output: OutputFileOption,
    license: Annotated[
        str, typer.Option("--license", help="Licence of the weights; written into the file.")
    ] = "unknown",
    overwrite: OverwriteOption = False,
) -> None:
    """Convert other people's SPAN weights.

    Plain or training form, any width and scale.

    Example: dsclora import span_ch26.pth -o span_ch26.safetensors --license MIT
    """
    from dsclora import networks
    from dsclora.networks import span, span_import

    network = span_import.import_file(file, license)
    span.write(output, network, overwrite)
    if wants_json():
        print_json({"output": output, **networks.describe(network)})
    else:
        say(
            f"{file} -> {output}  SPAN x{network.scale}, {network.channels} channels, {network.parameters:,} parameters"
        )


def inspect(
    file: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A model or adapter file, or a bundled one's name.")],
) -> None:
    """Say what a weights file holds.

    Example: dsclora inspect span-x4
    """
    from dsclora import networks, zoo
    from dsclora.cli.inspection import print_adapter, print_network
    from dsclora.networks import adapter

    if file not in zoo.names() and (file in zoo.adapter_names() or adapter.is_adapter(file)):
        content = zoo.load_adapter(file)
        if wants_json():
            print_json(adapter.describe(content))
        else:
            print_adapter(content)
        return
    network = zoo.open_network(file)
    if wants_json():
        print_json(networks.describe(network))
    else:
        print_network(network)
