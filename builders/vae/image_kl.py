"""The autoencoder of Stable Diffusion, run on every frame (arXiv 2112.10752).

Module names are those of ldm's `ldm/modules/diffusionmodules/model.py`, so that its state dict is ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import cast

from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention, silu

from sora_spec.builders.vae.interface import VaeModule
from sora_spec.language.schema.vae import ImageKlVae


class ImageKlModule(VaeModule):
    """AutoencoderKL per frame: video (B, 3, T, Y, X) ⇄ latents (B, C, T, Y/space, X/space), multiplied by `scale`."""

    time = 1

    def __init__(self, vae: ImageKlVae) -> None:
        super().__init__()
        self.channels, self.space, self.scale = vae.channels, 2 ** (len(vae.multipliers) - 1), vae.scale
        widths = [vae.width * multiplier for multiplier in vae.multipliers]
        self.encoder = Encoder(widths, vae.blocks, vae.groups, 2 * vae.channels)
        self.decoder = Decoder(widths, vae.blocks + 1, vae.groups, vae.channels)
        self.quant_conv = nn.Conv2d(2 * vae.channels, 2 * vae.channels, 1)
        self.post_quant_conv = nn.Conv2d(vae.channels, vae.channels, 1)

    def encode_raw(self, video: Tensor) -> Tensor:
        """Mean and log-variance of every frame's posterior, unscaled."""
        frames = rearrange(video, "b c t y x -> (b t) c y x")
        moments = self.quant_conv(self.encoder(frames))  # (B·T, 2C, H, W)
        return rearrange(moments, "(b t) c h w -> b c t h w", b=video.shape[0])

    def decode_raw(self, z: Tensor) -> Tensor:
        """Pixels of unscaled latents, frame by frame."""
        latents = rearrange(z, "b c f h w -> (b f) c h w")
        frames = self.decoder(self.post_quant_conv(latents))  # (B·F, 3, Y, X)
        return rearrange(frames, "(b f) c y x -> b c f y x", b=z.shape[0])

    def normalise(self, z: Tensor) -> Tensor:
        """z · scale."""
        return z * self.scale

    def denormalise(self, latents: Tensor) -> Tensor:
        """latents / scale."""
        return latents / self.scale


class Level(nn.Module):
    """One resolution: residual blocks, then a change of resolution where one follows."""

    block: nn.ModuleList
    downsample: nn.Module
    upsample: nn.Module


class Encoder(nn.Module):
    """Images (B, 3, Y, X) → features (B, out_channels, H, W)."""

    def __init__(self, widths: list[int], blocks: int, groups: int, out_channels: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.down = nn.ModuleList()
        for number, (channels, width) in enumerate(pairwise([widths[0], *widths])):
            level = Level()
            level.block = residual_blocks(channels, width, blocks, groups)
            level.downsample = Downsample(width) if number + 1 < len(widths) else nn.Identity()
            self.down.append(level)
        self.mid = Middle(widths[-1], groups)
        self.norm_out = group_norm(widths[-1], groups)
        self.conv_out = nn.Conv2d(widths[-1], out_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, Y, X) → (B, out_channels, H, W)."""
        x = self.conv_in(images)
        for level in cast("Iterable[Level]", self.down):
            for block in level.block:
                x = block(x)
            x = level.downsample(x)
        x = self.mid(x)
        return self.conv_out(silu(self.norm_out(x)))


class Decoder(nn.Module):
    """Latents (B, C, H, W) → images (B, 3, Y, X). `up` is numbered by resolution, as in ldm, and runs from the last."""

    def __init__(self, widths: list[int], blocks: int, groups: int, channels: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1], groups)
        self.up = nn.ModuleList()
        for number, (width, above) in enumerate(pairwise([*widths, widths[-1]])):
            level = Level()
            level.block = residual_blocks(above, width, blocks, groups)
            level.upsample = Upsample(width) if number else nn.Identity()
            self.up.append(level)
        self.norm_out = group_norm(widths[0], groups)
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """(B, C, H, W) → (B, 3, Y, X)."""
        x = self.mid(self.conv_in(latents))
        for number in reversed(range(len(self.up))):
            level = cast(Level, self.up[number])
            for block in level.block:
                x = block(x)
            x = level.upsample(x)
        return self.conv_out(silu(self.norm_out(x)))


class Middle(nn.Module):
    """Block, attention, block at the lowest resolution."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(width, width, groups)
        self.attn_1 = Attention(width, groups)
        self.block_2 = ResidualBlock(width, width, groups)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        return self.block_2(self.attn_1(self.block_1(x)))


class ResidualBlock(nn.Module):
    """GroupNorm, SiLU, 3x3 convolution, twice, beside a shortcut that is 1x1 where the channels change."""

    def __init__(self, channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = group_norm(channels, groups)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.norm2 = group_norm(out_channels, groups)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if channels != out_channels:
            self.nin_shortcut = nn.Conv2d(channels, out_channels, 1)
        self.projects = channels != out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) → (B, out_channels, H, W)."""
        h = self.conv1(silu(self.norm1(x)))
        # One step a line: each lets go of the last one's result, and the peak of the VAE is lower by a tensor.
        h = self.norm2(h)
        h = silu(h)
        h = self.conv2(h)
        return h + (self.nin_shortcut(x) if self.projects else x)


class Attention(nn.Module):
    """Single-head self-attention over the positions of a frame."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm = group_norm(width, groups)
        self.q = nn.Conv2d(width, width, 1)
        self.k = nn.Conv2d(width, width, 1)
        self.v = nn.Conv2d(width, width, 1)
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        h = self.norm(x)
        # Fused kernels want the channels of a position side by side; without the copies PyTorch falls back to scores.
        q, k, v = (rearrange(layer(h), "b c h w -> b 1 (h w) c").contiguous() for layer in (self.q, self.k, self.v))
        out = scaled_dot_product_attention(q, k, v)  # (B, 1, H·W, C)
        out = rearrange(out, "b 1 (h w) c -> b c h w", h=x.shape[2])
        return x + self.proj_out(out)


class Downsample(nn.Module):
    """Strided 3x3 convolution, padded on the right and at the bottom only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, 2H, 2W) → (B, C, H, W)."""
        return self.conv(pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Nearest neighbour ×2, then a 3x3 convolution. Expand and reshape, because TensorRT has no bf16 Resize."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, 2H, 2W)."""
        B, C, H, W = x.shape
        x = x[:, :, :, None, :, None].expand(B, C, H, 2, W, 2)
        return self.conv(x.reshape(B, C, 2 * H, 2 * W))


def residual_blocks(channels: int, width: int, blocks: int, groups: int) -> nn.ModuleList:
    """`blocks` blocks of which the first changes the channels."""
    return nn.ModuleList(ResidualBlock(width if number else channels, width, groups) for number in range(blocks))


def group_norm(channels: int, groups: int) -> nn.GroupNorm:
    """ldm's Normalize: ε is 1e-6 where PyTorch's default is 1e-5."""
    return nn.GroupNorm(groups, channels, eps=1e-6)
