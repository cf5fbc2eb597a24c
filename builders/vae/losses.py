"""The loss of the vae stage: reconstruction + KL (+ LPIPS)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss, mse_loss

from sora_spec.builders.vae.interface import VaeModule
from sora_spec.builders.vae.lpips import Lpips, load_lpips
from sora_spec.language.schema.vae import Lpips as LpipsSection
from sora_spec.language.schema.vae import VaeTraining


class VaeLoss(nn.Module):
    """Reconstruction per pixel value + kl_weight · KL per latent value + weight · LPIPS per frame.

    One training step::

        loss = VaeLoss(spec.vae.training).to(device)                # reads the LPIPS weights, if any, once
        noise = torch.randn(VAE.latent_shape(video.shape), generator=generator)
        terms = loss(VAE, video, noise)                           # scalars
        terms["loss"].backward()

    `terms` holds `loss` (with gradient) and, detached, for the log: `reconstruction`, `kl`, `psnr` (dB, of the
    unclamped sampled reconstruction) and `perceptual` where the spec asks for it. The module has no trainable
    parameters; its frozen ones follow `.to(device)`. Every term is computed in fp32 whatever the VAE's precision.
    """

    def __init__(self, settings: VaeTraining, perceptual: Lpips | None = None) -> None:
        """`perceptual`: in place of the network whose weights the spec names."""
        super().__init__()
        self.pixel_loss = l1_loss if settings.reconstruction == "l1" else mse_loss
        self.kl_weight = settings.kl_weight
        self.perceptual: Lpips | None = None
        self.perceptual_weight = 0.0
        if isinstance(settings.perceptual, LpipsSection):
            self.perceptual = perceptual or load_lpips(settings.perceptual.weights)
            self.perceptual_weight = settings.perceptual.weight

    def forward(self, vae: VaeModule, video: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Loss terms of video (B, 3, T, Y, X) in [-1, 1] with noise (B, C, F, H, W), standard normal.

        `vae` may be wrapped; it is called as `vae(video, noise)`.
        """
        output, mean, logvar = vae(video, noise)
        output, target = output.float(), video.float()
        reconstruction = self.pixel_loss(output, target)
        kl = kl_divergence(mean.float(), logvar.float()).mean()
        total = reconstruction + self.kl_weight * kl
        terms = {"reconstruction": reconstruction, "kl": kl, "psnr": psnr(output, target)}
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(frames_of(output), frames_of(target)).mean()
            total = total + self.perceptual_weight * terms["perceptual"]
        return {"loss": total} | {name: value.detach() for name, value in terms.items()}


def kl_divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, exp(logvar)) ‖ N(0, 1)) per latent value, in nats: ½(μ² + σ² − 1 − log σ²)."""
    return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar)


def psnr(output: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB over all values of [-1, 1] videos: 10·log10(2² / MSE)."""
    return 10.0 * torch.log10(4.0 / mse_loss(output, target).clamp_min(1e-12))


def frames_of(video: Tensor) -> Tensor:
    """(B, 3, T, Y, X) → (B·T, 3, Y, X)."""
    return video.transpose(1, 2).flatten(0, 1)
