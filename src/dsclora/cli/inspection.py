"""The text of `dsclora inspect`: a file's kind, network, training, licence and hash."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dsclora.cli.tables import print_facts
from dsclora.networks import describe

if TYPE_CHECKING:
    from dsclora.networks import Network
    from dsclora.networks.adapter import Adapter


def print_network(network: "Network") -> None:
    """Print the facts about a base model."""
    described = describe(network)
    facts = {"kind": "model", "network": f"{network.architecture.upper()} x{network.scale}"}
    if "channels" in described:
        facts["network"] += f", {described['channels']} channels"
    facts["parameters"] = f"{network.parameters:,}"
    if "range" in described:
        mean = ", ".join(f"{value:g}" for value in described["mean"])
        facts["input"] = f"range {described['range']:g}, mean {mean}"
    last = {"licence": network.license, "sha256": network.sha256}
    print_facts(facts | _training(network.training) | last, network.name)


def print_adapter(adapter: "Adapter") -> None:
    """Print the facts about an adapter."""
    kinds = Counter((update.rank, update.alpha) for update in adapter.updates.values())
    updates = ", ".join(f"{count} of rank {rank} and alpha {alpha:g}" for (rank, alpha), count in kinds.items())
    facts = {
        "kind": "adapter (ConvLoRA), for int8" if adapter.ranges else "adapter (ConvLoRA)",
        "network": f"SPAN x{adapter.scale}, {adapter.channels} channels",
        "base": f"{adapter.training.get('base', 'a model')}, sha256 {adapter.base_sha256}",
        "parameters": f"{adapter.parameters:,}",
        "convs": updates,
    }
    if adapter.ranges:
        facts["ranges"] = f"for int8, of {len(adapter.ranges)} tensors"
    print_facts(facts | _training(adapter.training) | {"licence": adapter.license}, adapter.name)


def _training(training: Mapping[str, Any]) -> dict[str, str]:
    """Sum up a training record; what is not known here is shown as it is."""
    rest = {key: value for key, value in training.items() if value is not None and key != "base"}
    facts = {}
    if recipe := rest.pop("recipe", None):
        stages = recipe.get("stage", [])
        steps = " + ".join(f"{stage['iterations']:,}" for stage in stages)
        facts["training"] = f"{steps} iterations, {recipe.get('optimiser', 'adam')}"
    if data := rest.pop("data", None):
        facts["data"] = ", ".join(f"{key} {value}" for key, value in data.items() if key != "sha256")
    if teacher := rest.pop("teacher", None):
        facts["teacher"] = str(teacher.get("name", teacher)) if isinstance(teacher, dict) else str(teacher)
    for key in ("validation", "chosen_by"):
        if score := rest.pop(key, None):
            facts["validation"] = f"{score['psnr']:.3f} dB on {score['pictures']} pictures ({score['protocol']})"
    result = rest.pop("result", None) or {}
    for key, name in (("held_out", "held out"), ("general", "general")):
        if change := result.get(key):
            facts[name] = (
                f"{change['before']:.3f} -> {change['after']:.3f} dB, {change['gain']:+.3f} on {change['pictures']} "
                f"pictures ({change['confidence']:.0%} interval {change['interval'][0]:+.3f} to "
                f"{change['interval'][1]:+.3f})"
            )
    if figures := rest.pop("int8", None):
        facts["int8"] = ", ".join(f"{figures[key]:.3f} dB {key}" for key in ("float", "calibrated", "trained"))
    for key, value in rest.items():
        facts[key.replace("_", " ")] = json.dumps(value) if isinstance(value, dict | list) else str(value)
    return facts
