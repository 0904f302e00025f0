"""Write src/dsclora/zoo/index.json: what the bundled weights files hold. Run it when one is added or replaced.

python scripts/zoo_index.py
"""

import json
from pathlib import Path
from typing import Any

from dsclora.networks import adapter, span

ZOO = Path(__file__).resolve().parent.parent / "src" / "dsclora" / "zoo"


def index(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the facts of every model and adapter in a folder, by name."""
    models = {}
    for path in sorted(folder.glob("*.safetensors")):
        network = span.read(path)
        models[path.stem] = {
            "architecture": network.architecture,
            "scale": network.scale,
            "parameters": network.parameters,
            "sha256": network.sha256,
        }
    bases = {facts["sha256"]: name for name, facts in models.items()}
    adapters = {}
    for path in sorted((folder / "adapters").glob("*.safetensors")):
        added = adapter.read(path)
        adapters[path.stem] = {
            "base": bases[added.base_sha256],
            "scale": added.scale,
            "parameters": added.parameters,
            "int8": bool(added.ranges),
        }
    return {"models": models, "adapters": adapters}


if __name__ == "__main__":
    (ZOO / "index.json").write_text(json.dumps(index(ZOO), indent=1) + "\n")
