"""Interpolant paths against the published α and σ, with derivatives taken by complex steps, not by formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sora_spec.builders.diffusion import paths
from sora_spec.language.schema.objective import EulerMaruyamaSampler, Interpolant

PATHS = ["linear", "gvp", "vp"]
TIMES = np.array([0.003, 0.1, 0.37, 0.5, 0.81, 0.97, 0.998])


def objective(path: str, prediction: str = "velocity") -> Interpolant:
    return Interpolant.model_validate({"kind": "interpolant", "path": path, "prediction": prediction})


@pytest.mark.parametrize("name", PATHS)
def test_coefficients(name, gaussian):
    path = paths.build_path(objective(name), np)
    alpha, sigma, alpha_dot, sigma_dot = gaussian.alpha_sigma_dots(name, TIMES)
    close = {"rtol": 1e-9, "atol": 1e-12}
    np.testing.assert_allclose(path.alpha(TIMES), alpha, **close)
    np.testing.assert_allclose(path.sigma(TIMES), sigma, **close)
    np.testing.assert_allclose(path.alpha_dot(TIMES) * np.ones(7), alpha_dot, **close)
    np.testing.assert_allclose(path.sigma_dot(TIMES) * np.ones(7), sigma_dot, **close)
    np.testing.assert_allclose(path.drift(TIMES), alpha_dot / alpha, **close)
    np.testing.assert_allclose(path.inverse_drift(TIMES), alpha / alpha_dot, **close)
    np.testing.assert_allclose(path.diffusion(TIMES), gaussian.sbdm(name, TIMES), **close)


def test_vp_rates_are_the_specs(gaussian):
    path = paths.build_path(Interpolant(kind="interpolant", path="vp", sigma_min=0.2, sigma_max=8.0))
    # log α(0) = −¼(σmax − σmin) − ½σmin
    assert math.log(path.alpha(0.0)) == pytest.approx(-0.25 * 7.8 - 0.1)
    assert path.diffusion(0.0) == pytest.approx(4.0)
    assert path.diffusion(1.0) == pytest.approx(0.1)


@pytest.mark.parametrize("name", PATHS)
def test_time_zero_is_noise_and_one_is_data(name):
    path = paths.build_path(objective(name))
    assert path.alpha(1.0) == pytest.approx(1)
    assert path.sigma(1.0) == pytest.approx(0, abs=1e-12)
    assert path.sigma(0.0) == pytest.approx(1, abs=1e-4)
    # VP's α(0) = e^{−5.025}: the one path that starts from a trace of data.
    assert path.alpha(0.0) == pytest.approx(math.exp(-5.025) if name == "vp" else 0, abs=1e-12)


def test_vp_sigma_is_precise_at_the_end_of_training():
    t = torch.tensor([1 - 1e-5], dtype=torch.float64)
    exact = math.sqrt(-math.expm1(2 * (-(1e-10) * 19.9 / 4 - 1e-5 * 0.05)))
    path = paths.build_path(objective("vp"), torch)
    assert float(path.sigma(t)) == pytest.approx(exact, rel=1e-6)
    # In float32 1 − t keeps three digits there; 1 − exp(2L) computed directly would keep one.
    assert float(path.sigma(t.float())) == pytest.approx(exact, rel=5e-3)


@pytest.mark.parametrize("name", PATHS)
def test_conversions_agree_with_the_law_of_gaussian_data(name, gaussian):
    path = paths.build_path(objective(name))
    x = np.random.default_rng(0).normal(size=100)
    for t in TIMES.tolist():
        velocity, score, noise = (gaussian.predict(name, kind, x, t) for kind in ("velocity", "score", "noise"))
        np.testing.assert_allclose(path.score_from_velocity(velocity, x, t), score, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(path.noise_from_velocity(velocity, x, t), noise, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(path.score_from_noise(noise, t), score, rtol=1e-9)
        np.testing.assert_allclose(path.velocity_from_score(score, x, t), velocity, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", PATHS)
def test_conversions_invert_each_other_for_any_network(name):
    path = paths.build_path(objective(name))
    generator = np.random.default_rng(1)
    x, velocity = generator.normal(size=(2, 50))
    for t in TIMES.tolist():
        score = path.score_from_velocity(velocity, x, t)
        np.testing.assert_allclose(path.velocity_from_score(score, x, t), velocity, rtol=1e-7, atol=1e-7)
        noise = path.noise_from_velocity(velocity, x, t)
        np.testing.assert_allclose(path.score_from_noise(noise, t), score, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", ["linear", "gvp"])
def test_score_from_velocity_is_regular_at_pure_noise(name):
    x, velocity = np.array([0.3, -2.0]), np.array([5.0, 7.0])
    np.testing.assert_allclose(paths.build_path(objective(name)).score_from_velocity(velocity, x, 0.0), -x)


@pytest.mark.parametrize("name", PATHS)
def test_velocity_target_is_the_time_derivative(name):
    path = paths.build_path(objective(name))
    data, noise, h = 0.8, -1.3, 1e-6
    for t in (0.2, 0.5, 0.9):
        slope = (path.interpolate(data, noise, t + h) - path.interpolate(data, noise, t - h)) / (2 * h)
        assert path.velocity(data, noise, t) == pytest.approx(slope, rel=1e-6)
    assert paths.Linear().velocity(data, noise, 0.3) == data - noise


@pytest.mark.parametrize("name", PATHS)
def test_float_numpy_and_torch_agree(name):
    kinds = [paths.build_path(objective(name), maths) for maths in (math, np, torch)]
    tensor = torch.tensor(TIMES)
    for function in ("alpha", "sigma", "drift", "diffusion", "inverse_drift"):
        of_floats = [getattr(kinds[0], function)(t) for t in TIMES.tolist()]
        np.testing.assert_allclose(getattr(kinds[1], function)(TIMES), of_floats, rtol=1e-12)
        np.testing.assert_allclose(getattr(kinds[2], function)(tensor).numpy(), of_floats, rtol=1e-12)


TRAINING = {
    ("linear", "velocity"): (0, 1),
    ("gvp", "velocity"): (0, 1),
    ("vp", "velocity"): (0, 1 - 1e-5),
    ("linear", "score"): (1e-3, 1 - 1e-3),
    ("gvp", "noise"): (1e-3, 1 - 1e-3),
    ("vp", "score"): (0, 1 - 1e-5),
    ("vp", "noise"): (0, 1 - 1e-5),
}


@pytest.mark.parametrize(("path", "prediction"), list(TRAINING))
def test_intervals_of_training_and_ode(path, prediction):
    expected = TRAINING[path, prediction]
    assert paths.training_interval(objective(path, prediction)) == pytest.approx(expected, abs=1e-12)
    # Sampling differs from training on VP alone: 1e-3 in place of 1e-5.
    sampling = (0, 1 - 1e-3) if path == "vp" else expected
    assert paths.ode_interval(objective(path, prediction)) == pytest.approx(sampling, abs=1e-12)


SDE = [
    ("linear", "velocity", "sigma", "mean", 0.04, (0, 0.96)),
    ("linear", "velocity", "sbdm", "mean", 0.04, (0, 0.96)),  # infinite at 0: refused when sampled
    ("linear", "velocity", "sigma", "none", 0.04, (0, 1)),
    ("linear", "score", "sigma", "mean", 0.04, (1e-3, 0.96)),
    ("gvp", "noise", "sbdm", "tweedie", 0.1, (1e-3, 0.9)),
    ("gvp", "score", "sigma", "none", 0.04, (1e-3, 0.999)),
    ("linear", "noise", "linear", "euler", 0.0, (1e-3, 0.999)),
    ("vp", "velocity", "sbdm", "mean", 0.04, (0, 0.96)),
    ("vp", "noise", "sbdm", "none", 0.04, (0, 0.999)),
]


@pytest.mark.parametrize(("path", "prediction", "diffusion", "last", "size", "expected"), SDE)
def test_intervals_of_the_sde(path, prediction, diffusion, last, size, expected):
    sampler = EulerMaruyamaSampler.model_validate(
        {"kind": "euler_maruyama", "diffusion": diffusion, "last_step": last, "last_step_size": size}
    )
    assert paths.sde_interval(objective(path, prediction), sampler) == pytest.approx(expected, abs=1e-12)
