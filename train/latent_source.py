"""Where the denoiser's latents come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sora_spec.builders.vae.interface import IdentityModule, VaeModule, draw
from sora_spec.train.batch import Batch, Pixels, to_device
from sora_spec.train.streams import normal


@dataclass(frozen=True)
class LatentSource:
    """A frozen VAE that encodes pixels as they come, and draws from a posterior that was kept.

    Both give the same bits where the VAE saw the clip in a batch of the same size.
    """

    vae: VaeModule
    seed: int
    device: torch.device

    @torch.no_grad()
    def latents(self, batch: Batch, samples: Sequence[int]) -> Tensor:
        """Normalised latents (B, C, F, H, W) on the device, drawn with the noise of each of the run's `samples`."""
        if isinstance(batch, Pixels):
            video = batch.video(self.device)
            if isinstance(self.vae, IdentityModule):
                return video
            return self.vae.encode(video, self._noise(self.vae.latent_shape(video.shape), samples))
        mean, logvar = to_device(batch.mean, self.device), to_device(batch.logvar, self.device)
        return self.vae.normalise(draw(mean, logvar, self._noise(mean.shape, samples)))

    def _noise(self, shape: Sequence[int], samples: Sequence[int]) -> Tensor:
        return to_device(normal(self.seed, "posterior", samples, shape[1:]), self.device)
