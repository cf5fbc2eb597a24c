"""A causal 3D convolutional autoencoder: MAGVIT-v2 (arXiv 2310.05737) without its quantiser, as in W.A.L.T.

Latent j depends on frames ≤ time·j only, decoded frame k on latents ≤ ⌈k/time⌉ only, and the first frame is an image.
A linear block transform runs beside the whole encoder and the whole decoder; a fresh VAE is that transform alone.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from sora_spec.builders.vae.block_transform import BlockAnalysis, BlockSynthesis
from sora_spec.builders.vae.causal_layers import (
    CausalConv3d,
    ResidualBlock,
    RmsNorm,
    Sequence,
    Stream,
    Upsample,
)
from sora_spec.builders.vae.interface import VaeModule
from sora_spec.builders.vae.streaming import decode_pieces, encode_pieces, join_frames
from sora_spec.errors import UserError
from sora_spec.language.schema.vae import Causal3dVae

FIRST_LOGVAR = -8.0
"""Log-variance of a fresh posterior. At 0 half of a sampled latent would be noise."""
LARGEST_LOGVAR = 1.0
"""Upper bound of the log-variance; a channel that carries nothing has the prior's, 0. With ldm's bound of 20 one odd
clip can draw noise with a standard deviation of thousands, and that step's loss drowns all others."""


