"""Interpolant paths of SiT (arXiv 2401.08740): x_t = α(t)·data + σ(t)·noise, with t = 0 noise and t = 1 data.

The paper's text runs time the other way; the convention here is that of its released code, checkpoints included.

Times are plain floats (with `maths` the standard library's module, so that coefficients are plain floats too), numpy
arrays (`maths` = numpy) or tensors that broadcast against the latents (`maths` = torch).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import ModuleType

from sora_spec.builders.diffusion.arrays import Array
from sora_spec.language.schema.objective import Interpolant
from sora_spec.recipe.sampling import Interval, margin
from sora_spec.recipe.sampling import sde_interval as sde_interval


@dataclass(frozen=True)
class Path(ABC):
    """α, σ and what follows from them. A dot is the derivative by t."""

    maths: ModuleType = math

    @abstractmethod
    def alpha(self, t: Array) -> Array:
        """α(t), the share of data."""

    @abstractmethod
    def sigma(self, t: Array) -> Array:
        """σ(t), the share of noise."""

    @abstractmethod
    def alpha_dot(self, t: Array) -> Array:
        """α'(t)."""

    @abstractmethod
    def sigma_dot(self, t: Array) -> Array:
        """σ'(t)."""

    @abstractmethod
    def drift(self, t: Array) -> Array:
        """f(t) = α'/α: the linear drift of the noising process is f·x. Infinite at t = 0 for Linear and GVP."""

    @abstractmethod
    def diffusion(self, t: Array) -> Array:
        """g(t) = σ²·α'/α − σσ', the diffusion coefficient that makes the score-based SDE (SBDM) of the path."""

    @abstractmethod
    def inverse_drift(self, t: Array) -> Array:
        """r(t) = α/α', finite at t = 0."""

    def interpolate(self, data: Array, noise: Array, t: Array) -> Array:
        """x_t = α·data + σ·noise."""
        return self.alpha(t) * data + self.sigma(t) * noise

    def velocity(self, data: Array, noise: Array, t: Array) -> Array:
        """The regression target of velocity prediction, α'·data + σ'·noise."""
        return self.alpha_dot(t) * data + self.sigma_dot(t) * noise

    def score_from_velocity(self, velocity: Array, x: Array, t: Array) -> Array:
        """s = (r·v − x) / (σ² − rσσ')."""
        r, sigma = self.inverse_drift(t), self.sigma(t)
        return (r * velocity - x) / (sigma * sigma - r * sigma * self.sigma_dot(t))

    def noise_from_velocity(self, velocity: Array, x: Array, t: Array) -> Array:
        """ε = (r·v − x) / (rσ' − σ)."""
        r = self.inverse_drift(t)
        return (r * velocity - x) / (r * self.sigma_dot(t) - self.sigma(t))

    def velocity_from_score(self, score: Array, x: Array, t: Array) -> Array:
        """v = f·x + g·s, the drift of the probability-flow ODE."""
        return self.drift(t) * x + self.diffusion(t) * score

    def score_from_noise(self, noise: Array, t: Array) -> Array:
        """s = −ε/σ."""
        return noise / -self.sigma(t)


@dataclass(frozen=True)
class Linear(Path):
    """α = t, σ = 1 − t (SiT's ICPlan; rectified flow)."""

    def alpha(self, t: Array) -> Array:
        """α = t."""
        return t

    def sigma(self, t: Array) -> Array:
        """σ = 1 − t."""
        return 1 - t

    def alpha_dot(self, t: Array) -> Array:
        """α' = 1."""
        return 1.0

    def sigma_dot(self, t: Array) -> Array:
        """σ' = −1."""
        return -1.0

    def drift(self, t: Array) -> Array:
        """f = 1/t."""
        return 1 / t

    def diffusion(self, t: Array) -> Array:
        """g = (1−t)/t."""
        return (1 - t) / t

    def inverse_drift(self, t: Array) -> Array:
        """r = t."""
        return t


