"""Begin a training run from the command line: PyTorch's threads, and the processes of `torchrun`."""

import typer

from dsclora.errors import needs_extra


def start_training(ctx: typer.Context, device: str, threads: int | None) -> bool:
    """Set PyTorch's threads, join the processes of `torchrun`, and return whether another process speaks.

    Args:
        ctx: the command's context; the process group ends with it.
        device: the device to train on.
        threads: PyTorch's number of threads; its own choice by default.

    Raises:
        MissingExtraError: a package of the extra `train` is not installed.
    """
    with needs_extra("train", "training"):
        import torch

        from dsclora.training import processes, recipes  # noqa: F401 (needs pydantic)
    if threads is not None:
        torch.set_num_threads(threads)
    ctx.with_resource(processes.joined(device))
    return processes.rank() > 0
