"""Training losses: DiT's (noise and learned variance) and SiT's (velocity, score or noise on an interpolant).

Every loss is per sample, a mean over all other dimensions, computed in float32 whatever the network's precision.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from sora_spec.builders.diffusion.paths import build_path, training_interval
from sora_spec.builders.diffusion.schedules import build_schedule
from sora_spec.builders.diffusion.torch_arrays import TORCH
from sora_spec.errors import UserError
from sora_spec.language.schema.objective import Ddpm, Interpolant
from sora_spec.language.schema.spec import Spec

__all__ = ["TORCH", "DdpmLoss", "InterpolantLoss", "Loss", "build_loss"]

Denoise: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""`network(x_t (B, C, F, H, W), time (B,)) -> (B, C or 2·C, F, H, W)`, its condition bound by the caller."""


class Loss(ABC):
    """What training minimises, and where its times come from."""

    @abstractmethod
    def draw_time(self, batch: int, generator: torch.Generator) -> Tensor:
        """Training times (B,) float32, on the generator's device, as the network takes them."""

    @abstractmethod
    def terms(self, network: Denoise, latents: Tensor, time: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """The loss and its parts, each (B,): `loss`, `mse`, and `vb` where a variance is learned."""

    def tables(self, device: torch.device) -> list[Tensor]:
        """Constants that the loss keeps on `device` from its first use on."""
        return []

    def __call__(self, network: Denoise, latents: Tensor, time: Tensor, noise: Tensor) -> Tensor:
        """The loss of every sample (B,) at its time, with `noise` in the shape of `latents`."""
        return self.terms(network, latents, time, noise)["loss"]


class DdpmLoss(Loss):
    """Mean squared error of the prediction, plus the variational bound where the variance is learned (DiT's loss).

    The bound is in bits, is not rescaled by the number of steps, and sees the mean as a constant, so that only the
    variance channels learn from it (`L_vlb` of arXiv 2102.09672 with LossType.MSE).
    """

    def __init__(self, objective: Ddpm) -> None:
        self.objective = objective
        schedule = build_schedule(objective)
        self.steps = schedule.steps
        self._tables = {
            "signal": np.sqrt(schedule.alpha_bar),
            "spread": np.sqrt(1 - schedule.alpha_bar),
            "posterior_clean": schedule.posterior_clean,
            "posterior_noisy": schedule.posterior_noisy,
            "posterior_log_variance": schedule.posterior_log_variance,
            "log_betas": schedule.log_betas,
        }
        self._on_device: dict[torch.device, dict[str, Tensor]] = {}

    def draw_time(self, batch: int, generator: torch.Generator) -> Tensor:
        """Uniform over the steps 0..steps−1."""
        return torch.randint(self.steps, (batch,), generator=generator, device=generator.device).float()

    def terms(self, network: Denoise, latents: Tensor, time: Tensor, noise: Tensor) -> dict[str, Tensor]:
        clean, noise = latents.float(), noise.float()
        at = self._gather(time)
        noisy = at["signal"] * clean + at["spread"] * noise
        prediction, values = _split(network(noisy, time), clean, learned=self._learns_variance)
        target = noise
        if self.objective.prediction == "velocity":
            target = at["signal"] * noise - at["spread"] * clean
        mse = _mean((prediction - target) ** 2)
        if not self._learns_variance:
            return {"loss": mse, "mse": mse}
        bound = self._variational_bound(at, clean, noisy, prediction.detach(), values, time)
        return {"loss": mse + bound, "mse": mse, "vb": bound}

    @property
    def _learns_variance(self) -> bool:
        return self.objective.variance == "learned_range"

    def tables(self, device: torch.device) -> list[Tensor]:
        return list(self._tables_on(device).values())

    def _tables_on(self, device: torch.device) -> dict[str, Tensor]:
        if device not in self._on_device:
            self._on_device[device] = {
                name: torch.tensor(table, dtype=torch.float32, device=device) for name, table in self._tables.items()
            }
        return self._on_device[device]

    def _gather(self, time: Tensor) -> dict[str, Tensor]:
        """Every table at `time`, (B, 1, 1, 1, 1) float32."""
        step = time.long()
        return {name: _as_latents(table[step]) for name, table in self._tables_on(time.device).items()}

    def _variational_bound(
        self, at: dict[str, Tensor], clean: Tensor, noisy: Tensor, prediction: Tensor, values: Tensor, time: Tensor
    ) -> Tensor:
        """KL(q(x_{t−1} | x_t, x₀) ‖ p(x_{t−1} | x_t)) in bits per dimension; at step 0 the decoder's likelihood."""
        if self.objective.prediction == "velocity":
            predicted = at["signal"] * noisy - at["spread"] * prediction
        else:
            predicted = (noisy - at["spread"] * prediction) / at["signal"]
        mean = at["posterior_clean"] * predicted + at["posterior_noisy"] * noisy
        true_mean = at["posterior_clean"] * clean + at["posterior_noisy"] * noisy
        fraction = (values + 1) / 2
        smallest, largest = at["posterior_log_variance"], at["log_betas"]
        log_variance = fraction * largest + (1 - fraction) * smallest
        divergence = _mean(normal_kl(true_mean, smallest, mean, log_variance))
        decoder = -_mean(discretized_log_likelihood(clean, mean, 0.5 * log_variance))
        return torch.where(time == 0, decoder, divergence) / math.log(2)


class InterpolantLoss(Loss):
    """SiT's losses: mean squared error of velocity, noise or σ·score, the latter two with a weight over time."""

    def __init__(self, objective: Interpolant) -> None:
        self.objective = objective
        self.path = build_path(objective, torch)

    def draw_time(self, batch: int, generator: torch.Generator) -> Tensor:
        """Uniform over SiT's training interval."""
        t0, t1 = training_interval(self.objective)
        return torch.rand(batch, generator=generator, device=generator.device) * (t1 - t0) + t0

    def terms(self, network: Denoise, latents: Tensor, time: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """See `Loss.terms`; `mse` is unweighted."""
        data, noise = latents.float(), noise.float()
        t = _as_latents(time.float())
        prediction, _ = _split(network(self.path.interpolate(data, noise, t), time), data, learned=False)
        mse = _mean(self._error(prediction, data, noise, t) ** 2)
        return {"loss": self._weight(time.float()) * mse, "mse": mse}

    def _error(self, prediction: Tensor, data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        match self.objective.prediction:
            case "velocity":
                return prediction - self.path.velocity(data, noise, t)
            case "noise":
                return prediction - noise
            case "score":
                return prediction * self.path.sigma(t) + noise

    def _weight(self, t: Tensor) -> Tensor | float:
        """1, (g/σ)² or g/σ²: the last two make the loss that of the velocity, or a bound of the likelihood."""
        if self.objective.prediction == "velocity":
            return 1.0
        match self.objective.weighting:
            case "none":
                return 1.0
            case "velocity":
                return (self.path.diffusion(t) / self.path.sigma(t)) ** 2
            case "likelihood":
                return self.path.diffusion(t) / self.path.sigma(t) ** 2


LOSSES: dict[str, Callable[[Any], Loss]] = {"ddpm": DdpmLoss, "interpolant": InterpolantLoss}
"""By kind of `objective`: the loss of a section."""


def build_loss(spec: Spec) -> Loss:
    """The loss of `spec.objective`."""
    return LOSSES[spec.objective.kind](spec.objective)


def normal_kl(mean: Tensor, log_variance: Tensor, other_mean: Tensor, other_log_variance: Tensor) -> Tensor:
    """KL divergence from one diagonal normal to another, elementwise, in nats."""
    difference = log_variance - other_log_variance
    return 0.5 * (difference.exp() - 1 - difference + (mean - other_mean) ** 2 * torch.exp(-other_log_variance))


def discretized_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log probability, elementwise in nats, of the 8-bit bin of `x` in [−1, 1] under a normal (arXiv 2006.11239 §3.3).

    The outer bins reach to infinity. The normal's distribution function is the tanh approximation that DiT trains with.
    """
    centered, inverse_scale = x - mean, torch.exp(-log_scale)
    upper = _normal_cdf(inverse_scale * (centered + 1 / 255))
    lower = _normal_cdf(inverse_scale * (centered - 1 / 255))
    inside = torch.where(x > 0.999, 1 - lower, upper - lower)
    return torch.where(x < -0.999, upper, inside).clamp(min=1e-12).log()


def _normal_cdf(x: Tensor) -> Tensor:
    """The normal distribution function, within 3e-4 (Page 1977)."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _split(output: Tensor, latents: Tensor, *, learned: bool) -> tuple[Tensor, Tensor]:
    """Prediction and variance values, in float32; the second half of channels is dropped where it is not `learned`.

    Raises UserError: the network has no second half to learn the variance with.
    """
    C = latents.shape[1]
    if learned and output.shape[1] != 2 * C:
        raise UserError(
            f"objective.variance: learned_range needs {2 * C} output channels, the network has {output.shape[1]}",
            "set `backbone.learn_sigma: true`, or `objective.variance: fixed_small`",
        )
    assert output.shape[1] in (C, 2 * C)
    return output[:, :C].float(), output[:, C:].float()


def _as_latents(x: Tensor) -> Tensor:
    """(B,) as (B, 1, 1, 1, 1)."""
    return x.view(-1, 1, 1, 1, 1)


def _mean(x: Tensor) -> Tensor:
    """Mean over all dimensions but the first: (B,)."""
    return x.flatten(1).mean(1)
