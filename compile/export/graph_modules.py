"""The two modules that are exported, and that eager generation runs: float32 in and out, whatever the weights are."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor, nn

from sora_spec.builders.denoiser import Denoiser
from sora_spec.builders.vae.from_spec import VaeModule
from sora_spec.builders.vae.interface import IdentityModule
from sora_spec.compile.bundle.manifest import Precision

TORCH_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class DenoiserGraph(nn.Module):
    """The denoiser with float32 inputs and output, whatever the precision of its weights."""

    dtype = torch.float32

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(
        self, latents: Tensor, time: Tensor, condition: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """latents (B, C, F, H, W), time (B,), condition, its mask → prediction (B, Cout, F, H, W)."""
        if condition is not None and condition.is_floating_point():
            condition = condition.to(self.dtype)
        return self.denoiser(latents.to(self.dtype), time, condition, mask).float()


class DecoderGraph(nn.Module):
    """The VAE's decoder with float32 input and output."""

    dtype = torch.float32

    def __init__(self, vae: VaeModule) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latents: Tensor) -> Tensor:
        """latents (B, C, F, H, W) → video (B, 3, T, Y, X)."""
        video = self.vae.decode(latents.to(self.dtype)).float()
        # A graph's input and output must be two tensors.
        return video.clone() if isinstance(self.vae, IdentityModule) else video


GraphModule: TypeAlias = DenoiserGraph | DecoderGraph


def cast_weights(module: GraphModule, precision: Precision) -> GraphModule:
    """`module` itself, whose weights are fp32: they and its arithmetic are now in `precision`."""
    if precision != "fp32":
        module.dtype = TORCH_DTYPES[precision]
        module.to(module.dtype)
    return module
