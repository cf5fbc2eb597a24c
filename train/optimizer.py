"""AdamW, and its state as named tensors."""

from __future__ import annotations

from collections.abc import Container

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from sora_spec.language.schema.training import AdamW

_MOMENTS = ("exp_avg", "exp_avg_sq")


def build_adamw(module: nn.Module, settings: AdamW, device: torch.device) -> torch.optim.AdamW:
    """AdamW over every trainable parameter. The implementation is named, since its choice changes the last bits.

    `device`: where the weights lie; all are updated at once on a GPU, one after the other in host memory.
    """
    return torch.optim.AdamW(
        [parameter for parameter in module.parameters() if parameter.requires_grad],
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        foreach=device.type == "cuda",
        fused=False,
    )


def clip_gradients(module: nn.Module, limit: float | None) -> Tensor:
    """Norm of all gradients before clipping, where they lie; they are scaled down to `limit` when it is exceeded."""
    parameters = [parameter for parameter in module.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    if limit is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def optimizer_tensors(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """Both moments of every parameter that has been updated, as `name.exp_avg` and `name.exp_avg_sq`."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in module.named_parameters():
        state = optimizer.state.get(parameter)
        if state:
            tensors |= {f"{name}.{moment}": state[moment] for moment in _MOMENTS}
    return tensors


def begin_state(optimizer: torch.optim.Optimizer, module: nn.Module, step: int, names: Container[str]) -> None:
    """Let the optimiser have the state after `step` updates of those parameters whose moments are in `names`.

    The moments are zero: what `optimizer_tensors` gave is to be put into what it gives now.
    """
    for name, parameter in module.named_parameters():
        if f"{name}.{_MOMENTS[0]}" in names:
            moments = {
                moment: torch.zeros_like(parameter, memory_format=torch.preserve_format).detach() for moment in _MOMENTS
            }
            optimizer.state[parameter] = {"step": torch.tensor(float(step)), **moments}
