"""The training losses: mirrors `builders/diffusion/losses.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sora_spec.graph.eager.dtypes import DType
from sora_spec.graph.eager.layout import contiguous_strides
from sora_spec.graph.eager.ops.pointwise import (
    add,
    add_scalar,
    binary,
    cast_to,
    clamp,
    div_scalar,
    exp,
    log,
    minus_from,
    mul,
    mul_scalar,
    neg,
    power,
    sub,
    tanh,
    unary,
    where,
)
from sora_spec.graph.eager.ops.reduction import mean
from sora_spec.graph.eager.ops.views import narrow, reshape
from sora_spec.graph.eager.tensor import Tensor, run_one
from sora_spec.graph.lower.paths import Path
from sora_spec.graph.lower.weights import Weights

if TYPE_CHECKING:
    from sora_spec.language.schema.objective import Ddpm, Interpolant, Objective

Denoise = Callable[[Tensor, Tensor], Tensor]

TABLES = ("signal", "spread", "posterior_clean", "posterior_noisy", "posterior_log_variance", "log_betas")


def build_loss(weights: Weights, objective: Objective) -> DdpmLoss | InterpolantLoss:
    """The loss of an objective."""
    return DdpmLoss(weights, objective) if objective.kind == "ddpm" else InterpolantLoss(objective)


class DdpmLoss:
    """Squared error, plus the variational bound where the variance is learned."""

    def __init__(self, weights: Weights, objective: Ddpm) -> None:
        self.objective = objective
        self.learned = objective.variance == "learned_range"
        self.tables = {name: weights.buffer(f"schedule.{name}", (objective.steps,)) for name in TABLES}

    def __call__(self, network: Denoise, latents: Tensor, time: Tensor, noise: Tensor) -> Tensor:
        """Loss of every sample (B,)."""
        clean, noise = cast_to(latents, DType.F32), cast_to(noise, DType.F32)
        at = self.gather(time)
        noisy = add(mul(at["signal"], clean), mul(at["spread"], noise))
        prediction, values = split(network(noisy, time), clean)
        target = noise
        if self.objective.prediction == "velocity":
            target = sub(mul(at["signal"], noise), mul(at["spread"], clean))
        mse = mean_of_sample(power(sub(prediction, target)))
        if not self.learned:
            return mse
        bound = self.bound(at, clean, noisy, prediction.detach(), values, time)
        return add(mse, bound)

    def gather(self, time: Tensor) -> dict[str, Tensor]:
        """Every table at `time`."""
        step = unary("_to_copy", time, DType.INT64)
        batch = time.shape
        return {
            name: as_latents(run_one("index", (table, step), batch, contiguous_strides(batch), DType.F32))
            for name, table in self.tables.items()
        }

    def bound(
        self, at: dict[str, Tensor], clean: Tensor, noisy: Tensor, prediction: Tensor, values: Tensor, time: Tensor
    ) -> Tensor:
        """Divergence in bits, or at step 0 the decoder's likelihood."""
        if self.objective.prediction == "velocity":
            predicted = sub(mul(at["signal"], noisy), mul(at["spread"], prediction))
        else:
            predicted = binary("div", sub(noisy, mul(at["spread"], prediction)), at["signal"])
        average = add(mul(at["posterior_clean"], predicted), mul(at["posterior_noisy"], noisy))
        true_average = add(mul(at["posterior_clean"], clean), mul(at["posterior_noisy"], noisy))
        fraction = div_scalar(add_scalar(values))
        smallest, largest = at["posterior_log_variance"], at["log_betas"]
        log_variance = add(mul(fraction, largest), mul(minus_from(fraction), smallest))
        divergence = mean_of_sample(normal_kl(true_average, smallest, average, log_variance))
        decoder = neg(mean_of_sample(discretized_log_likelihood(clean, average, mul_scalar(log_variance))))
        return div_scalar(where(unary("eq", time, DType.BOOL), decoder, divergence))


class InterpolantLoss:
    """Squared error of velocity, noise or scaled score."""

    def __init__(self, objective: Interpolant) -> None:
        self.objective = objective
        self.path = Path(objective)

    def __call__(self, network: Denoise, latents: Tensor, time: Tensor, noise: Tensor) -> Tensor:
        """Loss of every sample (B,)."""
        data, noise = cast_to(latents, DType.F32), cast_to(noise, DType.F32)
        t = as_latents(time)
        prediction, _ = split(network(self.path.interpolate(data, noise, t), time), data)
        mse = mean_of_sample(power(self.error(prediction, data, noise, t)))
        weight = self.weight(time)
        return mul_scalar(mse) if weight is None else mul(weight, mse)

    def error(self, prediction: Tensor, data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What is squared."""
        match self.objective.prediction:
            case "velocity":
                return sub(prediction, self.path.velocity(data, noise, t))
            case "noise":
                return sub(prediction, noise)
            case "score":
                return add(mul(prediction, self.path.sigma(t)), noise)

    def weight(self, t: Tensor) -> Tensor | None:
        """Weight over time; None for 1."""
        if self.objective.prediction == "velocity":
            return None
        match self.objective.weighting:
            case "none":
                return None
            case "velocity":
                return unary("pow", binary("div", self.path.diffusion(t), self.path.sigma(t)))
            case "likelihood":
                return binary("div", self.path.diffusion(t), unary("pow", self.path.sigma(t)))


def normal_kl(average: Tensor, log_variance: Tensor, other: Tensor, other_log_variance: Tensor) -> Tensor:
    """Divergence between normals, elementwise."""
    difference = sub(log_variance, other_log_variance)
    return mul_scalar(
        add(
            sub(unary_sub(exp(difference)), difference),
            mul(power(sub(average, other)), exp(neg(other_log_variance))),
        )
    )


def unary_sub(x: Tensor) -> Tensor:
    """x − number: the gradient passes through."""
    return add_scalar(x, "sub")


def discretized_log_likelihood(x: Tensor, average: Tensor, log_scale: Tensor) -> Tensor:
    """Log probability of a bin."""
    centered, inverse_scale = sub(x, average), exp(neg(log_scale))
    upper = normal_cdf(mul(inverse_scale, add_scalar(centered)))
    lower = normal_cdf(mul(inverse_scale, unary_sub(centered)))
    inside = where(unary("gt", x, DType.BOOL), minus_from(lower), sub(upper, lower))
    return log(clamp(where(unary("lt", x, DType.BOOL), upper, inside), bounds=1))


def normal_cdf(x: Tensor) -> Tensor:
    """Distribution function by tanh."""
    return mul_scalar(add_scalar(tanh(mul_scalar(add(x, mul_scalar(power(x)))))))


def split(output: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
    """Prediction and the rest, in float32."""
    channels = latents.shape[1]
    prediction = cast_to(narrow(output, 1, 0, channels), DType.F32)
    return prediction, cast_to(narrow(output, 1, channels, output.shape[1] - channels), DType.F32)


def as_latents(x: Tensor) -> Tensor:
    """(B,) as (B, 1, 1, 1, 1)."""
    return reshape(x, (*x.shape, 1, 1, 1, 1))


def mean_of_sample(x: Tensor) -> Tensor:
    """(B, ...) → (B,)."""
    flat = reshape(x, (x.shape[0], x.numel // x.shape[0]))
    return mean(flat, (1,))
