"""The verbs that describe the installation: models, doctor."""

from typing import TYPE_CHECKING

import dsclora
from dsclora.cli.console import print_json, wants_json

if TYPE_CHECKING:
    from pathlib import Path


def models() -> None:
    """List the bundled models and adapters.

    Example: dsclora models
    """
    from dsclora import networks, zoo
    from dsclora.cli.tables import print_table
    from dsclora.networks import adapter
    from dsclora.zoo.figures import load_figures

    models = [zoo.load(name) for name in zoo.names()]
    adapters = [zoo.load_adapter(name) for name in zoo.adapter_names()]
    if wants_json():
        print_json(
            {
                "default": zoo.DEFAULT,
                "models": [networks.describe(each) for each in models],
                "adapters": [adapter.describe(each) for each in adapters],
            }
        )
        return
    figures = load_figures()
    rows = []
    for network in models:
        purpose = f"photographs; {network.parameters:,} parameters"
        name = f"{network.name} (default)" if network.name == zoo.DEFAULT else network.name
        rows.append(
            [name, f"x{network.scale}", purpose, "", "", network.license, _kilobytes(zoo.file_of(network.name))]
        )
    for each in adapters:
        measured = figures.get(each.name)
        gain, clean = (f"{measured.gain:+.2f}", f"{measured.clean:+.2f}") if measured else ("", "")
        purpose = zoo.purpose(each.name).removeprefix("for ")
        if each.ranges:
            purpose = "`dsclora export --precision int8`"
        size = _kilobytes(zoo.file_of(each.name))
        rows.append([each.name, f"x{each.scale}", purpose, gain, clean, each.license, size])
    print_table(["name", "scale", "for", ">gain, dB", ">clean, dB", "licence", ">kB"], rows)
    print("gain: on damaged pictures, pages or comics; clean: what the adapter costs clean photographs (PSNR-Y, Set14)")
    print(f"for the pictures measured, data and limits see the cards in {zoo.adapters()}")


def _kilobytes(path: "Path") -> str:
    return f"{path.stat().st_size / 1000:.0f}"


def doctor() -> None:
    """Show what dsclora uses of this machine, and why.

    Example: dsclora doctor
    """
    from dsclora.cli.tables import print_facts, print_table
    from dsclora.measure.doctor import examine

    facts = {"dsclora": dsclora.__version__, **examine()}
    if wants_json():
        print_json(facts)
        return
    system = {key: str(facts[key]) for key in ("dsclora", "python", "platform", "libvips", "cores")}
    system["cpu"] = f"{facts['cpu']['name']} ({' '.join(facts['cpu']['features']) or 'no known extensions'})"
    print_facts(system)
    print()
    runtimes = []
    for row in facts["runtimes"]:
        devices = ", ".join(row["devices"]) if row["installed"] else ""
        note = "" if row["installed"] else row["install"]
        if "kernels" in row:
            note = row["kernels"][0] if row["kernels"] else "not usable on this processor"
        used = "<- used" if row["used"] else ""
        runtimes.append([row["engine"], row["version"] if row["installed"] else "no", devices, note, used])
    print_table(["engine", "version", "devices", "kernel, or how to install", ""], runtimes)
    print()
    training = ", ".join(f"{k} {v or 'not installed'}" for k, v in facts["training"].items())
    precision = f"; on the CPU in {facts['cpu_trains_in']}" if facts["cpu_trains_in"] else ""
    print_facts({"why": facts["why"], "training": training + precision, "models": ", ".join(facts["models"])})
