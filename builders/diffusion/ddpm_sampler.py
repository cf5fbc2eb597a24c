"""Sampling of discrete diffusions: DDPM's ancestral steps and DDIM, both on respaced steps.

Coefficients are Python floats taken from float64 tables; latents keep their own dtype. The time that a step reaches is
the training step whose noise is left in the latents, and −1 at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from sora_spec.builders.diffusion.arrays import Array, Arrays, Draw, Step
from sora_spec.builders.diffusion.guidance import GuidedNetwork
from sora_spec.builders.diffusion.schedules import Schedule, build_schedule, respaced
from sora_spec.errors import UserError
from sora_spec.language.schema.objective import DdimSampler, Ddpm, DdpmSampler


def clean_from_prediction(objective: Ddpm, alpha_bar: float, x: Array, prediction: Array) -> Array:
    """x₀ from x_t and what the network predicts: (x − √(1−ᾱ)·ε)/√ᾱ, or √ᾱ·x − √(1−ᾱ)·v (arXiv 2202.00512)."""
    if objective.prediction == "velocity":
        return math.sqrt(alpha_bar) * x - math.sqrt(1 - alpha_bar) * prediction
    return math.sqrt(1 / alpha_bar) * x - math.sqrt(1 / alpha_bar - 1) * prediction


def noise_from_prediction(objective: Ddpm, alpha_bar: float, x: Array, prediction: Array) -> Array:
    """ε from x_t and what the network predicts: itself, or √(1−ᾱ)·x + √ᾱ·v, which holds at ᾱ = 0 too."""
    if objective.prediction == "velocity":
        return math.sqrt(1 - alpha_bar) * x + math.sqrt(alpha_bar) * prediction
    return prediction


def sample_ddpm(
    objective: Ddpm, sampler: DdpmSampler, network: GuidedNetwork, at: Step, draw: Draw, xp: Arrays
) -> Iterator[Step]:
    """Ancestral sampling as DiT does it (`p_sample` with `clip_denoised=False`).

    Raises UserError: a learned variance from a network that has none.
    """
    schedule = respaced(build_schedule(objective), sampler.steps, sampler.spacing)
    for i in reversed(range(schedule.steps)):
        prediction, values = network(at.latents, float(schedule.timesteps[i]))
        clean = clean_from_prediction(objective, float(schedule.alpha_bar[i]), at.latents, prediction)
        at.latents = float(schedule.posterior_clean[i]) * clean + float(schedule.posterior_noisy[i]) * at.latents
        if i > 0:
            at.latents = at.latents + _deviation(objective, schedule, i, values, xp) * draw()
        yield at.reached(_time_after(schedule, i))


def _time_after(schedule: Schedule, i: int) -> float:
    return float(schedule.timesteps[i - 1]) if i else -1.0


def _deviation(objective: Ddpm, schedule: Schedule, i: int, values: Array, xp: Arrays) -> Array | float:
    """Standard deviation of step i; a learned one interpolates log β̃ (value −1) to log β (value 1)."""
    if objective.variance != "learned_range":
        return math.exp(0.5 * float(schedule.log_variance(objective.variance)[i]))
    if values.shape[1] == 0:
        raise UserError(
            "objective.variance: learned_range needs a variance beside the mean, and the network returns none",
            "set `backbone.learn_sigma: true` and train, or `objective.variance: fixed_small`",
        )
    smallest, largest = float(schedule.posterior_log_variance[i]), float(schedule.log_betas[i])
    fraction = (values + 1) / 2
    return xp.exp(0.5 * (fraction * largest + (1 - fraction) * smallest))


def sample_ddim(objective: Ddpm, sampler: DdimSampler, network: GuidedNetwork, at: Step, draw: Draw) -> Iterator[Step]:
    """DDIM (arXiv 2010.02502 eq. 12) on the same respaced steps; a learned variance is ignored."""
    schedule = respaced(build_schedule(objective), sampler.steps, sampler.spacing)
    for i in reversed(range(schedule.steps)):
        alpha_bar, previous = float(schedule.alpha_bar[i]), float(schedule.alpha_bar_previous[i])
        prediction, _ = network(at.latents, float(schedule.timesteps[i]))
        clean = clean_from_prediction(objective, alpha_bar, at.latents, prediction)
        noise = noise_from_prediction(objective, alpha_bar, at.latents, prediction)
        sigma = sampler.eta * math.sqrt((1 - previous) / (1 - alpha_bar)) * math.sqrt(1 - alpha_bar / previous)
        # With eta 1 and ᾱ = 0 the difference is zero up to rounding, on either side.
        at.latents = math.sqrt(previous) * clean + math.sqrt(max(0.0, 1 - previous - sigma * sigma)) * noise
        if sigma > 0:  # never at step 0, where ᾱ' is 1
            at.latents = at.latents + sigma * draw()
        yield at.reached(_time_after(schedule, i))
