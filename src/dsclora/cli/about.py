"""The verbs that say what there is: models, doctor."""

from dsclora.cli.console import print_json
from dsclora.cli.options import JsonOption, VerboseOption


def models(as_json: JsonOption = False, verbose: VerboseOption = False) -> None:
    """List the bundled models, and the adapters of them.

    Example: dsclora models
    """
    from dsclora import zoo
    from dsclora.networks import adapter, span

    rows = [span.describe(zoo.load(name)) for name in zoo.names()]
    adapters = [adapter.describe(zoo.load_adapter(name)) for name in zoo.adapter_names()]
    if as_json:
        print_json({"default": zoo.DEFAULT, "models": rows, "adapters": adapters})
        return
    for row in rows:
        mark = " (default)" if row["name"] == zoo.DEFAULT else ""
        print(f"{row['name']}{mark}: x{row['scale']}, {row['channels']} channels, {row['parameters']:,} parameters")
    for row in adapters:
        if row["int8"]:
            print(f"{row['name']}: adapter of {row['training']['base']}, for `dsclora export --precision int8`")
            continue
        gain = row["training"]["result"]["held_out"]["gain"]
        print(f"{row['name']}: adapter of {row['training']['base']} {zoo.purpose(row['name'])}, {gain:+.2f} dB")
    print("gains: on pictures held out, of which some are clean; what an adapter costs on clean ones is in its card,")
    print(zoo.adapters())


def doctor(as_json: JsonOption = False, verbose: VerboseOption = False) -> None:
    """Say what is on this machine, what is used of it, and why.

    Example: dsclora doctor
    """
    from dsclora.measure.doctor import examine

    facts = examine()
    if as_json:
        print_json(facts)
        return
    for key in ("dsclora", "python", "platform", "libvips", "cores"):
        print(f"{key:<10} {facts[key]}")
    print(f"{'cpu':<10} {facts['cpu']['name']} ({' '.join(facts['cpu']['features']) or 'no known extensions'})")
    for row in facts["runtimes"]:
        state = f"{row['version']} on {', '.join(row['devices'])}" if row["installed"] else f"no: {row['install']}"
        if "kernels" in row:
            state += f" ({row['kernels'][0]})" if row["kernels"] else " (not usable on this processor)"
        print(f"{row['engine']:<12} {state}{'  <- used' if row['used'] else ''}")
    print(f"{'why':<10} {facts['why']}")
    training = ", ".join(f"{k} {v or 'not installed'}" for k, v in facts["training"].items())
    precision = f"; on the CPU in {facts['cpu_trains_in']}" if facts["cpu_trains_in"] else ""
    print(f"{'training':<10} {training}{precision}")
    print(f"{'models':<10} {', '.join(facts['models'])}")
