"""ODE and SDE samplers of SiT on Gaussian data, where velocity, score, noise and the flow are known exactly."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from sora_spec.builders.diffusion.samplers import NUMPY, Condition, sample
from sora_spec.errors import UserError

PATHS = ["linear", "gvp", "vp"]
PREDICTIONS = ["velocity", "score", "noise"]
SHAPE = (4, 1, 1, 50, 50)


def draws(seed):
    generator = np.random.default_rng(seed)
    return lambda: generator.normal(size=SHAPE)


def build(make_spec, path, prediction, **sampler):
    return make_spec({"kind": "interpolant", "path": path, "prediction": prediction}, sampler)


def interval(path, prediction):
    if path == "vp":
        return 0.0, 1 - 1e-3
    return (0.0, 1.0) if prediction == "velocity" else (1e-3, 1 - 1e-3)


ODE = [
    ({"kind": "dopri5", "atol": 1e-8, "rtol": 1e-8}, 1e-4),
    ({"kind": "dopri5"}, 2e-2),
    ({"kind": "heun", "steps": 400}, 2e-3),
    ({"kind": "euler", "steps": 1000}, 2e-2),
]


@pytest.mark.parametrize(("sampler", "tolerance"), ODE, ids=["dopri5-tight", "dopri5", "heun", "euler"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("path", PATHS)
def test_the_ode_is_the_transport_map(make_spec, gaussian, path, prediction, sampler, tolerance):
    start = draws(0)()
    out = sample(
        build(make_spec, path, prediction, **sampler),
        gaussian.network(path, prediction),
        start,
        Condition(),
        draws(1),
        NUMPY,
    )
    exact = gaussian.transported(path, start, *interval(path, prediction))
    np.testing.assert_allclose(out, exact, atol=tolerance * 3)
    # And so the data: up to the interval's ends, which SiT keeps away from where the path is singular.
    assert out.mean() == pytest.approx(gaussian.mean, abs=0.03)
    assert out.std() == pytest.approx(gaussian.deviation, abs=0.03)


@pytest.mark.parametrize("kind", ["euler", "heun"])
def test_the_order_of_the_fixed_step_methods(make_spec, gaussian, kind):
    start = draws(0)()
    exact = gaussian.transported("gvp", start, 0.0, 1.0)

    def error(steps):
        spec = build(make_spec, "gvp", "velocity", kind=kind, steps=steps)
        return np.abs(
            sample(spec, gaussian.network("gvp", "velocity"), start, Condition(), draws(1), NUMPY) - exact
        ).max()

    order = math.log2(error(40) / error(80))
    assert order == pytest.approx(1 if kind == "euler" else 2, abs=0.15)


def test_time_runs_unscaled_from_noise_to_data(make_spec, gaussian):
    times = []
    inner = gaussian.network("linear", "velocity")

    def network(x, time, labels):
        times.append(time)
        return inner(x, time, labels)

    sample(
        build(make_spec, "linear", "velocity", kind="euler", steps=4), network, draws(0)(), Condition(), draws(1), NUMPY
    )
    assert [time.tolist() for time in times] == [[t] * 4 for t in (0.0, 0.25, 0.5, 0.75)]
    assert all(time.dtype == np.float32 for time in times)


def test_a_variance_half_is_dropped(make_spec, gaussian):
    inner = gaussian.network("linear", "velocity")
    spec = build(make_spec, "linear", "velocity", kind="heun", steps=5)
    doubled = sample(
        spec, lambda *a: np.concatenate([inner(*a), 1e6 + inner(*a)], 1), draws(0)(), Condition(), draws(1), NUMPY
    )
    np.testing.assert_array_equal(doubled, sample(spec, inner, draws(0)(), Condition(), draws(1), NUMPY))


def coefficient(gaussian, form, path, t, scale):
    """w(t) as published: `compute_diffusion` of SiT's path, its misspelt last form included by meaning."""
    return {
        "constant": lambda: scale,
        "sbdm": lambda: scale * gaussian.sbdm(path, t),
        "sigma": lambda: scale * gaussian.alpha_sigma(path, t)[1],
        "linear": lambda: scale * (1 - t),
        "decreasing": lambda: 0.25 * (scale * math.cos(math.pi * t) + 1) ** 2,
        "increasing_decreasing": lambda: scale * math.sin(math.pi * t) ** 2,
    }[form]()


