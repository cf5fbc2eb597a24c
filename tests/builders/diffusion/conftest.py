"""What the tests of objectives and samplers share: small specs, and data whose every conditional law is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sora_spec.language.schema.spec import Spec

MEAN, DEVIATION = 0.4, 0.6


class GaussianData:
    """Data ~ N(m, s²), elementwise. With x = a·data + b·noise everything a network could predict is linear in x."""

    mean, deviation = MEAN, DEVIATION

    def variance(self, a: Any, b: Any) -> Any:
        return a**2 * self.deviation**2 + b**2

    def clean(self, x: Any, a: Any, b: Any) -> Any:
        """E[data | x]."""
        return self.mean + a * self.deviation**2 / self.variance(a, b) * (x - a * self.mean)

    def noise(self, x: Any, a: Any, b: Any) -> Any:
        """E[noise | x]."""
        return b / self.variance(a, b) * (x - a * self.mean)

    def score(self, x: Any, a: Any, b: Any) -> Any:
        return -(x - a * self.mean) / self.variance(a, b)


# The paths of SiT as published (code convention: t = 0 noise, 1 data); they take complex times, so that derivatives
# follow without writing them down: f'(t) = Im f(t + ih)/h is exact to rounding for h = 1e-30.
def alpha_sigma(path: str, t: Any) -> tuple[Any, Any]:
    if path == "linear":
        return t, 1 - t
    if path == "gvp":
        return np.sin(np.pi * t / 2), np.cos(np.pi * t / 2)
    log_alpha = -((1 - t) ** 2) / 4 * (20 - 0.1) - (1 - t) / 2 * 0.1
    return np.exp(log_alpha), np.sqrt(1 - np.exp(2 * log_alpha))


def alpha_sigma_dots(path: str, t: Any) -> tuple[Any, Any, Any, Any]:
    h = 1e-30
    alpha, sigma = alpha_sigma(path, np.asarray(t, np.float64) + 1j * h)
    return alpha.real, sigma.real, alpha.imag / h, sigma.imag / h


def sbdm(path: str, t: Any) -> Any:
    """g = α'/α·σ² − σσ'."""
    alpha, sigma, alpha_dot, sigma_dot = alpha_sigma_dots(path, t)
    return alpha_dot / alpha * sigma**2 - sigma * sigma_dot


class GaussianInterpolant(GaussianData):
    """What a perfect network on a SiT path returns."""

    alpha_sigma = staticmethod(alpha_sigma)
    alpha_sigma_dots = staticmethod(alpha_sigma_dots)
    sbdm = staticmethod(sbdm)

    def velocity(self, path: str, x: Any, t: Any) -> Any:
        alpha, sigma, alpha_dot, sigma_dot = alpha_sigma_dots(path, t)
        return alpha_dot * self.clean(x, alpha, sigma) + sigma_dot * self.noise(x, alpha, sigma)

    def predict(self, path: str, prediction: str, x: Any, t: Any) -> Any:
        alpha, sigma = alpha_sigma(path, np.asarray(t, np.float64))
        if prediction == "velocity":
            return self.velocity(path, x, t)
        return self.score(x, alpha, sigma) if prediction == "score" else self.noise(x, alpha, sigma)

    def network(self, path: str, prediction: str) -> Callable[..., Any]:
        def call(x: Any, time: Any, labels: Any) -> Any:
            # A real network takes any time; VP's σ has no values from 1 on, where adaptive steps look beyond the end.
            latest = 1 - 1e-9 if path == "vp" else np.inf
            t = np.minimum(time.astype(np.float64), latest).reshape(-1, 1, 1, 1, 1)
            return self.predict(path, prediction, x, t)

        return call

    def transported(self, path: str, x: Any, t0: float, t1: float) -> Any:
        """Where the probability-flow ODE takes x: standardised values do not change along it."""
        (a0, b0), (a1, b1) = alpha_sigma(path, t0), alpha_sigma(path, t1)
        stretch = np.sqrt(self.variance(a1, b1) / self.variance(a0, b0))
        return a1 * self.mean + stretch * (x - a0 * self.mean)


@pytest.fixture
def gaussian() -> GaussianInterpolant:
    return GaussianInterpolant()


@pytest.fixture
def make_spec() -> Callable[..., Spec]:
    def make(objective: dict[str, Any], sampler: dict[str, Any], condition: dict[str, Any] | None = None) -> Spec:
        return Spec.model_validate(
            {
                "version": 1,
                "name": "toy",
                "clip": {"frames": 2, "height": 4, "width": 4},
                "vae": {"kind": "identity"},
                "patch": {"time": 1, "space": 2},
                "backbone": {"kind": "transformer", "depth": 1, "width": 8, "heads": 2},
                "condition": condition or {"kind": "none"},
                "objective": objective,
                "sampler": sampler,
            }
        )

    return make
