"""DDPM noise schedules as float64 tables, and their respacing.

Step 0 is the cleanest: x_t = √ᾱ_t x₀ + √(1−ᾱ_t) ε with t in 0..T−1 (arXiv 2006.11239; tables as in arXiv 2102.09672).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sora_spec.errors import UserError
from sora_spec.language.schema.objective import Ddpm, Spacing
from sora_spec.recipe.noise_levels import beta_ends, counts_by_stride, fixed_stride

Table = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Schedule:
    """Every table of a discrete diffusion. All are (T,) float64 except `timesteps`, (T,) int64."""

    betas: Table
    timesteps: NDArray[np.int64]
    """The step of the training process that each step stands for; what the network is told as time."""
    alpha_bar: Table
    """ᾱ: signal variance after the step."""
    alpha_bar_previous: Table
    """ᾱ of the step before; 1 at step 0."""
    posterior_variance: Table
    """β̃: variance of q(x_{t−1} | x_t, x₀); 0 at step 0."""
    posterior_log_variance: Table
    """log β̃ with entry 0, which would be −∞, replaced by entry 1."""
    posterior_clean: Table
    """Weight of x₀ in the mean of q(x_{t−1} | x_t, x₀)."""
    posterior_noisy: Table
    """Weight of x_t in the same mean."""

    @property
    def steps(self) -> int:
        return len(self.betas)

    @property
    def log_betas(self) -> Table:
        """log β, the upper end of the learned range."""
        return np.log(self.betas)

    def log_variance(self, variance: str) -> Table:
        """Log variance of a fixed reverse process: `fixed_small` is β̃, `fixed_large` is β with β̃₁ at step 0."""
        if variance == "fixed_small":
            return self.posterior_log_variance
        return np.append(self.posterior_log_variance[:1], self.log_betas[1:])


def linear_betas(steps: int, start: float, end: float) -> Table:
    """Betas evenly spaced from `start` to `end` (arXiv 2006.11239 §4)."""
    return np.linspace(start, end, steps, dtype=np.float64)


def cosine_betas(steps: int, offset: float = 0.008, largest: float = 0.999) -> Table:
    """Betas whose ᾱ follows a squared cosine (arXiv 2102.09672 eq. 17), capped at `largest`."""
    grid = np.arange(steps + 1, dtype=np.float64) / steps
    alpha_bar = np.cos((grid + offset) / (1 + offset) * math.pi / 2) ** 2
    return np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], largest)


def rescale_to_zero_terminal_snr(betas: Table) -> Table:
    """Betas whose last ᾱ is exactly 0 and whose first is unchanged (arXiv 2305.08891, algorithm 1)."""
    root = np.sqrt(np.cumprod(1 - betas))
    root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
    alpha_bar = root**2
    return 1 - np.append(alpha_bar[0], alpha_bar[1:] / alpha_bar[:-1])


def schedule_from_betas(betas: Table, timesteps: NDArray[np.int64] | None = None) -> Schedule:
    """All tables of the diffusion with these betas; each beta in (0, 1]."""
    assert np.all((betas > 0) & (betas <= 1))
    alpha_bar = np.cumprod(1 - betas, dtype=np.float64)
    previous = np.append(1.0, alpha_bar[:-1])
    variance = betas * (1 - previous) / (1 - alpha_bar)
    # A one-step process has no entry 1; its only step is taken without noise, so any finite value will do.
    first = variance[1] if betas.size > 1 else betas[0]
    return Schedule(
        betas=betas,
        timesteps=np.arange(betas.size) if timesteps is None else timesteps,
        alpha_bar=alpha_bar,
        alpha_bar_previous=previous,
        posterior_variance=variance,
        posterior_log_variance=np.log(np.append(first, variance[1:])),
        posterior_clean=betas * np.sqrt(previous) / (1 - alpha_bar),
        posterior_noisy=(1 - previous) * np.sqrt(1 - betas) / (1 - alpha_bar),
    )


def build_schedule(objective: Ddpm) -> Schedule:
    """The training schedule of `objective`.

    Raises UserError: pure noise at the last step together with noise prediction, from which no data can be recovered.
    """
    if objective.schedule == "cosine":
        betas = cosine_betas(objective.steps)
    else:
        start, end = beta_ends(objective)
        if end >= 1:
            raise UserError(
                f"objective.steps {objective.steps}: betas of 0.02 · 1000/steps reach {end:g}, and 1 leaves no signal",
                "set `objective.beta_end` below 1, or use more than 20 steps",
            )
        betas = linear_betas(objective.steps, start, end)
    if objective.zero_terminal_snr:
        if objective.prediction == "noise":
            raise UserError(
                "objective: zero_terminal_snr leaves no data in the last step, and noise prediction cannot recover it",
                "set `objective.prediction: velocity`",
            )
        betas = rescale_to_zero_terminal_snr(betas)
    return schedule_from_betas(betas)


def spaced_timesteps(total: int, count: int) -> list[int]:
    """`count` steps spread evenly over 0..total−1, ends included, halves rounded to even.

    This is improved-diffusion's rule for one section (openai/improved-diffusion `respace.py`), which accumulates the
    stride in floating point; 250 of 1000 come out the same to the last step. One difference: a single step is the
    noisiest, total−1, where that rule would take step 0 and denoise almost nothing.

    Raises UserError: more steps asked for than there are.
    """
    if count > total:
        raise UserError(
            f"sampler.steps {count} is more than the {total} steps of the objective",
            f"set `sampler.steps` to at most {total}",
        )
    if count == 1:
        return [total - 1]
    stride = (total - 1) / (count - 1)
    position, steps = 0.0, []
    for _ in range(count):
        steps.append(round(position))
        position += stride
    return steps


def strided_timesteps(total: int, count: int) -> list[int]:
    """`count` steps from 0 on, at the smallest fixed stride that gives so many (`ddimN` of ADM's `space_timesteps`).

    Raises UserError: no stride gives this number of steps.
    """
    stride = fixed_stride(total, count)
    if stride is None:
        near = ", ".join(map(str, counts_by_stride(total, count)[:3]))
        raise UserError(
            f"sampler.steps {count}: no fixed stride visits exactly {count} of {total} steps",
            f"set `sampler.steps` to one of {near}, or `sampler.spacing: even`",
        )
    return list(range(0, total, stride))


def respaced(schedule: Schedule, count: int, spacing: Spacing = "even") -> Schedule:
    """The diffusion over `count` of the steps of `schedule`, with betas that keep ᾱ at the steps kept."""
    visited = spaced_timesteps if spacing == "even" else strided_timesteps
    kept = np.array(visited(schedule.steps, count), np.int64)
    alpha_bar = schedule.alpha_bar[kept]
    betas = 1 - alpha_bar / np.append(1.0, alpha_bar[:-1])
    return schedule_from_betas(betas, schedule.timesteps[kept])
