"""Between a tensor that FSDP2 has cut over ranks and the whole one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


def local(tensor: Tensor) -> Tensor:
    """This rank's part, sharing its memory; the tensor itself where it is not cut."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """A copy of the whole tensor in CPU memory. On a cut tensor every rank must call it."""
    full = (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach()
    return full.to("cpu", copy=True).contiguous()


def on_host(tensor: Tensor) -> Tensor:
    """A copy in CPU memory, cut as the tensor is."""
    return tensor.detach().to("cpu", copy=True)


def cut_like(full: Tensor, like: Tensor) -> Tensor:
    """This rank's part of `full`, cut and placed as `like` is. Every rank must call it."""
    full = full.to(device=like.device, dtype=like.dtype)
    if isinstance(like, DTensor):
        return distribute_tensor(full, like.device_mesh, like.placements).to_local()
    return full


@torch.no_grad()
def assign(target: Tensor, full: Tensor) -> None:
    """Overwrite `target` with the whole tensor `full`."""
    assert target.shape == full.shape, (target.shape, full.shape)
    local(target).copy_(cut_like(full, target))


def reshard(module: nn.Module) -> None:
    """Drop gathered weights, so that the next forward pass gathers what the shards hold by then."""
    from torch.distributed.fsdp import FSDPModule

    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()
