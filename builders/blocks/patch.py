"""Latents ⇄ tokens. Legend: `B` batch, `C` channels, `F H W` latent frames, rows, columns, `D` width.

A token is a box of `time` × `space` × `space` latents; tokens are (B, frames, rows·columns, D).
"""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from sora_spec.builders.blocks.adaln import Modulation, ModulationTable, modulate
from sora_spec.language.schema.clip import Patch


class PatchIn(nn.Module):
    """Latents → tokens. One linear layer; equal to DiT's convolution with its weight (D, C, t, h, w) flattened."""

    def __init__(self, channels: int, patch: Patch, width: int) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Linear(channels * patch.time * patch.space**2, width)

    def forward(self, latents: Tensor) -> Tensor:
        """(B, C, F, H, W) → (B, f, h·w, D), in the dtype of the weights."""
        boxes = rearrange(
            latents.to(self.proj.weight.dtype),
            "b c (f t) (h p) (w q) -> b f (h w) (c t p q)",
            t=self.patch.time,
            p=self.patch.space,
            q=self.patch.space,
        )
        return self.proj(boxes)


class PatchOut(nn.Module):
    """Tokens → latents: DiT's final layer and unpatchify, with the channel last inside a patch."""

    def __init__(
        self, width: int, out_channels: int, patch: Patch, columns: int, modulation: Modulation = "zero"
    ) -> None:
        super().__init__()
        self.patch = patch
        self.columns = columns
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.proj = nn.Linear(width, patch.time * patch.space**2 * out_channels)
        self.modulation = nn.Linear(width, 2 * width) if modulation == "zero" else ModulationTable(2, width)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """(B, f, h·w, D) → (B, Cout, F, H, W) under `c` (B, D): the condition after its SiLU; with `single` before."""
        shift, scale = rearrange(self.modulation(c), "b d -> b 1 1 d").chunk(2, dim=-1)
        return rearrange(
            self.proj(modulate(self.norm(x), shift, scale)),
            "b f (h w) (t p q c) -> b c (f t) (h p) (w q)",
            w=self.columns,
            t=self.patch.time,
            p=self.patch.space,
            q=self.patch.space,
        )
