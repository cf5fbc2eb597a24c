"""SiT's reverse SDE (arXiv 2401.08740 §3.2), dx = (v + w·s)·dt + √(2w)·dW, with Euler–Maruyama steps.

w(t) is the diffusion coefficient; the paper's w_t is 2·w. Every w ≥ 0 has the same marginals, so it is chosen when
sampling and not in training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

from sora_spec.builders.diffusion.arrays import Array, Draw, Step
from sora_spec.builders.diffusion.ode import time_points
from sora_spec.builders.diffusion.paths import Path
from sora_spec.errors import UserError
from sora_spec.language.schema.objective import EulerMaruyamaSampler, Interpolant
from sora_spec.recipe.sampling import sde_interval, takes_last_step

VelocityAndScore = Callable[[Array, float], tuple[Array, Array]]
"""Velocity and score at one place and time, from one evaluation of the network."""


def diffusion_coefficient(path: Path, sampler: EulerMaruyamaSampler, t: float) -> float:
    """w(t) of the named form. Raises UserError: the form is infinite at `t`."""
    scale = sampler.diffusion_scale
    match sampler.diffusion:
        case "constant":
            return scale
        case "sbdm":
            return scale * _finite_diffusion(path, t)
        case "sigma":
            return scale * path.sigma(t)
        case "linear":
            return scale * (1 - t)
        case "decreasing":
            return 0.25 * (scale * math.cos(math.pi * t) + 1) ** 2
        case "increasing_decreasing":
            return scale * math.sin(math.pi * t) ** 2


def _finite_diffusion(path: Path, t: float) -> float:
    try:
        return path.diffusion(t)
    except ZeroDivisionError:
        raise UserError(
            f"sampler.diffusion: sbdm is infinite at t = {t:g}, where sampling starts",
            "set `sampler.diffusion: sigma`",
        ) from None


def integrate_euler_maruyama(
    path: Path, objective: Interpolant, sampler: EulerMaruyamaSampler, model: VelocityAndScore, at: Step, draw: Draw
) -> Iterator[Step]:
    """`sampler.steps` noisy steps over SiT's interval, then the last step, to t = 1."""
    t0, t1 = sde_interval(objective, sampler)
    dt = (t1 - t0) / sampler.steps
    for t, end in pairwise(time_points(t0, t1, sampler.steps)):
        w = diffusion_coefficient(path, sampler, t)
        velocity, score = model(at.latents, t)
        at.latents = at.latents + dt * (velocity + w * score) + math.sqrt(2 * w * dt) * draw()
        yield at.reached(end)
    if takes_last_step(objective, sampler):
        at.latents = _last_step(path, sampler, model, at.latents, t1)
        yield at.reached(1.0)


def _last_step(path: Path, sampler: EulerMaruyamaSampler, model: VelocityAndScore, x: Array, t: float) -> Array:
    """From t to the data without noise: the SDE's drift, the expected data (Tweedie), or the ODE's velocity."""
    velocity, score = model(x, t)
    if sampler.last_step == "tweedie":
        return (x + path.sigma(t) ** 2 * score) / path.alpha(t)
    if sampler.last_step == "mean":
        velocity = velocity + diffusion_coefficient(path, sampler, t) * score
    return x + sampler.last_step_size * velocity
