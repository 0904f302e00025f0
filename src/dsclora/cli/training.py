"""Begin a training run from the command line: PyTorch's threads, and the processes of `torchrun`."""

import typer


def start_training(ctx: typer.Context, device: str, threads: int | None) -> bool:
    """Set PyTorch's threads, join the processes of `torchrun`, and return whether another process speaks.

    Args:
        ctx: the command's context; the process group ends with it.
        device: the device to train on.
        threads: PyTorch's number of threads; its own choice by default.

    Raises:
        MissingExtraError: a package of the extra `train` is not installed.
    """
    from dsclora.training import processes

    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    ctx.with_resource(processes.joined(device))
    return processes.rank() > 0
