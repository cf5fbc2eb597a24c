"""DiT's and SiT's losses against distributions from torch, scipy-free closed forms and hand-written targets."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from sora_spec.builders.diffusion.losses import build_loss, discretized_log_likelihood
from sora_spec.errors import UserError

BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
ALPHA_BAR = torch.cumprod(1 - BETAS, 0)
SHAPE = (4, 4, 2, 3, 3)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def batch():
    """Latents, noise and a network output of 2·C channels whose variance values stay inside [−1, 1]."""
    g = generator()
    latents, noise = torch.randn(SHAPE, generator=g) * 0.5, torch.randn(SHAPE, generator=g)
    error, values = torch.randn(SHAPE, generator=g) * 0.3, torch.rand(SHAPE, generator=g) * 2 - 1
    return latents, noise, error, values


@pytest.fixture
def ddpm(make_spec):
    return lambda **objective: build_loss(make_spec({"kind": "ddpm", **objective}, {"kind": "ddpm"}))


@pytest.fixture
def sit(make_spec):
    return lambda **objective: build_loss(make_spec({"kind": "interpolant", **objective}, {"kind": "euler"}))


def at(table, time):
    return table[time.long()].view(-1, 1, 1, 1, 1)


def reference_bound(latents, noise, predicted_noise, values, time):
    """The bound of one chain step in bits per dimension, from distributions in float64."""
    x0, eps, hat, v = (a.double() for a in (latents, noise, predicted_noise, values))
    previous = torch.cat([torch.ones(1, dtype=torch.float64), ALPHA_BAR[:-1]])
    a, p, beta = at(ALPHA_BAR, time), at(previous, time), at(BETAS, time)
    x_t = a.sqrt() * x0 + (1 - a).sqrt() * eps
    hat_x0 = (x_t - (1 - a).sqrt() * hat) / a.sqrt()

    def posterior_mean(x_start):
        return p.sqrt() * beta / (1 - a) * x_start + (1 - beta).sqrt() * (1 - p) / (1 - a) * x_t

    table = BETAS * (1 - previous) / (1 - ALPHA_BAR)
    table[0] = table[1]
    small = at(table, time)
    variance = small ** ((1 - v) / 2) * beta ** ((1 + v) / 2)
    model = Normal(posterior_mean(hat_x0), variance.sqrt())
    kl = kl_divergence(Normal(posterior_mean(x0), small.sqrt()), model)
    # The outermost of the 256 bins reach to infinity.
    above = torch.where(x0 > 0.999, torch.ones_like(x0), model.cdf(x0 + 1 / 255))
    below = torch.where(x0 < -0.999, torch.zeros_like(x0), model.cdf(x0 - 1 / 255))
    nll = -torch.log(above - below)
    return torch.where(time.view(-1, 1, 1, 1, 1) == 0, nll, kl).flatten(1).mean(1) / math.log(2)


def test_dits_loss_is_mse_plus_the_bound_in_bits(ddpm, batch):
    latents, noise, error, values = batch
    time = torch.tensor([1.0, 37.0, 500.0, 999.0])
    terms = ddpm().terms(lambda x, t: torch.cat([noise + error, values], 1), latents, time, noise)
    torch.testing.assert_close(terms["mse"], error.square().flatten(1).mean(1))
    expected = reference_bound(latents, noise, noise + error, values, time)
    torch.testing.assert_close(terms["vb"].double(), expected, rtol=2e-3, atol=1e-6)
    torch.testing.assert_close(terms["loss"], terms["mse"] + terms["vb"])


def test_the_first_step_is_the_discretised_likelihood(ddpm, batch):
    latents, noise, error, values = batch
    time = torch.zeros(4)
    # The tanh approximation of the normal's distribution function, which DiT trains with, is within 3e-4 of erf.
    terms = ddpm().terms(lambda x, t: torch.cat([noise + 0.1 * error, values], 1), latents, time, noise)
    expected = reference_bound(latents, noise, noise + 0.1 * error, values, time)
    torch.testing.assert_close(terms["vb"].double(), expected, rtol=5e-3, atol=1e-3)


def test_discretised_likelihood_is_a_distribution_over_256_values():
    levels = torch.linspace(-1, 1, 256, dtype=torch.float64)
    for mean, deviation in ((0.0, 0.3), (0.97, 0.1), (-1.2, 0.5)):
        log_scale = torch.full_like(levels, math.log(deviation))
        ours = discretized_log_likelihood(levels, torch.full_like(levels, mean), log_scale)
        assert float(ours.exp().sum()) == pytest.approx(1, abs=1e-6)
        normal = Normal(torch.tensor(mean, dtype=torch.float64), deviation)
        exact = normal.cdf(levels + 1 / 255) - normal.cdf(levels - 1 / 255)
        exact[0], exact[-1] = normal.cdf(levels[0] + 1 / 255), 1 - normal.cdf(levels[-1] - 1 / 255)
        torch.testing.assert_close(ours.exp(), exact, rtol=0, atol=4e-4)


def test_discretised_likelihood_uses_the_published_approximation():
    x = torch.tensor([0.3], dtype=torch.float64)
    log_scale = torch.tensor([math.log(0.02)], dtype=torch.float64)

    def cdf(z):
        return 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))

    expected = math.log(cdf((0.02 + 1 / 255) / 0.02) - cdf((0.02 - 1 / 255) / 0.02))
    assert float(discretized_log_likelihood(x, x - 0.02, log_scale)) == pytest.approx(expected, rel=1e-9)


def test_the_mean_learns_from_the_error_alone_and_the_variance_from_the_bound(ddpm, batch):
    latents, noise, error, values = batch
    mean, values = (noise + error).requires_grad_(), values.clone().requires_grad_()
    time = torch.tensor([0.0, 3.0, 400.0, 999.0])
    loss = ddpm()(lambda x, t: torch.cat([mean, values], 1), latents, time, noise)
    loss.sum().backward()
    assert mean.grad is not None
    assert values.grad is not None
    torch.testing.assert_close(mean.grad, 2 * error / error[0].numel())
    assert bool((values.grad.flatten(1).norm(dim=1) > 0).all())


def test_the_bound_is_least_at_the_true_variance(ddpm, batch):
    # With a perfect mean, q's own variance is β̃, the lower end: value −1.
    latents, noise, _, _ = batch
    time = torch.tensor([1.0, 3.0, 10.0, 30.0])

    def bound(value):
        out = torch.cat([noise, torch.full_like(noise, value)], 1)
        return ddpm().terms(lambda x, t: out, latents, time, noise)["vb"]

    torch.testing.assert_close(bound(-1.0), torch.zeros(4), rtol=0, atol=1e-6)
    assert bool((bound(-0.5) > 1e-5).all())
    assert bool((bound(1.0) > bound(0.0)).all())


def test_the_network_sees_the_noised_latents_and_the_step(ddpm, batch):
    latents, noise, *_ = batch
    time = torch.tensor([0.0, 1.0, 500.0, 999.0])
    seen = []

    def network(x, t):
        seen.append((x, t))
        return torch.cat([x, x], 1)

    ddpm()(network, latents, time, noise)
    ((x, t),) = seen
    expected = at(ALPHA_BAR, time).sqrt() * latents.double() + (1 - at(ALPHA_BAR, time)).sqrt() * noise.double()
    torch.testing.assert_close(x.double(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(t, time)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_a_fixed_variance_leaves_the_mse(ddpm, batch, variance):
    latents, noise, error, values = batch
    time = torch.tensor([0.0, 1.0, 500.0, 999.0])
    for out in (noise + error, torch.cat([noise + error, values], 1)):
        terms = ddpm(variance=variance).terms(lambda x, t, out=out: out, latents, time, noise)
        torch.testing.assert_close(terms["loss"], error.square().flatten(1).mean(1))
        assert "vb" not in terms


def test_velocity_is_salimans_and_hos(ddpm, batch):
    """v = dx_φ/dφ for x_φ = cos φ·x₀ + sin φ·ε (arXiv 2202.00512), so v = √ᾱ·ε − √(1−ᾱ)·x₀; the swap is not it."""
    latents, noise, *_ = batch
    time = torch.tensor([5.0, 100.0, 500.0, 998.0])
    angle = torch.acos(at(ALPHA_BAR, time).sqrt())
    h = 1e-5
    x0, eps = latents.double(), noise.double()
    after = torch.cos(angle + h) * x0 + torch.sin(angle + h) * eps
    before = torch.cos(angle - h) * x0 + torch.sin(angle - h) * eps
    velocity = ((after - before) / (2 * h)).float()
    loss = ddpm(prediction="velocity", variance="fixed_small")(lambda x, t: velocity, latents, time, noise)
    torch.testing.assert_close(loss, torch.zeros(4), rtol=0, atol=1e-9)


def test_the_bound_under_velocity_prediction_is_that_of_the_same_x0(ddpm, batch):
    latents, noise, error, values = batch
    time = torch.tensor([2.0, 100.0, 500.0, 900.0])
    a = at(ALPHA_BAR, time).float()
    hat = noise + error
    x_t = a.sqrt() * latents + (1 - a).sqrt() * noise
    velocity = (hat - (1 - a).sqrt() * x_t) / a.sqrt()
    terms = ddpm(prediction="velocity").terms(lambda x, t: torch.cat([velocity, values], 1), latents, time, noise)
    expected = reference_bound(latents, noise, hat, values, time)
    torch.testing.assert_close(terms["vb"].double(), expected, rtol=5e-3, atol=1e-5)


def test_the_last_step_of_zero_terminal_snr_is_finite(ddpm, batch):
    latents, noise, _, values = batch
    time = torch.full((4,), 999.0)
    seen = []

    def network(x, t):
        seen.append(x)
        return torch.cat([-latents, values], 1)

    terms = ddpm(prediction="velocity", zero_terminal_snr=True).terms(network, latents, time, noise)
    torch.testing.assert_close(seen[0], noise, rtol=0, atol=0)
    torch.testing.assert_close(terms["mse"], torch.zeros(4))
    assert bool(torch.isfinite(terms["loss"]).all())


def test_a_learned_variance_needs_the_channels_for_it(ddpm, batch):
    latents, noise, *_ = batch
    with pytest.raises(UserError, match="needs 8 output channels, the network has 4"):
        ddpm()(lambda x, t: x, latents, torch.zeros(4), noise)


def test_ddpm_times_are_uniform_whole_steps(ddpm):
    time = ddpm(steps=10, beta_end=0.02).draw_time(20_000, generator())
    assert time.dtype == torch.float32
    counts = np.bincount(time.numpy().astype(int), minlength=10)
    assert len(counts) == 10
    assert abs(counts - 2000).max() < 5 * math.sqrt(2000)
    torch.testing.assert_close(time, ddpm(steps=10, beta_end=0.02).draw_time(20_000, generator()))


PATHS = ["linear", "gvp", "vp"]


@pytest.mark.parametrize(
    ("path", "prediction", "ends"),
    [
        ("linear", "velocity", (0, 1)),
        ("gvp", "noise", (1e-3, 0.999)),
        ("vp", "velocity", (0, 1 - 1e-5)),
        ("vp", "score", (0, 1 - 1e-5)),
    ],
)
def test_sit_times_fill_the_published_interval(sit, path, prediction, ends):
    time = sit(path=path, prediction=prediction).draw_time(200_000, generator())
    low, high = ends
    assert low <= float(time.min()) < low + 1e-4
    assert high - 1e-4 < float(time.max()) <= high
    assert float(time.mean()) == pytest.approx((low + high) / 2, abs=5 * 0.289 / math.sqrt(200_000))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("doubled", [False, True])
def test_sit_velocity_loss(sit, gaussian, batch, path, doubled):
    latents, noise, error, _ = batch
    time = torch.tensor([0.01, 0.3, 0.7, 0.99])
    coefficients = gaussian.alpha_sigma_dots(path, time.double().numpy())
    alpha, sigma, alpha_dot, sigma_dot = (torch.tensor(c).view(-1, 1, 1, 1, 1) for c in coefficients)
    target = alpha_dot * latents.double() + sigma_dot * noise.double()
    seen = []

    def network(x, t):
        seen.append((x, t))
        out = (target + error).float()
        return torch.cat([out, out + 100], 1) if doubled else out

    loss = sit(path=path)(network, latents, time, noise)
    torch.testing.assert_close(loss, error.square().flatten(1).mean(1), rtol=1e-4, atol=1e-5)
    ((x, t),) = seen
    torch.testing.assert_close(x.double(), alpha * latents.double() + sigma * noise.double(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(t, time)


@pytest.mark.parametrize("weighting", ["none", "velocity", "likelihood"])
@pytest.mark.parametrize("prediction", ["noise", "score"])
@pytest.mark.parametrize("path", PATHS)
def test_sit_weighted_losses(sit, gaussian, batch, path, prediction, weighting):
    latents, noise, error, _ = batch
    time = torch.tensor([0.05, 0.3, 0.7, 0.99])
    t = time.double().numpy()
    sigma = torch.tensor(gaussian.alpha_sigma(path, t)[1])
    g = torch.tensor(gaussian.sbdm(path, t))
    weight = {"none": torch.ones(4).double(), "velocity": (g / sigma) ** 2, "likelihood": g / sigma**2}[weighting]
    out = noise + error if prediction == "noise" else -(noise + error) / sigma.view(-1, 1, 1, 1, 1).float()
    terms = sit(path=path, prediction=prediction, weighting=weighting).terms(lambda x, s: out, latents, time, noise)
    mse = error.square().flatten(1).mean(1)
    torch.testing.assert_close(terms["mse"], mse, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(terms["loss"].double(), weight * mse.double(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("path", PATHS)
def test_the_velocity_weighting_makes_score_matching_velocity_matching(sit, gaussian, path, batch):
    """(g/σ)²·‖ε̂ − ε‖² is the squared error of the velocity that ε̂ stands for (arXiv 2401.08740, eq. 17)."""
    latents, noise, error, _ = batch
    time = torch.tensor([0.1, 0.4, 0.6, 0.9], dtype=torch.float32)
    alpha, sigma, alpha_dot, sigma_dot = (
        torch.tensor(c).float().view(-1, 1, 1, 1, 1) for c in gaussian.alpha_sigma_dots(path, time.double().numpy())
    )
    weighted = sit(path=path, prediction="noise", weighting="velocity")
    of_noise = weighted(lambda x, t: noise + error, latents, time, noise)

    def velocity_of(x, t):
        data = (x - sigma * (noise + error)) / alpha
        return alpha_dot * data + sigma_dot * (noise + error)

    torch.testing.assert_close(of_noise, sit(path=path)(velocity_of, latents, time, noise), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("objective", [{"kind": "ddpm"}, {"kind": "interpolant", "path": "vp"}])
def test_losses_are_computed_in_float32(make_spec, objective, batch):
    latents, noise, error, values = batch
    sampler = {"kind": "ddpm"} if objective["kind"] == "ddpm" else {"kind": "euler"}
    loss = build_loss(make_spec(objective, sampler))
    out = torch.cat([noise + error, values], 1).bfloat16()
    time = torch.full((4,), 0.0 if objective["kind"] == "ddpm" else 0.5)
    result = loss(lambda x, t: out, latents.bfloat16(), time, noise.bfloat16())
    assert result.dtype == torch.float32
    assert result.shape == (4,)
    rounded = loss(lambda x, t: out.float(), latents.bfloat16().float(), time, noise.bfloat16().float())
    torch.testing.assert_close(result, rounded, rtol=0, atol=0)