@dataclass(frozen=True)
class Gvp(Path):
    """α = sin(πt/2), σ = cos(πt/2): a quarter of a circle, so that variance is preserved."""

    def alpha(self, t: Array) -> Array:
        """α = sin(πt/2)."""
        return self.maths.sin(math.pi / 2 * t)

    def sigma(self, t: Array) -> Array:
        """σ = cos(πt/2)."""
        return self.maths.cos(math.pi / 2 * t)

    def alpha_dot(self, t: Array) -> Array:
        """α' = π/2·cos(πt/2)."""
        return math.pi / 2 * self.sigma(t)

    def sigma_dot(self, t: Array) -> Array:
        """σ' = −π/2·sin(πt/2)."""
        return -math.pi / 2 * self.alpha(t)

    def drift(self, t: Array) -> Array:
        """f = π/2·cot(πt/2)."""
        return math.pi / 2 / self.maths.tan(math.pi / 2 * t)

    def diffusion(self, t: Array) -> Array:
        """g = f: from α² + σ² = 1 follows −σσ' = αα', and σ²f + α²f = f."""
        return self.drift(t)

    def inverse_drift(self, t: Array) -> Array:
        """r = 2/π·tan(πt/2)."""
        return 2 / math.pi * self.maths.tan(math.pi / 2 * t)


@dataclass(frozen=True)
class Vp(Path):
    """The variance-preserving diffusion: α = e^L with L = −¼(1−t)²(σmax−σmin) − ½(1−t)σmin, and σ² = 1 − α²."""

    sigma_min: float = 0.1
    sigma_max: float = 20.0

    def log_alpha(self, t: Array) -> Array:
        """L(t) ≤ 0, zero at t = 1."""
        left = 1 - t
        return -0.25 * left * left * (self.sigma_max - self.sigma_min) - 0.5 * left * self.sigma_min

    def alpha(self, t: Array) -> Array:
        """α = e^L."""
        return self.maths.exp(self.log_alpha(t))

    def sigma(self, t: Array) -> Array:
        """σ = √(1 − e^{2L}). expm1 because e^{2L} is within 1e-6 of 1 at the end of the training interval."""
        return self.maths.sqrt(-self.maths.expm1(2 * self.log_alpha(t)))

    def alpha_dot(self, t: Array) -> Array:
        """α' = L'·α."""
        return self.drift(t) * self.alpha(t)

    def sigma_dot(self, t: Array) -> Array:
        """σ' = −L'·α²/σ. Infinite at t = 1."""
        return -self.drift(t) * self.alpha(t) ** 2 / self.sigma(t)

    def drift(self, t: Array) -> Array:
        """f = L' = ½β with β = σmin + (1−t)(σmax−σmin)."""
        return 0.5 * (self.sigma_min + (1 - t) * (self.sigma_max - self.sigma_min))

    def diffusion(self, t: Array) -> Array:
        """g = ½β, as for every variance-preserving path g = f."""
        return self.drift(t)

    def inverse_drift(self, t: Array) -> Array:
        """r = 2/β."""
        return 1 / self.drift(t)


def build_path(objective: Interpolant, maths: ModuleType = math) -> Path:
    """The path of `objective`, computing with `maths` (math, numpy or torch)."""
    match objective.path:
        case "linear":
            return Linear(maths)
        case "gvp":
            return Gvp(maths)
        case "vp":
            return Vp(maths, objective.sigma_min, objective.sigma_max)


def training_interval(objective: Interpolant) -> Interval:
    """Times t0, t1 between which training times are uniform."""
    kept = margin(objective, training=True)
    return (0.0 if objective.path == "vp" else kept), 1.0 - kept


def ode_interval(objective: Interpolant) -> Interval:
    """Times t0, t1 between which the probability-flow ODE is integrated."""
    kept = margin(objective, training=False)
    return (0.0 if objective.path == "vp" else kept), 1.0 - kept
