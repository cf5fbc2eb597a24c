"""What every VAE offers to training, export and generation.

Legend: `B` batch, `C` latent channels, `T Y X` frames, rows and columns in pixels, `F H W` the same in latents.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sora_spec.builders.diffusion.torch_arrays import TORCH
from sora_spec.builders.vae.tiling import in_tiles
from sora_spec.errors import UserError
from sora_spec.language.tiles import Cut, cut


class VaeModule(nn.Module):
    """Pixels (B, 3, T, Y, X) in [-1, 1] ⇄ latents (B, C, F, H, W) of about unit variance.

    A subclass supplies `encode_raw` or all of `moments`, `decode_raw`, and `normalise`/`denormalise` where its latents
    are scaled. `encode` and `decode` work in pieces where `tiles` or `streaming` says so; `moments` and `forward` see
    whole clips.
    """

    channels: int
    """Latent channels C."""
    time: int
    """Frames per latent frame."""
    space: int
    """Rows and columns per latent row and column."""
    largest_logvar = 20.0
    """Upper bound of the posterior's log-variance; ldm's, unless a VAE has another."""
    tiles: tuple[int, int] | None = None
    """Side and overlap of tiles in latents; None for whole pictures."""
    streaming = False
    """Whether clips are encoded and decoded one latent frame at a time; only causal VAEs can."""

    def encode_raw(self, video: Tensor) -> Tensor:
        """Mean and log-variance of the posterior, (B, 2C, F, H, W): unscaled, not clamped, of the whole picture."""
        raise AssertionError("a VAE defines its encoder")

    def decode_raw(self, z: Tensor) -> Tensor:
        """Pixels of unscaled latents, of the whole picture."""
        raise AssertionError("a VAE defines its decoder")

    def encode_tile(self, video: Tensor) -> Tensor:
        """`encode_raw` as it is run on one tile, or on the whole picture where there are none."""
        return self.encode_raw(video)

    def decode_tile(self, latents: Tensor) -> Tensor:
        """Pixels of normalised latents as they are made for one tile, or for the whole picture where there are none."""
        return self.decode_raw(self.denormalise(latents))

    def moments(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the posterior of whole clips, unscaled, each (B, C, F, H, W)."""
        self.check(video)
        return split_moments(self.encode_raw(video), self.largest_logvar)

    def posterior(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """`moments`, in pieces where the VAE works so."""
        if self.tiles is None and not self.streaming:
            return self.moments(video)
        self.check(video)
        if self.tiles is None:
            return split_moments(self.encode_tile(video), self.largest_logvar)
        rows, columns = (side // self.space for side in video.shape[-2:])
        moments = in_tiles(self.encode_tile, video, self.cut(rows, columns), (self.space, 1), TORCH)
        return split_moments(moments, self.largest_logvar)

    def normalise(self, z: Tensor) -> Tensor:
        """Unscaled latents → what the denoiser sees."""
        return z

    def denormalise(self, latents: Tensor) -> Tensor:
        """What the denoiser sees → unscaled latents."""
        return latents

    def encode(self, video: Tensor, noise: Tensor | None = None) -> Tensor:
        """Normalised latents: the posterior's mean, or with `noise` (shaped like the latents) a sample of it."""
        mean, logvar = self.posterior(video)
        return self.normalise(mean if noise is None else draw(mean, logvar, noise))

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels of normalised latents; not clamped."""
        if self.tiles is None:
            return self.decode_tile(latents)
        rows, columns = latents.shape[-2:]
        return in_tiles(self.decode_tile, latents, self.cut(rows, columns), (1, self.space), TORCH)

    def cut(self, rows: int, columns: int) -> Cut:
        """How latents of so many rows and columns are cut into tiles."""
        assert self.tiles is not None, "the VAE has no tiles"
        return cut(rows, columns, *self.tiles)

    def forward(self, video: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction through one posterior sample, with the posterior's mean and log-variance: a training step.

        `forward` and not a named method, so that what is hooked onto modules from outside (FSDP2, compilation) applies.
        """
        mean, logvar = self.moments(video)
        return self.decode_raw(draw(mean, logvar, noise)), mean, logvar

    def latent_shape(self, video_shape: tuple[int, ...] | torch.Size) -> tuple[int, int, int, int, int]:
        """Shape (B, C, F, H, W) that a video of shape (B, 3, T, Y, X) encodes to."""
        batch, _, frames, rows, columns = video_shape
        return batch, self.channels, self.latent_frames(frames), rows // self.space, columns // self.space

    def latent_frames(self, frames: int) -> int:
        return frames // self.time

    def check(self, video: Tensor) -> None:
        """Refuse sides that the VAE cannot divide. Skipped while tracing, where sides are symbols."""
        if torch.compiler.is_compiling():
            return
        rows, columns = video.shape[-2:]
        if rows % self.space or columns % self.space:
            raise UserError(
                f"a video of {rows}x{columns} pixels cannot be encoded: both sides must be multiples of {self.space}",
                hint=f"crop it to {rows // self.space * self.space}x{columns // self.space * self.space}",
            )


class IdentityModule(VaeModule):
    """No VAE: the latents are the pixels."""

    channels, time, space = 3, 1, 1

    def moments(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """The pixels, with the smallest variance that the other VAEs know."""
        return video, torch.full_like(video, -30.0)

    def encode(self, video: Tensor, noise: Tensor | None = None) -> Tensor:
        """The pixels; there is nothing to sample."""
        return video

    def decode_raw(self, z: Tensor) -> Tensor:
        return z


def draw(mean: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """One sample of the diagonal Gaussian: mean + std · noise."""
    return mean + torch.exp(0.5 * logvar) * noise.to(mean.dtype)


def split_moments(moments: Tensor, largest_logvar: float = 20.0) -> tuple[Tensor, Tensor]:
    """(B, 2C, ...) → mean and log-variance, clamped to [-30, 20] as in ldm's DiagonalGaussianDistribution."""
    mean, logvar = moments.chunk(2, dim=1)
    return mean, logvar.clamp(-30.0, largest_logvar)
