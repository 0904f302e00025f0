"""Write TorchScript and PT2 programs."""

from pathlib import Path

from dsclora.exports.base import Converted, Target, append_suffix, describe_shape, round_up
from dsclora.networks import Network
from dsclora.pictures.arrays import Float32


def convert(network: Network, stem: Path, target: Target, size: tuple[int, int] | None) -> Converted:
    """Write TorchScript for libtorch and phones, or PT2 (`torch.export`) for AOTInductor and ExecuTorch."""
    import torch

    class Clipped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network.to_torch()

        def forward(self, lr: torch.Tensor) -> torch.Tensor:
            return self.net(lr).clamp(0, 1)  # type: ignore[no-any-return]

    net = Clipped().eval()
    # an axis of length 1 in the example would be fixed to 1
    example = torch.zeros(1, 3, *size) if size else torch.zeros(2, 3, *round_up((40, 48), network.multiple))
    path = append_suffix(stem, ".pt" if target == "torchscript" else ".pt2")
    with torch.inference_mode():
        if target == "torchscript":
            torch.jit.trace(net, example).save(path)  # type: ignore[no-untyped-call]
            loaded = torch.jit.load(path)  # type: ignore[no-untyped-call]
        else:
            axes = dict.fromkeys((0, 2, 3), torch.export.Dim.AUTO) if size is None else {}
            torch.export.save(torch.export.export(net, (example,), dynamic_shapes=(axes or None,)), path)
            loaded = torch.export.load(path).module()

    def run(picture: Float32) -> Float32:
        with torch.inference_mode():
            return loaded(torch.from_numpy(picture)).numpy()  # type: ignore[no-any-return]

    return Converted(f"torch {torch.__version__}", run, ("NCHW, RGB, float32, 0..1", describe_shape(size)))
