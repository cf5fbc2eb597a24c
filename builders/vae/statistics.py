"""Per-channel statistics of a VAE's unscaled latents, which normalise what the denoiser sees (W.A.L.T §3.1)."""

from __future__ import annotations

import torch
from torch import Tensor


class LatentStatistics:
    """Mean and standard deviation of posterior samples, gathered clip by clip without drawing any.

    The variance of a sample is that of the posterior means plus the mean posterior variance::

        statistics = LatentStatistics(VAE.channels)
        for video in clips:
            statistics.add(*VAE.moments(video))
        VAE.set_latent_statistics(*statistics.result())

    `sums` is one tensor (3, C) in float64, so that ranks can add theirs up with one all-reduce.
    """

    def __init__(self, channels: int, device: torch.device | str = "cpu") -> None:
        self.sums = torch.zeros(3, channels, dtype=torch.float64, device=device)
        """Per channel: number of values, Σ μ, Σ (μ² + σ²)."""

    def add(self, mean: Tensor, logvar: Tensor) -> None:
        """Count one batch of moments (B, C, F, H, W)."""
        mean, logvar = (x.detach().double().transpose(0, 1).flatten(1).to(self.sums.device) for x in (mean, logvar))
        count = torch.full_like(mean[:, 0], mean.shape[1])
        self.sums += torch.stack([count, mean.sum(1), (mean.square() + logvar.exp()).sum(1)])

    def result(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, each (C,) in float32; a standard deviation is at least 1e-6."""
        count, total, squares = self.sums
        assert bool((count > 0).all()), "no latents were counted"
        mean = total / count
        std = (squares / count - mean.square()).clamp_min(1e-12).sqrt()
        return mean.float(), std.float()
