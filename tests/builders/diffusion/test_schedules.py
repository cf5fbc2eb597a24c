"""DDPM tables against Bayes' rule, closed forms and the published respacing."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from sora_spec.builders.diffusion import schedules
from sora_spec.errors import UserError
from sora_spec.language.schema.objective import Ddpm


def published_spacing(total: int, sections: list[int]) -> list[int]:
    """The rule of improved-diffusion for any number of sections, from its description."""
    kept, start = set(), 0
    for number, count in enumerate(sections):
        size = total // len(sections) + (number < total % len(sections))
        stride = (size - 1) / (count - 1) if count > 1 else 1
        place = 0.0
        for _ in range(count):
            kept.add(start + round(place))
            place += stride
        start += size
    return sorted(kept)


@pytest.mark.parametrize("count", [2, 3, 10, 27, 50, 100, 249, 250, 500, 999, 1000])
def test_spacing_is_improved_diffusions(count):
    ours = schedules.spaced_timesteps(1000, count)
    assert ours == published_spacing(1000, [count])
    assert len(set(ours)) == count
    assert (ours[0], ours[-1]) == (0, 999)


def test_the_250_steps_of_dit_in_exact_arithmetic():
    # Accumulated floats and exact fractions agree here: no multiple of 999/249 is a half-integer near a rounding edge.
    exact = [round(Fraction(999, 249) * i) for i in range(250)]
    assert schedules.spaced_timesteps(1000, 250) == exact
    assert exact[:5] == [0, 4, 8, 12, 16]
    assert exact[-3:] == [991, 995, 999]


def test_one_step_starts_at_the_noisiest():
    assert schedules.spaced_timesteps(1000, 1) == [999]


def test_more_steps_than_there_are_is_the_users_error():
    with pytest.raises(UserError, match="1001 is more than the 1000"):
        schedules.spaced_timesteps(1000, 1001)


def test_linear_schedule_of_dit():
    schedule = schedules.build_schedule(Ddpm(kind="ddpm"))
    assert schedule.steps == 1000
    assert schedule.betas.dtype == np.float64
    assert schedule.betas[[0, -1]].tolist() == [1e-4, 0.02]
    log_signal = sum(math.log1p(-(1e-4 + (0.02 - 1e-4) * t / 999)) for t in range(1000))
    assert schedule.alpha_bar[-1] == pytest.approx(math.exp(log_signal), rel=1e-12)
    # The signal-to-noise ratio that arXiv 2305.08891 quotes for this schedule: √ᾱ_T = 0.0063… for 1e-4..0.02.
    assert math.sqrt(schedule.alpha_bar[-1]) == pytest.approx(0.00635, abs=1e-5)


def test_cosine_schedule_follows_the_squared_cosine():
    schedule = schedules.build_schedule(Ddpm(kind="ddpm", schedule="cosine", steps=400))

    def f(t):
        return math.cos((t / 400 + 0.008) / 1.008 * math.pi / 2) ** 2

    expected = [f(t + 1) / f(0) for t in range(399)]
    np.testing.assert_allclose(schedule.alpha_bar[:-1], expected, rtol=1e-10)
    assert schedule.betas[-1] == 0.999


def test_posterior_is_bayes_rule():
    schedule = schedules.build_schedule(Ddpm(kind="ddpm"))
    x_start, x_t = 0.7, -0.3
    for t in (1, 2, 10, 500, 999):
        beta, previous = schedule.betas[t], schedule.alpha_bar_previous[t]
        # x_{t−1} | x₀ is N(√ᾱ_{t−1}·x₀, 1−ᾱ_{t−1}); x_t | x_{t−1} is N(√(1−β)·x_{t−1}, β).
        precision = 1 / (1 - previous) + (1 - beta) / beta
        mean = (math.sqrt(previous) * x_start / (1 - previous) + math.sqrt(1 - beta) * x_t / beta) / precision
        ours = schedule.posterior_clean[t] * x_start + schedule.posterior_noisy[t] * x_t
        assert ours == pytest.approx(mean, rel=1e-9)
        assert schedule.posterior_variance[t] == pytest.approx(1 / precision, rel=1e-9)
        assert schedule.posterior_log_variance[t] == pytest.approx(-math.log(precision), rel=1e-9)


def test_first_entries():
    schedule = schedules.build_schedule(Ddpm(kind="ddpm"))
    assert schedule.posterior_variance[0] == 0
    assert schedule.posterior_log_variance[0] == schedule.posterior_log_variance[1]
    assert schedule.posterior_clean[0] == pytest.approx(1, abs=1e-12)
    assert schedule.posterior_noisy[0] == 0
    large = schedule.log_variance("fixed_large")
    assert large[0] == schedule.posterior_log_variance[1]
    np.testing.assert_array_equal(large[1:], np.log(schedule.betas[1:]))
    np.testing.assert_array_equal(schedule.log_variance("fixed_small"), schedule.posterior_log_variance)


@pytest.mark.parametrize("count", [1, 2, 50, 250, 1000])
def test_respacing_keeps_the_noise_level_of_every_kept_step(count):
    full = schedules.build_schedule(Ddpm(kind="ddpm"))
    spaced = schedules.respaced(full, count)
    np.testing.assert_array_equal(spaced.timesteps, schedules.spaced_timesteps(1000, count))
    np.testing.assert_allclose(spaced.alpha_bar, full.alpha_bar[spaced.timesteps], rtol=1e-10)
    if count == 1000:
        np.testing.assert_allclose(spaced.betas, full.betas, rtol=1e-10)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_zero_terminal_snr(schedule):
    plain = schedules.build_schedule(Ddpm(kind="ddpm", schedule=schedule, prediction="velocity"))
    zero = schedules.build_schedule(Ddpm(kind="ddpm", schedule=schedule, prediction="velocity", zero_terminal_snr=True))
    assert zero.alpha_bar[-1] == 0.0
    assert zero.alpha_bar[0] == pytest.approx(plain.alpha_bar[0], rel=1e-14)
    # Algorithm 1 is an affine map of √ᾱ that keeps the first value and sends the last to zero.
    root, plain_root = np.sqrt(zero.alpha_bar), np.sqrt(plain.alpha_bar)
    share = (plain_root - plain_root[-1]) / (plain_root[0] - plain_root[-1])
    np.testing.assert_allclose(root, share * plain_root[0], rtol=1e-9, atol=1e-15)
    assert schedules.respaced(zero, 50).alpha_bar[-1] == 0.0
    assert all(np.isfinite(table).all() for table in (zero.posterior_log_variance, zero.posterior_clean))


def test_noise_prediction_cannot_start_from_pure_noise():
    with pytest.raises(UserError) as caught:
        schedules.build_schedule(Ddpm(kind="ddpm", prediction="noise", zero_terminal_snr=True))
    assert "prediction: velocity" in (caught.value.hint or "")


def test_betas_that_are_left_out_grow_as_steps_shrink():
    # `get_named_beta_schedule("linear", 250)` of ADM, DiT, Latte and Open-Sora: 4 times those of 1000 steps.
    quarter = schedules.build_schedule(Ddpm(kind="ddpm", steps=250))
    np.testing.assert_array_equal(quarter.betas, np.linspace(4e-4, 0.08, 250))
    assert quarter.alpha_bar[-1] == pytest.approx(schedules.build_schedule(Ddpm(kind="ddpm")).alpha_bar[-1], rel=0.4)
    thousands = schedules.build_schedule(Ddpm(kind="ddpm", steps=4000))
    np.testing.assert_array_equal(thousands.betas, np.linspace(2.5e-5, 0.005, 4000))


def test_betas_that_are_given_are_taken_as_they_are():
    given = schedules.build_schedule(Ddpm(kind="ddpm", steps=250, beta_start=1e-4, beta_end=0.02))
    np.testing.assert_array_equal(given.betas, np.linspace(1e-4, 0.02, 250))
    half = schedules.build_schedule(Ddpm(kind="ddpm", steps=250, beta_end=0.5))
    assert half.betas[[0, -1]].tolist() == [4e-4, 0.5]


@pytest.mark.parametrize("steps", [2, 10, 20])
def test_so_few_steps_that_a_beta_reaches_one_are_refused(steps):
    with pytest.raises(UserError, match="leaves no signal"):
        schedules.build_schedule(Ddpm(kind="ddpm", steps=steps))
    assert schedules.build_schedule(Ddpm(kind="ddpm", steps=21)).betas[-1] < 1


def published_stride(total: int, count: int) -> list[int] | None:
    """ADM's rule for "ddimN", from its description: the first integer stride that gives N steps."""
    for stride in range(1, total):
        if len(range(0, total, stride)) == count:
            return list(range(0, total, stride))
    return None


@pytest.mark.parametrize("total", [2, 7, 21, 100, 1000])
def test_a_fixed_stride_is_adms(total):
    for count in range(1, total + 2):
        published = published_stride(total, count)
        if published is None:
            with pytest.raises(UserError, match=f"exactly {count} of {total}"):
                schedules.strided_timesteps(total, count)
        else:
            assert schedules.strided_timesteps(total, count) == published


def test_ddim50_and_ddim250_visit_every_twentieth_and_fourth_step():
    full = schedules.build_schedule(Ddpm(kind="ddpm"))
    assert schedules.respaced(full, 50, "stride").timesteps.tolist() == list(range(0, 1000, 20))
    assert schedules.respaced(full, 250, "stride").timesteps[[1, -1]].tolist() == [4, 996]
    with pytest.raises(UserError, match="exactly 61 of 1000") as refused:
        schedules.strided_timesteps(1000, 61)
    assert "59, 63, 56" in (refused.value.hint or "")
