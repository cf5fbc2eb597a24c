"""The integrators against torchdiffeq, and the exact flow of Gaussian data."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
import torchdiffeq

from sora_spec.builders.diffusion import ode
from sora_spec.builders.diffusion.arrays import Step
from sora_spec.builders.diffusion.samplers import NUMPY
from sora_spec.builders.diffusion.torch_arrays import TORCH
from sora_spec.errors import UserError


def swirl(x, t):
    """A nonlinear, time-dependent field that numpy and torch compute alike."""
    turned = x[:, [1, 2, 0]]
    return (turned - x) * (1 + 3 * t) - x * x * x * 0.2 + math.cos(9 * t)


def stiffening(x, t):
    return -(2 + 60 * t * t) * x + x[:, [2, 0, 1]]


def recorded(field, times):
    def call(x, t):
        times.append(float(t))
        return field(x, float(t))

    return call


def end_of(integrate, field, x, *settings, **more):
    """The latents that the last step reaches."""
    *_, last = integrate(field, Step(x, settings[0]), *settings, **more)
    return last.latents


@pytest.fixture
def start():
    return torch.randn(5, 3, 1, 2, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("field", [swirl, stiffening])
@pytest.mark.parametrize(("atol", "rtol"), [(1e-6, 1e-3), (1e-5, 1e-5), (1e-2, 1e-1)])
@pytest.mark.parametrize(
    ("dtype", "of_values", "of_times"),
    # In float32 the error estimate of a small first step is mostly rounding, which the next step's length inherits;
    # the result then moves by a small part of the tolerance.
    [(torch.float64, 1e-9, 1e-9), (torch.float32, 1e-5, 5e-3)],
    ids=["float64", "float32"],
)
def test_dopri5_takes_torchdiffeqs_steps(field, atol, rtol, dtype, of_values, of_times, start):
    start = start.to(dtype)
    of_values = max(of_values, 1e-3 * rtol) if dtype == torch.float32 else of_values
    points = torch.linspace(0, 1, 50)
    theirs, ours, plain = [], [], []
    f = recorded(field, theirs)
    reference = torchdiffeq.odeint(lambda t, x: f(x, t), start, points, method="dopri5", atol=atol, rtol=rtol)[-1]
    end = end_of(ode.integrate_dopri5, recorded(field, ours), start, 0.0, 1.0, atol, rtol, TORCH)
    in_numpy = end_of(ode.integrate_dopri5, recorded(field, plain), start.numpy(), 0.0, 1.0, atol, rtol, NUMPY)
    torch.testing.assert_close(end, reference, rtol=of_values, atol=of_values)
    np.testing.assert_allclose(in_numpy, reference, rtol=of_values, atol=of_values)
    assert in_numpy.dtype == start.numpy().dtype
    assert ours == pytest.approx(theirs, abs=of_times)
    assert plain == pytest.approx(theirs, abs=of_times)
    assert len(ours) % 6 == 2
    assert max(theirs) > 1


def test_dopri5_rejects_steps_as_torchdiffeq_does(start):
    def kinked(x, t):
        return 50 * x if 0.41 < t < 0.43 else 0.1 * x

    theirs, ours = [], []
    f = recorded(kinked, theirs)
    x = start.double()
    reference = torchdiffeq.odeint(
        lambda t, y: f(y, t), x, torch.tensor([0.0, 1.0]), method="dopri5", atol=1e-6, rtol=1e-3
    )
    end = end_of(ode.integrate_dopri5, recorded(kinked, ours), x, 0.0, 1.0, 1e-6, 1e-3, TORCH)
    assert any(later < earlier for earlier, later in pairwise(ours))
    assert ours == pytest.approx(theirs, abs=1e-6)
    torch.testing.assert_close(end, reference[-1], rtol=1e-6, atol=1e-6)


def test_dopri5_from_a_standstill(start):
    still = end_of(ode.integrate_dopri5, lambda x, t: 0 * x, start, 0.0, 1.0, 1e-6, 1e-3, TORCH)
    torch.testing.assert_close(still, start, rtol=1e-5, atol=1e-5)


def test_dopri5_never_passes_its_limit(start):
    times = []
    with_limit = end_of(ode.integrate_dopri5, recorded(swirl, times), start, 0.0, 0.9, 1e-6, 1e-3, TORCH, limit=0.9)
    assert max(times) == 0.9
    free = end_of(ode.integrate_dopri5, swirl, start, 0.0, 0.9, 1e-9, 1e-7, TORCH)
    torch.testing.assert_close(with_limit, free, rtol=5e-3, atol=5e-3)


def test_dopri5_converges_to_the_exponential():
    x = np.ones((1, 1, 1, 1, 1))
    end = end_of(ode.integrate_dopri5, lambda y, t: -y, x, 0.0, 2.0, 1e-12, 1e-12, NUMPY)
    assert end.item() == pytest.approx(math.exp(-2), rel=1e-10)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_field_that_is_not_finite_is_reported(bad, start):
    with pytest.raises(UserError, match="not finite"):
        end_of(ode.integrate_dopri5, lambda x, t: x * (bad if t > 0.5 else 1.0), start, 0.0, 1.0, 1e-6, 1e-3, TORCH)
    with pytest.raises(UserError, match="not finite"):
        end_of(ode.integrate_dopri5, lambda x, t: x * math.nan, start, 0.0, 1.0, 1e-6, 1e-3, TORCH)


@pytest.mark.parametrize(
    ("integrate", "method"), [(ode.integrate_euler, "euler"), (ode.integrate_heun, "heun2")], ids=["euler", "heun"]
)
def test_fixed_steps_are_torchdiffeqs(integrate, method, start):
    # SiT counts the points of linspace: its 50 are 49 steps.
    reference = torchdiffeq.odeint(lambda t, x: swirl(x, float(t)), start, torch.linspace(0, 1, 50), method=method)[-1]
    torch.testing.assert_close(end_of(integrate, swirl, start, 0.0, 1.0, 49), reference, rtol=2e-6, atol=2e-6)
    times = []
    end_of(integrate, recorded(swirl, times), start, 0.25, 0.75, 2)
    assert times == ([0.25, 0.5] if method == "euler" else [0.25, 0.5, 0.5, 0.75])
