"""Training on several processes, as `torchrun` starts them: the first one decides, speaks and writes.

Every process holds the whole network and cuts its share of every batch; the gradients are averaged. A batch is the same
for any number of processes, so a run may be interrupted on some number and go on with another.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed

from dsclora.errors import TrainingError, UsageError

T = TypeVar("T")


@contextmanager
def joined(device: str = "cpu") -> Iterator[torch.device]:
    """Join the processes of `torchrun`, where it has started this one; else work alone.

    Args:
        device: "cpu", or "cuda" for one GPU a process.

    Yields:
        this process's device.

    Raises:
        UsageError: there is no such device.
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device == "cuda" and local >= torch.cuda.device_count():
        raise UsageError(f"{torch.cuda.device_count()} CUDA devices here, {local + 1} are needed; use --device cpu")
    own = torch.device(device, local) if device == "cuda" else torch.device(device)
    if own.type == "cuda":
        torch.cuda.set_device(own)
        torch.backends.cudnn.allow_tf32 = False  # fp32 is to mean fp32
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield own
        return
    # the others wait for as long as the first one decodes pictures; of one that fails torchrun stops the rest
    distributed.init_process_group("cpu:gloo,cuda:nccl" if own.type == "cuda" else "gloo", timeout=timedelta(days=1))
    try:
        yield own
    finally:
        distributed.destroy_process_group()


@contextmanager
def _told() -> Iterator[None]:
    """The loss of another process is not reported as an error of this one."""
    try:
        yield
    except RuntimeError as error:
        raise TrainingError("another process has failed; see its message") from error


def world_size() -> int:
    """Processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0; the first one has the say."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def shard() -> tuple[int, int]:
    """Rank and count: which part of every batch is this process's."""
    return rank(), world_size()


def from_rank_0(decide: Callable[[], T]) -> T:
    """What the first process decides; the others do not ask themselves."""
    if world_size() == 1:
        return decide()
    decision = [decide() if rank() == 0 else None]
    with _told():
        distributed.broadcast_object_list(decision, device=torch.device("cpu"))
    return decision[0]  # type: ignore[return-value]


def rank_0_first(work: Callable[[], T]) -> T:
    """Work on files: first the first process, then the first of every other host, then the rest."""
    if world_size() == 1:
        return work()
    own = 0 if rank() == 0 else 1 if os.environ.get("LOCAL_RANK") == "0" else 2
    for turn in range(3):
        if turn == own:
            result = work()
        with _told():
            distributed.barrier()
    return result


def broadcast(tensors: Sequence[Tensor]) -> None:
    """Give all processes the first one's tensors, in place."""
    if world_size() > 1:
        with _told():
            for tensor in tensors:
                distributed.broadcast(tensor, 0)


def average(tensors: Sequence[Tensor]) -> None:
    """Replace tensors of one dtype by their means over the processes, in place, in one message."""
    if world_size() == 1:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    with _told():
        distributed.all_reduce(flat)
    flat /= world_size()
    for tensor, mean in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
        tensor.copy_(mean.view(tensor.shape))
