"""Coefficients of the interpolant paths: mirrors `builders/diffusion/paths.py`, on small tensors of times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from sora_spec.graph.eager.ops.pointwise import add, add_scalar, binary, minus_from, mul, mul_scalar, neg, sub, unary
from sora_spec.graph.eager.tensor import Tensor

if TYPE_CHECKING:
    from sora_spec.language.schema.objective import Interpolant


class Path:
    """α, σ and their derivatives, by the kind of path."""

    def __init__(self, objective: Interpolant) -> None:
        self.kind: Literal["linear", "gvp", "vp"] = objective.path

    def alpha(self, t: Tensor) -> Tensor:
        """α(t)."""
        match self.kind:
            case "linear":
                return t
            case "gvp":
                return unary("sin", mul_scalar(t))
            case "vp":
                return unary("exp", self.log_alpha(t))

    def sigma(self, t: Tensor) -> Tensor:
        """σ(t)."""
        match self.kind:
            case "linear":
                return minus_from(t)
            case "gvp":
                return unary("cos", mul_scalar(t))
            case "vp":
                return unary("sqrt", neg(unary("expm1", mul_scalar(self.log_alpha(t)))))

    def log_alpha(self, t: Tensor) -> Tensor:
        """L(t) of the variance-preserving path."""
        left = minus_from(t)
        return sub(mul_scalar(mul(mul_scalar(left), left)), mul_scalar(mul_scalar(left)))

    def drift(self, t: Tensor) -> Tensor:
        """f(t) of the curved paths."""
        if self.kind == "vp":
            return mul_scalar(add_scalar(mul_scalar(minus_from(t))))
        tangent = unary("tan", mul_scalar(t))  # alive while `number / tensor` runs its two kernels
        return mul_scalar(unary("reciprocal", tangent))

    def diffusion(self, t: Tensor) -> Tensor:
        """g(t)."""
        return binary("div", minus_from(t), t) if self.kind == "linear" else self.drift(t)

    def interpolate(self, data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """α·data + σ·noise."""
        return add(mul(self.alpha(t), data), mul(self.sigma(t), noise))

    def velocity(self, data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """α'·data + σ'·noise."""
        if self.kind == "linear":
            return add(mul_scalar(data), mul_scalar(noise))
        return add(mul(self.alpha_dot(t), data), mul(self.sigma_dot(t), noise))

    def alpha_dot(self, t: Tensor) -> Tensor:
        """α'(t) of the curved paths."""
        return mul_scalar(self.sigma(t)) if self.kind == "gvp" else mul(self.drift(t), self.alpha(t))

    def sigma_dot(self, t: Tensor) -> Tensor:
        """σ'(t) of the curved paths."""
        if self.kind == "gvp":
            return mul_scalar(self.alpha(t))
        return binary("div", mul(neg(self.drift(t)), unary("pow", self.alpha(t))), self.sigma(t))
