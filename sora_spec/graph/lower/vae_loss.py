"""The loss of the vae stage: mirrors `builders/vae/losses.py`."""

from __future__ import annotations

from typing import Protocol

from sora_spec.graph.eager.dtypes import DType
from sora_spec.graph.eager.ops.pointwise import (
    absolute,
    add,
    add_scalar,
    cast_to,
    clamp,
    exp,
    mul,
    mul_scalar,
    power,
    sub,
    unary,
)
from sora_spec.graph.eager.ops.reduction import mean, mse_loss
from sora_spec.graph.eager.ops.views import chunk
from sora_spec.graph.eager.tensor import Tensor
from sora_spec.graph.lower.lpips import Lpips, frames_of


class Trained(Protocol):
    """A VAE that can be trained."""

    def encode_raw(self, video: Tensor) -> Tensor:
        """Mean and log-variance, in one tensor."""
        ...

    def decode_raw(self, z: Tensor) -> Tensor:
        """Pixels."""
        ...


def vae_loss(vae: Trained, video: Tensor, noise: Tensor, reconstruction: str, perceptual: Lpips | None) -> Tensor:
    """Reconstruction, divergence and perceptual distance of one batch; a number."""
    output, average, logvar = reconstruct(vae, video, noise)
    output, target = cast_to(output, DType.F32), cast_to(video, DType.F32)
    error = mean(absolute(sub(output, target))) if reconstruction == "l1" else mse_loss(output, target)
    divergence = mean(kl_divergence(cast_to(average, DType.F32), cast_to(logvar, DType.F32)))
    total = add(error, mul_scalar(divergence))
    logged = psnr(output, target)
    if perceptual is not None:
        distance = mean(perceptual(frames_of(output), frames_of(target)))
        total = add(total, mul_scalar(distance))
    del logged
    return total


def reconstruct(vae: Trained, video: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Through one posterior sample."""
    average, logvar = split_moments(vae.encode_raw(video))
    return vae.decode_raw(draw(average, logvar, noise)), average, logvar


def split_moments(moments: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 2C, ...) → mean and clamped log-variance."""
    average, logvar = chunk(moments, 2, 1)
    return average, clamp(logvar)


def draw(average: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """mean + std · noise."""
    return add(average, mul(exp(mul_scalar(logvar)), cast_to(noise, average.dtype)))


def kl_divergence(average: Tensor, logvar: Tensor) -> Tensor:
    """Divergence from the standard normal per value."""
    return mul_scalar(sub(add_scalar(add(power(average), exp(logvar)), "sub"), logvar))


def psnr(output: Tensor, target: Tensor) -> tuple[Tensor, ...]:
    """A number for the log, with what its graph keeps although nobody walks it."""
    error = mse_loss(output, target)
    clamped = clamp(error, 1, "clamp_min")
    inverse = unary("reciprocal", clamped)
    quotient = unary("mul", inverse)
    del clamped
    return unary("mul", unary("log10", quotient)), error, inverse, quotient
