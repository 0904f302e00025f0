"""Write a submission in the layout of the NTIRE challenges."""

import inspect
import io
from pathlib import Path

from dsclora import files
from dsclora.errors import MissingExtraError, UsageError
from dsclora.measure.ntire import SCALE
from dsclora.networks import Network
from dsclora.networks.span import SpanNetwork


def submit(model: Network, folder: Path, team: int, name: str, overwrite: bool = False) -> tuple[Path, Path]:
    """Write a submission: `models/teamNN_NAME.py`, one file with the network, and `model_zoo/teamNN_NAME.pth`.

    Args:
        model: the network, adapters merged in.
        folder: the challenge's repository, or another folder that gets the two folders.
        team: the team's number.
        name: the method's name, a Python identifier.
        overwrite: replace existing files.

    Raises:
        UsageError: not a SPAN, not x4, or not a name.
        MissingExtraError: PyTorch is not installed.
        OutputError: cannot be written.
    """
    if not isinstance(model, SpanNetwork):
        raise UsageError(f"--submission writes a SPAN; {model.name} is of another kind: {model.architecture}")
    if model.scale != SCALE:
        raise UsageError(f"{model.name} enlarges {model.scale} times; the challenge is x{SCALE}")
    if not name.isidentifier():
        raise UsageError(f"the method's name becomes a Python module's: letters, digits and _, not {name!r}")
    try:
        import torch

        from dsclora.networks import span_torch
    except ImportError as error:
        raise MissingExtraError("torch", "train", "--submission") from error
    stem = f"team{team:02d}_{name}"
    code = _CODE.format(
        stem=stem,
        team=team,
        name=name,
        channels=model.channels,
        mean=model.mean,
        range=model.range,
        parts="\n\n".join(inspect.getsource(part) for part in (span_torch.PlainConv, span_torch.SPAB, span_torch.Span)),
    )
    paths = folder / "models" / f"{stem}.py", folder / "model_zoo" / f"{stem}.pth"
    content = io.BytesIO()  # torch reports a full disk as a RuntimeError
    torch.save(span_torch.from_network(model).state_dict(), content)
    with files.replacing(paths[0], overwrite) as source, files.replacing(paths[1], overwrite) as tensors:
        source.write_text(code)
        tensors.write_bytes(content.getvalue())
    return paths


_CODE = '''"""A SPAN (Wan et al., arXiv 2311.12770) for the NTIRE efficient-SR challenge; one file, RGB in 0..1.

In test_demo.py:

    elif model_id == {team}:
        from models.{stem} import Net
        name, data_range = "{team:02d}_{name}", 1.0
        model_path = os.path.join("model_zoo", "{stem}.pth")
        model = Net()
        model.load_state_dict(torch.load(model_path, weights_only=True), strict=True)
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

SPAN_MEAN = (0.4488, 0.4371, 0.4040)
SPAN_RANGE = 255.0
_NUMBERS = range(1, 7)


{parts}

class Net(Span):
    """{name}: {channels} channels."""

    def __init__(self) -> None:
        super().__init__({channels}, 4, {mean}, {range})
'''
