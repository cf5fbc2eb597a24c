"""A sampler between its steps: where it is, and what becomes of latents that are put there."""

from __future__ import annotations

import numpy as np
import pytest

from sora_spec.builders.diffusion.samplers import NUMPY, Condition, sample, sampling_steps

LINEAR, DDPM = {"kind": "interpolant"}, {"kind": "ddpm"}
SHAPE = (2, 4, 1, 2, 2)
NOISY = {"objective": DDPM, "sampler": {"kind": "ddpm", "steps": 5}}


def noise(seed):
    return np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)


def network(x, time, labels):
    return np.concatenate([0.3 * x * (1 + time.reshape(-1, 1, 1, 1, 1) / 1000), 0 * x], 1)


def of(make_spec, case):
    """The steps of a case, from the same noise every time."""
    rng = np.random.default_rng(7)
    draws = lambda: rng.normal(size=SHAPE).astype(np.float32)  # noqa: E731
    return make_spec(case["objective"], case["sampler"]), network, noise(0), Condition(), draws, NUMPY


@pytest.mark.parametrize(
    ("objective", "sampler", "times"),
    [
        (LINEAR, {"kind": "euler", "steps": 4}, [0.25, 0.5, 0.75, 1.0]),
        (LINEAR, {"kind": "heun", "steps": 2}, [0.5, 1.0]),
        (LINEAR, {"kind": "euler_maruyama", "steps": 3, "last_step_size": 0.1}, [0.3, 0.6, 0.9, 1.0]),
        # Five of a thousand steps as DiT spaces them (0, 250, 500, 749, 999), the last first; then data.
        (DDPM, {"kind": "ddpm", "steps": 5}, [749, 500, 250, 0, -1]),
        (DDPM, {"kind": "ddim", "steps": 5}, [749, 500, 250, 0, -1]),
    ],
)
def test_steps_say_where_they_are(make_spec, objective, sampler, times):
    case = {"objective": objective, "sampler": sampler}
    found = [(step.index, step.time, step.latents) for step in sampling_steps(*of(make_spec, case))]
    assert [index for index, _, _ in found] == list(range(len(times)))
    assert [time for _, time, _ in found] == pytest.approx(times)
    np.testing.assert_array_equal(found[-1][2], sample(*of(make_spec, case)))


def test_the_adaptive_sampler_ends_at_data(make_spec):
    case = {"objective": LINEAR, "sampler": {"kind": "dopri5"}}
    times = [step.time for step in sampling_steps(*of(make_spec, case))]
    assert times == sorted(times)
    assert times[-1] == 1.0


@pytest.mark.parametrize("kind", ["euler", "heun", "dopri5"])
def test_latents_that_are_put_there_are_gone_on_from(make_spec, kind):
    """dx/dt = x/2 from whatever stands at the first step's end: the rest of the way multiplies by exp of half of it."""
    steady = {"kind": kind} if kind == "dopri5" else {"kind": kind, "steps": 400}
    spec = make_spec(LINEAR, steady)
    put, left, latents = np.full(SHAPE, 3.0, np.float32), 0.0, None
    for step in sampling_steps(spec, lambda x, time, labels: 0.5 * x, noise(0), Condition(), lambda: noise(1), NUMPY):
        if step.index == 0:
            left, step.latents = 1.0 - step.time, put
        latents = step.latents
    np.testing.assert_allclose(latents, 3 * np.exp(0.5 * left), rtol=2e-3)


def test_a_sampler_that_is_left_draws_no_more(make_spec):
    drawn = []
    spec, run, start, steered, _, xp = of(make_spec, NOISY)
    for step in sampling_steps(spec, run, start, steered, lambda: drawn.append(1) or noise(1), xp):
        if step.index == 1:
            break
    assert len(drawn) == 2
