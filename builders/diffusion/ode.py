"""Integrators of dx/dt = field(x, t) from t0 to t1: Euler, Heun, and adaptive Dormand–Prince.

`integrate_dopri5` takes the steps that torchdiffeq 0.2's `dopri5` takes, so that published SiT samples can be
reproduced without torch: the same first step, error norm and controller, and the same interpolation at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

from sora_spec.builders.diffusion.arrays import Array, Arrays, Step
from sora_spec.errors import UserError
from sora_spec.recipe.sampling import Interval

Field: TypeAlias = Callable[[Array, float], Array]


def time_points(t0: float, t1: float, steps: int) -> list[float]:
    """`steps` + 1 evenly spaced times, the last exactly `t1`."""
    return [t0 + (t1 - t0) * i / steps for i in range(steps)] + [t1]


def integrate_euler(field: Field, at: Step, t0: float, t1: float, steps: int) -> Iterator[Step]:
    """Explicit Euler: one evaluation per step."""
    for start, end in pairwise(time_points(t0, t1, steps)):
        at.latents = at.latents + (end - start) * field(at.latents, start)
        yield at.reached(end)


def integrate_heun(field: Field, at: Step, t0: float, t1: float, steps: int) -> Iterator[Step]:
    """Heun's second-order method (torchdiffeq's `heun2`): two evaluations per step."""
    for start, end in pairwise(time_points(t0, t1, steps)):
        first = field(at.latents, start)
        second = field(at.latents + (end - start) * first, end)
        at.latents = at.latents + (end - start) / 2 * (first + second)
        yield at.reached(end)


# Dormand & Prince 1980, with the fourth-order weights of Shampine 1986 for the error.
_NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (
    35 / 384 - 1951 / 21600,
    0.0,
    500 / 1113 - 22642 / 50085,
    125 / 192 - 451 / 720,
    -2187 / 6784 + 12231 / 42400,
    11 / 84 - 649 / 6300,
    -1 / 60,
)
# Weights of the solution at the middle of a step, for the interpolating polynomial.
_MIDDLE = (
    6025192743 / 30085553152 / 2,
    0.0,
    51252292925 / 65400821598 / 2,
    -2691868925 / 45128329728 / 2,
    187940372067 / 1594534317056 / 2,
    -1776094331 / 19743644256 / 2,
    11237099 / 235043384 / 2,
)
_ORDER = 5
_SAFETY = 0.9
_LARGEST_FACTOR = 10.0
_SMALLEST_FACTOR = 0.2


class _Step(NamedTuple):
    """One trial step from (t, x) to (t + length, end)."""

    t: float
    length: float
    x: Array
    end: Array
    slopes: Sequence[Array]
    """Derivatives of the seven stages; the last is the derivative at the end."""


def integrate_dopri5(
    field: Field, at: Step, t0: float, t1: float, atol: float, rtol: float, xp: Arrays, limit: float = math.inf
) -> Iterator[Step]:
    """Adaptive Dormand–Prince 5(4): six evaluations per trial step, eight for the first.

    As in torchdiffeq the last step may reach beyond `t1`, and the result is then interpolated back to it. `limit` is
    for fields that cannot be continued: no time beyond it is ever evaluated. The error norm runs over the whole batch,
    so a sample depends on its batch, within the tolerance.

    Raises UserError: the field is not finite, or the step shrinks to nothing.
    """
    slope = field(at.latents, t0)
    length = _first_step(field, at.latents, slope, t0, atol, rtol, xp, limit)
    t = t0
    while True:
        _require_progress(t, length)
        step = _try_step(field, at.latents, slope, t, min(length, limit - t), limit)
        error = _error_ratio(step, atol, rtol, xp)
        if error <= 1:
            t, at.latents, slope = t + step.length, step.end, step.slopes[-1]
            if t >= t1:
                at.latents = _interpolate(step, (t1 - step.t) / step.length)
                yield at.reached(t1)
                return
            yield at.reached(t)
            if at.latents is not step.end:
                slope = field(at.latents, t)
        length = _next_length(step.length, error)


def _require_progress(t: float, length: float) -> None:
    if not t + length > t:
        raise UserError(
            f"sampling stopped at t = {t:.6g}: the network's output is not finite, or changes too fast to follow",
            "check the weights for NaN, or use a fixed-step sampler (`sampler.kind: heun`)",
        )


def _combine(slopes: Sequence[Array], weights: Sequence[float], length: float) -> Array:
    """Σ length·weight·slope, without the terms whose weight is zero."""
    terms = [length * weight * slope for slope, weight in zip(slopes, weights, strict=True) if weight]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _try_step(field: Field, x: Array, slope: Array, t: float, length: float, limit: float) -> _Step:
    slopes, end = [slope], x
    for node, weights in zip(_NODES, _STAGES, strict=True):
        end = x + _combine(slopes, weights, length)
        slopes.append(field(end, min(t + node * length, limit)))
    # The last stage's weights are those of the solution ("first same as last").
    return _Step(t, length, x, end, slopes)


def _error_ratio(step: _Step, atol: float, rtol: float, xp: Arrays) -> float:
    """Estimated error over tolerance, root mean square; at most 1 is accepted."""
    tolerance = atol + rtol * xp.maximum(abs(step.x), abs(step.end))
    return xp.rms(_combine(step.slopes, _ERROR, step.length) / tolerance)


def _next_length(length: float, error: float) -> float:
    """Length of the next step: 0.9·error^(−1/5) times this one, within 0.2 (1 after an accepted step) and 10."""
    if math.isnan(error):
        return 0.0
    if error == 0:
        return length * _LARGEST_FACTOR
    smallest = 1.0 if error < 1 else _SMALLEST_FACTOR
    return length * min(_LARGEST_FACTOR, max(_SAFETY / error ** (1 / _ORDER), smallest))


def _first_step(
    field: Field, x: Array, slope: Array, t0: float, atol: float, rtol: float, xp: Arrays, limit: float
) -> float:
    """Hairer, Nørsett & Wanner, Solving Ordinary Differential Equations I, §II.4."""
    scale = atol + rtol * abs(x)
    size, speed = xp.rms(x / scale), xp.rms(slope / scale)
    probe = 1e-6 if size < 1e-5 or speed < 1e-5 else 0.01 * size / speed
    probe = min(probe, limit - t0)
    bend = xp.rms((field(x + probe * slope, t0 + probe) - slope) / scale) / probe
    if speed <= 1e-15 and bend <= 1e-15:
        return min(100 * probe, max(1e-6, 1e-3 * probe))
    return min(100 * probe, (0.01 / max(speed, bend)) ** (1 / _ORDER))


def _interpolate(step: _Step, fraction: float) -> Array:
    """The fourth-order polynomial through both ends, both slopes and the middle of `step`, at `fraction` of it."""
    x0, x1, h = step.x, step.end, step.length
    f0, f1 = step.slopes[0], step.slopes[-1]
    middle = x0 + _combine(step.slopes, _MIDDLE, h)
    a = 2 * h * (f1 - f0) - 8 * (x1 + x0) + 16 * middle
    b = h * (5 * f0 - 3 * f1) + 18 * x0 + 14 * x1 - 32 * middle
    c = h * (f1 - 4 * f0) - 11 * x0 - 5 * x1 + 16 * middle
    return x0 + fraction * (h * f0 + fraction * (c + fraction * (b + fraction * a)))


ODE: dict[str, Callable[[Any, Field, Step, Interval, Arrays, float], Iterator[Step]]] = {
    "euler": lambda sampler, field, at, ends, xp, limit: integrate_euler(field, at, *ends, sampler.steps),
    "heun": lambda sampler, field, at, ends, xp, limit: integrate_heun(field, at, *ends, sampler.steps),
    "dopri5": lambda sampler, field, at, ends, xp, limit: integrate_dopri5(
        field, at, *ends, sampler.atol, sampler.rtol, xp, limit
    ),
}
"""By kind of `sampler`: its integrator of a field between two times. The last argument is a time beyond which the field
must not be evaluated."""
