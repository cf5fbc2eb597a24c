"""Ancestral sampling and DDIM on data whose reverse process is known exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sora_spec.builders.diffusion.samplers import NUMPY, Condition, sample
from sora_spec.errors import UserError

STEPS = 1000
BETAS = np.linspace(1e-4, 0.02, STEPS)
ALPHA_BAR = np.cumprod(1 - BETAS)
SHAPE = (2, 1, 2, 50, 50)


class Draws:
    """Standard normal draws in double precision; `count` of them were taken."""

    def __init__(self, seed: int, shape=SHAPE) -> None:
        self.generator, self.shape, self.count = np.random.default_rng(seed), shape, 0

    def __call__(self):
        self.count += 1
        return self.generator.normal(size=self.shape)


def spacing(count: int) -> list[int]:
    return [round(i * (STEPS - 1) / (count - 1)) for i in range(count)]


def ddpm(make_spec, steps, **objective):
    return make_spec({"kind": "ddpm", **objective}, {"kind": "ddpm", "steps": steps})


class PerfectNetwork:
    """Best noise or velocity prediction for Gaussian data, and the variance value of the exact reverse step."""

    def __init__(self, data, kept: list[int], prediction: str = "noise", alpha_bar=ALPHA_BAR) -> None:
        self.data, self.prediction, self.kept = data, prediction, kept
        self.alpha_bar = alpha_bar
        self.times: list[float] = []

    def __call__(self, x, time, labels):
        self.times.append(float(time[0]))
        t = int(time[0])
        signal, spread = math.sqrt(self.alpha_bar[t]), math.sqrt(1 - self.alpha_bar[t])
        noise, clean = self.data.noise(x, signal, spread), self.data.clean(x, signal, spread)
        out = noise if self.prediction == "noise" else signal * noise - spread * clean
        return np.concatenate([out, np.full_like(x, self.value(t))], axis=1)

    def value(self, t: int) -> float:
        place = self.kept.index(t)
        if place == 0:
            return 0.0
        now, before = self.alpha_bar[t], self.alpha_bar[self.kept[place - 1]]
        step = now / before
        # Var(x_prev | x_t) for x_prev ~ N(√ᾱ_prev·m, ᾱ_prev·s² + 1 − ᾱ_prev) and x_t = √step·x_prev + √(1−step)·ε.
        prior = before * self.data.deviation**2 + 1 - before
        exact = 1 / (1 / prior + step / (1 - step))
        smallest = (1 - step) * (1 - before) / (1 - now)
        fraction = (math.log(exact) - math.log(smallest)) / (math.log(1 - step) - math.log(smallest))
        return 2 * fraction - 1


@pytest.mark.parametrize("count", [10, 250, 1000])
@pytest.mark.parametrize("prediction", ["noise", "velocity"])
def test_the_learned_variance_gives_the_exact_law(make_spec, gaussian, count, prediction):
    network, draw = PerfectNetwork(gaussian, spacing(count), prediction), Draws(1)
    out = sample(ddpm(make_spec, count, prediction=prediction), network, Draws(0)(), Condition(), draw, NUMPY)
    # The chain is exact down to x at step 0, from which the data's expectation is taken without noise.
    first = ALPHA_BAR[0]
    expected = math.sqrt(first) * gaussian.deviation**2 / math.sqrt(first * gaussian.deviation**2 + 1 - first)
    assert_law(out, gaussian.mean, expected)
    # Time is the original step, 999 first and 0 (clean) last, and the last step adds no noise.
    assert network.times == [float(t) for t in reversed(spacing(count))]
    assert draw.count == count - 1


def law_of_chain(data, alpha_bar, kept: list[int], variance: str) -> tuple[float, float]:
    """Mean and deviation after every step of a perfect network with a fixed variance: each step is affine in x."""
    mean, var, s2 = 0.0, 1.0, data.deviation**2
    for place in reversed(range(len(kept))):
        now, before = alpha_bar[kept[place]], alpha_bar[kept[place - 1]] if place else 1.0
        beta = 1 - now / before
        of_clean, of_noisy = math.sqrt(before) * beta / (1 - now), math.sqrt(1 - beta) * (1 - before) / (1 - now)
        slope = math.sqrt(now) * s2 / (now * s2 + 1 - now)  # of E[x₀ | x]
        gain = of_clean * slope + of_noisy
        mean = gain * mean + of_clean * data.mean * (1 - slope * math.sqrt(now))
        added = beta * (1 - before) / (1 - now) if variance == "fixed_small" else beta
        var = gain**2 * var + (added if place else 0.0)
    return mean, math.sqrt(var)


def assert_law(out, mean, deviation):
    assert out.mean() == pytest.approx(mean, abs=4 * deviation / math.sqrt(out.size))
    assert out.std() == pytest.approx(deviation, abs=4 * deviation / math.sqrt(2 * out.size))


@pytest.mark.parametrize("count", [12, 50, 250])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_the_law_under_fixed_variances(make_spec, gaussian, variance, count):
    network = PerfectNetwork(gaussian, spacing(count))
    out = sample(ddpm(make_spec, count, variance=variance), network, Draws(0)(), Condition(), Draws(1), NUMPY)
    assert_law(out, *law_of_chain(gaussian, ALPHA_BAR, spacing(count), variance))


@pytest.mark.parametrize(
    ("variance", "value"), [("learned_range", -1.0), ("learned_range", 1.0), ("fixed_small", 0.0), ("fixed_large", 0.0)]
)
def test_ends_of_the_learned_range(make_spec, variance, value):
    """A two-step sampler whose network predicts no noise: one draw passes through the variance of the noisy step."""

    def network(x, time, labels):
        return np.concatenate([0 * x, 0 * x + value], axis=1)

    spec = ddpm(make_spec, 2, variance=variance)
    start = np.zeros((1, 2, 1, 1, 1))
    out = sample(spec, network, start, Condition(), lambda: np.ones_like(start), NUMPY)
    before, now = ALPHA_BAR[0], ALPHA_BAR[-1]
    beta = 1 - now / before
    posterior = beta * (1 - before) / (1 - now)
    deviation = math.sqrt(beta if value == 1 or variance == "fixed_large" else posterior)
    np.testing.assert_allclose(out, deviation / math.sqrt(before), rtol=1e-9)


def test_predictions_are_not_clipped(make_spec):
    # DiT samples with clip_denoised=False: latents are not confined to [−1, 1].
    far = 40.0

    def network(x, time, labels):
        a = ALPHA_BAR[int(time[0])]
        return np.concatenate([(x - math.sqrt(a) * far) / math.sqrt(1 - a), 0 * x - 1], axis=1)

    out = sample(ddpm(make_spec, 50), network, Draws(0)(), Condition(), Draws(1), NUMPY)
    np.testing.assert_allclose(out, far, rtol=1e-6)


def test_without_learn_sigma_a_variance_half_is_dropped_by_fixed_variances(make_spec, gaussian):
    spec = ddpm(make_spec, 20, variance="fixed_small")
    network = PerfectNetwork(gaussian, spacing(20))
    both = sample(spec, network, Draws(0)(), Condition(), Draws(1), NUMPY)
    mean_only = sample(spec, lambda *a: network(*a)[:, :1], Draws(0)(), Condition(), Draws(1), NUMPY)
    np.testing.assert_array_equal(both, mean_only)


def test_a_learned_variance_needs_the_channels_for_it(make_spec):
    with pytest.raises(UserError, match="learned_range needs a variance"):
        sample(ddpm(make_spec, 5), lambda x, time, labels: x, Draws(0)(), Condition(), Draws(1), NUMPY)


def ddim(make_spec, steps, eta=0.0, **objective):
    return make_spec({"kind": "ddpm", **objective}, {"kind": "ddim", "steps": steps, "eta": eta})


@pytest.mark.parametrize("count", [5, 50])
def test_ddim_with_eta_one_is_ancestral_sampling_with_the_small_variance(make_spec, gaussian, count):
    # arXiv 2010.02502 §4.1: σ = √((1−ᾱ')/(1−ᾱ))·√(1−ᾱ/ᾱ') is DDPM's β̃.
    network = PerfectNetwork(gaussian, spacing(count))
    stochastic = sample(ddim(make_spec, count, 1.0), network, Draws(0)(), Condition(), Draws(1), NUMPY)
    ancestral = sample(
        ddpm(make_spec, count, variance="fixed_small"), network, Draws(0)(), Condition(), Draws(1), NUMPY
    )
    np.testing.assert_allclose(stochastic, ancestral, rtol=1e-7, atol=1e-9)


def test_ddim_without_noise_follows_equation_12(make_spec, gaussian):
    kept, draw = spacing(20), Draws(1)
    start = Draws(0)()
    out = sample(ddim(make_spec, 20), PerfectNetwork(gaussian, kept), start, Condition(), draw, NUMPY)
    x = start
    for place in reversed(range(20)):
        now, before = ALPHA_BAR[kept[place]], ALPHA_BAR[kept[place - 1]] if place else 1.0
        noise = gaussian.noise(x, math.sqrt(now), math.sqrt(1 - now))
        x = math.sqrt(before) * (x - math.sqrt(1 - now) * noise) / math.sqrt(now) + math.sqrt(1 - before) * noise
    np.testing.assert_allclose(out, x, rtol=1e-8, atol=1e-9)
    assert draw.count == 0


def test_many_ddim_steps_are_the_probability_flow(make_spec, gaussian):
    start = Draws(0)()
    out = sample(ddim(make_spec, 1000), PerfectNetwork(gaussian, spacing(1000)), start, Condition(), Draws(1), NUMPY)
    np.testing.assert_allclose(out, gaussian.mean + gaussian.deviation * start, atol=0.02)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_with_velocity_prediction(make_spec, gaussian, eta):
    kept = spacing(25)
    of_noise = sample(
        ddim(make_spec, 25, eta), PerfectNetwork(gaussian, kept), Draws(0)(), Condition(), Draws(1), NUMPY
    )
    velocity = PerfectNetwork(gaussian, kept, "velocity")
    of_velocity = sample(
        ddim(make_spec, 25, eta, prediction="velocity"), velocity, Draws(0)(), Condition(), Draws(1), NUMPY
    )
    np.testing.assert_allclose(of_velocity, of_noise, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(
    ("variance", "sampler"),
    [
        ("fixed_small", {"kind": "ddpm", "steps": 50}),
        ("fixed_large", {"kind": "ddpm", "steps": 50}),
        ("fixed_small", {"kind": "ddim", "steps": 50, "eta": 1.0}),
    ],
)
def test_zero_terminal_snr_starts_from_pure_noise(make_spec, gaussian, variance, sampler):
    root = np.sqrt(ALPHA_BAR)
    zero = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    assert zero[-1] == 0
    network = PerfectNetwork(gaussian, spacing(50), "velocity", zero)
    objective = {"kind": "ddpm", "prediction": "velocity", "zero_terminal_snr": True, "variance": variance}
    out = sample(make_spec(objective, sampler), network, Draws(0)(), Condition(), Draws(1), NUMPY)
    assert network.times[0] == 999
    assert_law(out, *law_of_chain(gaussian, zero, spacing(50), variance))


def test_at_zero_signal_the_start_does_not_matter_beyond_its_noise(make_spec):
    """At ᾱ = 0, x₀ is −v and the posterior mean ignores x_T: two starts meet after one step if v is the same."""
    objective = {"kind": "ddpm", "prediction": "velocity", "zero_terminal_snr": True, "variance": "fixed_small"}
    spec = make_spec(objective, {"kind": "ddpm", "steps": 2})
    seen = []

    def network(x, time, labels):
        seen.append(x)
        return 0 * x - 0.3

    for start in (0.0, 5.0):
        sample(spec, network, np.full((1, 1, 1, 2, 2), start), Condition(), lambda: np.zeros((1, 1, 1, 2, 2)), NUMPY)
    np.testing.assert_allclose(seen[1], math.sqrt(ALPHA_BAR[0]) * 0.3, rtol=1e-12)
    np.testing.assert_allclose(seen[3], seen[1], rtol=1e-12)