def reference_sde(gaussian, path, x, z, t0, t1, steps, form, scale, last, size):
    """SiT's Euler–Maruyama with a perfect network, written straight down."""
    points = np.linspace(t0, t1, steps + 1)
    dt = points[1] - points[0]
    for t in points[:-1]:
        w = coefficient(gaussian, form, path, t, scale)
        score = gaussian.score(x, *gaussian.alpha_sigma(path, t))
        x = x + (gaussian.velocity(path, x, t) + w * score) * dt + np.sqrt(2 * w) * np.sqrt(dt) * z()
    alpha, sigma = gaussian.alpha_sigma(path, t1)
    score, velocity = gaussian.score(x, alpha, sigma), gaussian.velocity(path, x, t1)
    if last == "mean":
        return x + (velocity + coefficient(gaussian, form, path, t1, scale) * score) * size
    if last == "tweedie":
        return x / alpha + sigma**2 / alpha * score
    return x + velocity * size if last == "euler" else x


FORMS = ["constant", "sbdm", "sigma", "linear", "decreasing", "increasing_decreasing"]


# Velocity prediction on Linear and GVP starts at t = 0, where SBDM's coefficient is infinite: refused, see below.
REGULAR = [
    (path, prediction, form)
    for path, prediction, form in product(PATHS, PREDICTIONS, FORMS)
    if path == "vp" or prediction != "velocity" or form != "sbdm"
]


@pytest.mark.parametrize("last", ["mean", "tweedie", "euler", "none"])
@pytest.mark.parametrize(("path", "prediction", "form"), REGULAR)
def test_the_sde_is_sits(make_spec, gaussian, path, prediction, form, last):
    t0 = 0.0 if path == "vp" or prediction == "velocity" else 1e-3
    margin = 1e-3 if path == "vp" or prediction != "velocity" else 0.0
    t1 = 1 - margin if last == "none" else 0.92
    options = {"diffusion": form, "diffusion_scale": 0.7, "last_step": last, "last_step_size": 0.08}
    spec = build(make_spec, path, prediction, kind="euler_maruyama", steps=60, **options)
    small = (2, 1, 1, 3, 3)
    x = np.random.default_rng(0).normal(size=small)
    ours, theirs = np.random.default_rng(1), np.random.default_rng(1)
    out = sample(spec, gaussian.network(path, prediction), x, Condition(), lambda: ours.normal(size=small), NUMPY)
    expected = reference_sde(gaussian, path, x, lambda: theirs.normal(size=small), t0, t1, 60, form, 0.7, last, 0.08)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("path", PATHS)
def test_every_diffusion_has_the_datas_law(make_spec, gaussian, path, form):
    prediction = "noise" if form == "sbdm" else "velocity"
    spec = build(make_spec, path, prediction, kind="euler_maruyama", steps=499, diffusion=form, last_step_size=0.004)
    if form == "sbdm" and path != "vp":
        # w ≈ 1/t near 0 starts at 1,000: Euler–Maruyama needs dt·w below 1 there to have the law.
        spec = build(make_spec, path, "score", kind="euler_maruyama", steps=4000, diffusion=form, last_step_size=0.004)
        prediction = "score"
    out = sample(spec, gaussian.network(path, prediction), draws(0)(), Condition(), draws(1), NUMPY)
    assert out.mean() == pytest.approx(gaussian.mean, abs=0.03)
    assert out.std() == pytest.approx(gaussian.deviation, abs=0.03)


@pytest.mark.parametrize("path", ["linear", "gvp"])
def test_the_infinite_coefficient_is_refused(make_spec, gaussian, path):
    spec = build(make_spec, path, "velocity", kind="euler_maruyama", diffusion="sbdm")
    with pytest.raises(UserError, match="infinite at t = 0"):
        sample(spec, gaussian.network(path, "velocity"), draws(0)(), Condition(), draws(1), NUMPY)


@pytest.mark.parametrize("last", ["mean", "tweedie", "euler"])
def test_a_last_step_of_no_length_is_none(make_spec, gaussian, last):
    """At t = 1 the score of a velocity network is 0/0; SiT returns NaN there."""
    nothing = build(
        make_spec, "linear", "velocity", kind="euler_maruyama", steps=20, last_step=last, last_step_size=0.0
    )
    none = build(make_spec, "linear", "velocity", kind="euler_maruyama", steps=20, last_step="none")
    network = gaussian.network("linear", "velocity")
    np.testing.assert_array_equal(
        sample(nothing, network, draws(0)(), Condition(), draws(1), NUMPY),
        sample(none, network, draws(0)(), Condition(), draws(1), NUMPY),
    )
