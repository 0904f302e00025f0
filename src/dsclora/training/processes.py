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
def joined(device: torch.device | str = "cpu") -> Iterator[torch.device]:
    """Join the processes of `torchrun`, where it has started this one and nobody has joined them yet.

    Args:
        device: "cpu", or "cuda" for one GPU a process; or a device, which is taken as it is.

    Yields:
        this process's device. There fp32 means fp32: cuDNN's TF32 is off until the block ends.

    Raises:
        UsageError: there is no such device.
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device == "cuda":
        if local >= torch.cuda.device_count():
            raise UsageError(f"{torch.cuda.device_count()} CUDA devices here, {local + 1} are needed; use --device cpu")
        device = torch.device("cuda", local)
    device = torch.device(device)
    tf32 = torch.backends.cudnn.allow_tf32
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.allow_tf32 = False
    try:
        with _group(device):
            yield device
    finally:
        torch.backends.cudnn.allow_tf32 = tf32


@contextmanager
def _group(device: torch.device) -> Iterator[None]:
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        yield
        return
    # the others wait for as long as the first one decodes pictures; of one that fails torchrun stops the rest
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=timedelta(days=1))
    try:
        yield
    finally:
        distributed.destroy_process_group()


@contextmanager
def _peer_failures() -> Iterator[None]:
    """Turn a communication failure into "another process has failed"."""
    try:
        yield
    except RuntimeError as error:
        raise TrainingError("another process has failed; see its message") from error


def world_size() -> int:
    """Return the number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Return this process's number, from 0; the first one decides."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def shard() -> tuple[int, int]:
    """Return rank and world size: which part of every batch is this process's."""
    return rank(), world_size()


def from_rank_0(decide: Callable[[], T]) -> T:
    """Return what the first process decides; the others do not decide for themselves."""
    if world_size() == 1:
        return decide()
    decision = [decide() if rank() == 0 else None]
    with _peer_failures():
        distributed.broadcast_object_list(decision, device=torch.device("cpu"))
    return decision[0]  # type: ignore[return-value]


def rank_0_first(work: Callable[[], T]) -> T:
    """Do work on files: first the first process, then the first of every other host, then the rest."""
    if world_size() == 1:
        return work()
    ours = 0 if rank() == 0 else 1 if os.environ.get("LOCAL_RANK") == "0" else 2
    for turn in range(3):
        if turn == ours:
            result = work()
        with _peer_failures():
            distributed.barrier()
    return result


def broadcast(tensors: Sequence[Tensor]) -> None:
    """Give all processes the first one's tensors, in place."""
    if world_size() > 1:
        with _peer_failures():
            for tensor in tensors:
                distributed.broadcast(tensor, 0)


def average(tensors: Sequence[Tensor]) -> None:
    """Replace tensors of one dtype by their means over the processes, in place, in one message."""
    if world_size() == 1:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    with _peer_failures():
        distributed.all_reduce(flat)
    flat /= world_size()
    for tensor, mean in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
        tensor.copy_(mean.view(tensor.shape))