class Causal3dModule(VaeModule):
    """Video (B, 3, 1 + k·time, Y, X) ⇄ latents (B, C, 1 + k, Y/space, X/space), normalised per channel."""

    latent_mean: Tensor
    latent_std: Tensor
    largest_logvar = LARGEST_LOGVAR

    def __init__(self, vae: Causal3dVae) -> None:
        super().__init__()
        widths = [vae.width * multiplier for multiplier in vae.multipliers]
        self.channels, self.time, self.space = vae.channels, vae.compression.time, 2 ** (len(widths) - 1)
        self.encoder = Encoder(widths, vae.blocks, self.time, vae.channels)
        self.decoder = Decoder(widths, vae.blocks + 1, self.time, vae.channels)
        self.register_buffer("latent_mean", torch.zeros(vae.channels))
        self.register_buffer("latent_std", torch.ones(vae.channels))

    def encode_raw(self, video: Tensor) -> Tensor:
        """Mean and log-variance of the posterior, unnormalised."""
        return self.encoder(video)

    def decode_raw(self, z: Tensor) -> Tensor:
        """Pixels of unnormalised latents; any number of latent frames."""
        return self.decoder(z)

    def encode_tile(self, video: Tensor) -> Tensor:
        if not self.streaming:
            return self.encode_raw(video)
        return join_frames(encode_pieces(self.encoder, video, self.time), self.latent_frames(video.shape[2]))

    def decode_tile(self, latents: Tensor) -> Tensor:
        if not self.streaming:
            return self.decode_raw(self.denormalise(latents))
        frames = 1 + (latents.shape[2] - 1) * self.time
        return join_frames(decode_pieces(self.decoder, self.denormalise(latents)), frames)

    def normalise(self, z: Tensor) -> Tensor:
        """(z − mean) / std per channel."""
        return (z - over_channels(self.latent_mean, z)) / over_channels(self.latent_std, z)

    def denormalise(self, latents: Tensor) -> Tensor:
        """latents · std + mean per channel."""
        return latents * over_channels(self.latent_std, latents) + over_channels(self.latent_mean, latents)

    def set_latent_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Mean and standard deviation of the unscaled latents per channel, each (C,); std must be positive."""
        assert bool((std > 0).all()), "a latent channel without variance cannot be normalised"
        self.latent_mean.copy_(mean)
        self.latent_std.copy_(std)

    def latent_frames(self, frames: int) -> int:
        """1 + (frames − 1) / time."""
        return 1 + (frames - 1) // self.time

    def check(self, video: Tensor) -> None:
        """Refuse sides that do not divide, and frames other than 1 + k·time. Skipped while tracing."""
        super().check(video)
        frames = video.shape[2]
        if not torch.compiler.is_compiling() and (frames - 1) % self.time:
            below = frames - (frames - 1) % self.time
            raise UserError(
                f"a clip of {frames} frames cannot be encoded: compression.time {self.time} takes 1 + k·{self.time}",
                hint=f"use {below} or {below + self.time} frames",
            )


class Encoder(nn.Module):
    """Video (B, 3, T, Y, X) → moments (B, 2C, F, H, W)."""

    def __init__(self, widths: list[int], blocks: int, time: int, channels: int) -> None:
        super().__init__()
        self.conv_in = CausalConv3d(3, widths[0])
        strides = time_strides(len(widths), time)
        self.levels = nn.ModuleList(Sequence([ResidualBlock(width) for _ in range(blocks)]) for width in widths)
        self.down = nn.ModuleList(
            CausalConv3d(width, below, (stride, 2))
            for (width, below), stride in zip(pairwise(widths), strides, strict=True)
        )
        self.norm_out = RmsNorm(widths[-1])
        self.conv_out = CausalConv3d(widths[-1], 2 * channels)
        self.transform = BlockAnalysis(channels, time, 2 ** (len(widths) - 1))
        nn.init.zeros_(self.conv_out.weight)
        nn.init.constant_(cast(Tensor, self.conv_out.bias)[:channels], 0.0)
        nn.init.constant_(cast(Tensor, self.conv_out.bias)[channels:], FIRST_LOGVAR)

    def forward(self, video: Tensor, stream: Stream | None = None) -> Tensor:
        """A clip, or with a stream its next piece."""
        x = self.conv_in(video, stream)
        for number, level in enumerate(self.levels):
            x = self.down[number - 1](x, stream) if number else x
            x = level(x, stream)
        mean, logvar = self.conv_out(silu(self.norm_out(x)), stream).chunk(2, dim=1)
        return torch.cat([mean + self.transform(video, stream), logvar], dim=1)


class Decoder(nn.Module):
    """Latents (B, C, F, H, W) → video (B, 3, T, Y, X). Levels run from the lowest resolution to the pixels."""

    def __init__(self, widths: list[int], blocks: int, time: int, channels: int) -> None:
        super().__init__()
        widths = widths[::-1]
        strides = time_strides(len(widths), time)[::-1]
        self.conv_in = CausalConv3d(channels, widths[0])
        self.levels = nn.ModuleList(Sequence([ResidualBlock(width) for _ in range(blocks)]) for width in widths)
        self.up = nn.ModuleList(
            Upsample(width, above, stride) for (width, above), stride in zip(pairwise(widths), strides, strict=True)
        )
        self.norm_out = RmsNorm(widths[-1])
        self.conv_out = CausalConv3d(widths[-1], 3)
        self.transform = BlockSynthesis(channels, time, 2 ** (len(widths) - 1))
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(cast(Tensor, self.conv_out.bias))

    def forward(self, z: Tensor, stream: Stream | None = None) -> Tensor:
        """A clip, or with a stream its next piece."""
        x = self.conv_in(z, stream)
        for number, level in enumerate(self.levels):
            x = self.up[number - 1](x, stream) if number else x
            x = level(x, stream)
        return self.conv_out(silu(self.norm_out(x)), stream) + self.transform(z, stream)


def time_strides(levels: int, time: int) -> list[int]:
    """Time stride of each of the levels − 1 downsamplers: time is halved as late as possible (MAGVIT-v2 §3.2)."""
    halvings = time.bit_length() - 1
    if halvings > levels - 1:
        raise UserError(
            f"vae.compression.time {time} needs {halvings} downsampling levels, but multipliers give {levels - 1}",
            hint="give vae.multipliers one entry more than the larger of the halvings of time and space",
        )
    return [1] * (levels - 1 - halvings) + [2] * halvings


def over_channels(values: Tensor, latents: Tensor) -> Tensor:
    """(C,) → (C, 1, 1, 1) in the latents' dtype."""
    return values.to(latents.dtype)[:, None, None, None]
