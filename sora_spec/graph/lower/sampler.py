"""One step of each sampler, guidance included: mirrors `builders/diffusion`, file by file.

The step is one from the middle of a run: neither the first, which has nothing from before it, nor the last. A Python
name keeps its tensor until it is given another, so a step begins with what the names of the loop still hold from the
step before: `Held` are those names. Coefficients are numbers and take no memory. A sampler that is not named here is
taken for an explicit method of as many stages as its facts say.

Legend: `B` clips, `C` channels of the latents.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from sora_spec.graph.eager.dtypes import DType
from sora_spec.graph.eager.layout import Shape
from sora_spec.graph.eager.ops.pointwise import (
    add,
    add_scalar,
    binary,
    div_scalar,
    made_from_nothing,
    minus_from,
    mul,
    mul_scalar,
    sub,
    unary,
)
from sora_spec.graph.eager.ops.reduction import mean
from sora_spec.graph.eager.ops.views import cat, narrow
from sora_spec.graph.eager.tape import Tape
from sora_spec.graph.eager.tensor import Tensor
from sora_spec.language.facts import sampler_facts

if TYPE_CHECKING:
    from sora_spec.language.schema.objective import Ddpm, Interpolant
    from sora_spec.language.schema.spec import Spec

Held = dict[str, Tensor]
"""Names of the sampler's loop, and what they hold."""
Network = Callable[[Tensor, Tensor, Tensor | None], Tensor]

STAGES = 7
"""Slopes of a Dormand–Prince step."""
# Weights of each stage that are not zero, and of the error: how many terms are summed.
_STAGE_TERMS = ((0,), (0, 1), (0, 1, 2), (0, 1, 2, 3), (0, 1, 2, 3, 4), (0, 2, 3, 4, 5))
_ERROR_TERMS = (0, 2, 3, 4, 5, 6)


class Leaf(Protocol):
    """Makes a tensor that is there before the step."""

    def __call__(self, name: str, channels: int) -> None:
        """A tensor of that name, of the shape of the latents but for its channels."""
        ...


def declare_held(spec: Spec, leaf: Leaf, channels: int, out_channels: int) -> None:
    """What the loop's names hold when a step begins, besides `initial`, which the caller holds throughout."""
    sampler, objective = spec.sampler, spec.objective
    leaf("x", channels)
    direct = objective.prediction == "velocity" if objective.kind == "interpolant" else objective.prediction == "noise"
    match sampler.kind:
        case "ddpm":
            leaf("output", out_channels)
            leaf("clean", channels)
        case "ddim":
            leaf("output", out_channels)
            leaf("clean", channels)
            if not direct:
                leaf("noise", channels)
        case "euler":
            pass
        case "euler_maruyama":
            leaf("velocity", out_channels if objective.prediction == "velocity" else channels)
            leaf("score", out_channels if objective.prediction == "score" else channels)
        case "dopri5":
            leaf("previous x", channels)
            for number in range(STAGES):
                leaf(f"previous slope {number}", out_channels if direct else channels)
        case _:
            for number in range(sampler_facts(sampler).stages):
                leaf(f"slope {number}", out_channels if direct else channels)


class SamplerStep:
    """One step over a network."""

    def __init__(self, tape: Tape, spec: Spec, network: Network, condition: Tensor | None, null: Tensor | None) -> None:
        self.tape, self.spec, self.network = tape, spec, network
        self.condition, self.null = condition, null
        self.slope: tuple[Shape, Shape] | None = None
        """Shape and strides of dopri5's slopes, as views of what the network returned."""

    def __call__(self, held: Held) -> Tensor:
        """The latents after the step. `held` is changed as the loop's names are."""
        match self.spec.sampler.kind:
            case "ddpm":
                self.ddpm(held)
            case "ddim":
                self.ddim(held)
            case "euler":
                held["x"] = add(held["x"], mul_scalar(self.field(held["x"])))
            case "euler_maruyama":
                self.euler_maruyama(held)
            case "dopri5":
                self.dopri5(held)
            case _:
                self.explicit(held)
        return held["x"]

    # The network as a sampler sees it.

    def call(self, latents: Tensor) -> Tensor:
        """The network's output (B, Cout, ...), guided where asked; its first C channels are the prediction."""
        with self.tape.enter("guidance" if self.null is not None else "call", ("sampler",)):
            return self.both(latents) if self.null is not None else self.once(latents)

    def once(self, latents: Tensor) -> Tensor:
        return self.network(latents, _full(latents), self.condition)

    def both(self, latents: Tensor) -> Tensor:
        """Both halves in one pass, the conditional one first."""
        assert self.condition is not None
        assert self.null is not None
        batch, channels = latents.shape[:2]
        guided_channels = min(self.spec.sampler.guidance_channels or channels, channels)
        doubled = cat([latents, latents], 0)
        condition = cat([self.condition, self.null], 0)
        output = self.network(doubled, _full(doubled), condition)
        conditional, unconditional = narrow(output, 0, 0, batch), narrow(output, 0, batch, batch)
        start = narrow(unconditional, 1, 0, guided_channels)
        guided = add(start, mul_scalar(sub(narrow(conditional, 1, 0, guided_channels), start)))
        rest = narrow(conditional, 1, guided_channels, output.shape[1] - guided_channels)
        return cat([guided, rest], 1)

    # Discrete diffusions.

    def ddpm(self, held: Held) -> None:
        """Ancestral sampling."""
        channels = held["x"].shape[1]
        held["output"] = self.call(held["x"])
        prediction = narrow(held["output"], 1, 0, channels)
        held["clean"] = sub(mul_scalar(held["x"]), mul_scalar(prediction))
        held["x"] = add(mul_scalar(held["clean"]), mul_scalar(held["x"]))
        objective: Ddpm = self.spec.objective  # pyright: ignore[reportAssignmentType]
        if objective.variance != "learned_range":
            held["x"] = add(held["x"], mul_scalar(_draw(held["x"])))
            return
        values = narrow(held["output"], 1, channels, held["output"].shape[1] - channels)
        held["x"] = add(held["x"], mul(_deviation(values), _draw(held["x"])))

    def ddim(self, held: Held) -> None:
        """DDIM, with noise where eta is not 0."""
        objective: Ddpm = self.spec.objective  # pyright: ignore[reportAssignmentType]
        output = self.call(held["x"])
        prediction = narrow(output, 1, 0, held["x"].shape[1])
        if objective.prediction == "velocity":
            held["output"] = output
        held["clean"] = sub(mul_scalar(held["x"]), mul_scalar(prediction))
        if objective.prediction == "velocity":
            held["noise"] = add(mul_scalar(held["x"]), mul_scalar(prediction))
        else:  # the noise is the prediction itself, a view of the output, which lives until that name is given anew
            held["output"] = output
        noise = held["noise"] if objective.prediction == "velocity" else prediction
        held["x"] = add(mul_scalar(held["clean"]), mul_scalar(noise))
        if self.spec.sampler.kind == "ddim" and self.spec.sampler.eta > 0:
            held["x"] = add(held["x"], mul_scalar(_draw(held["x"])))

    # Interpolants.

    def field(self, x: Tensor) -> Tensor:
        """The velocity, whatever the network predicts."""
        prediction = narrow(self.call(x), 1, 0, x.shape[1])
        objective: Interpolant = self.spec.objective  # pyright: ignore[reportAssignmentType]
        match objective.prediction:
            case "velocity":
                return prediction
            case "score":
                return _velocity_from_score(prediction, x)
            case "noise":
                return _velocity_from_score(div_scalar(prediction), x)

    def explicit(self, held: Held) -> None:
        """An explicit method: each stage goes from x along the slope before it, and all slopes are summed (Heun)."""
        stages = sampler_facts(self.spec.sampler).stages
        held["slope 0"] = self.field(held["x"])
        for number in range(1, stages):
            held[f"slope {number}"] = self.field(add(held["x"], mul_scalar(held[f"slope {number - 1}"])))
        held["x"] = add(held["x"], mul_scalar(_summed([held[f"slope {number}"] for number in range(stages)])))

    def euler_maruyama(self, held: Held) -> None:
        """One noisy step of the reverse SDE."""
        velocity, score = self.velocity_and_score(held["x"])
        held["velocity"], held["score"] = velocity, score
        drift = mul_scalar(add(velocity, mul_scalar(score)))
        del velocity, score
        moved = add(held["x"], drift)
        del drift
        held["x"] = add(moved, mul_scalar(_draw(moved)))

    def velocity_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both from one evaluation."""
        prediction = narrow(self.call(x), 1, 0, x.shape[1])
        objective: Interpolant = self.spec.objective  # pyright: ignore[reportAssignmentType]
        if objective.prediction == "velocity":
            return prediction, div_scalar(sub(mul_scalar(prediction), x))
        score = prediction if objective.prediction == "score" else div_scalar(prediction)
        return _velocity_from_score(score, x), score

    def dopri5(self, held: Held) -> None:
        """One accepted trial step: six evaluations beside the slope that the step before ended with."""
        last = STAGES - 1
        x = held["x"]
        assert self.slope is not None
        slopes, end = [held[f"previous slope {last}"].alias(*self.slope)], x
        for terms in _STAGE_TERMS:
            end = add(x, _combined([slopes[place] for place in terms]))
            slopes.append(self.field(end))
        # The names of the step before are given anew: only what this step shares with it lives on.
        held["previous x"] = x
        for number in range(STAGES):
            held[f"previous slope {number}"] = slopes[number]
        held["x"] = end
        self.error(x, end, slopes)

    def error(self, x: Tensor, end: Tensor, slopes: list[Tensor]) -> None:
        """Estimated error over tolerance, root mean square."""
        tolerance = add_scalar(mul_scalar(binary("maximum", unary("abs", x), unary("abs", end))))
        ratio = binary("div", _combined([slopes[place] for place in _ERROR_TERMS]), tolerance)
        unary("sqrt", mean(unary("pow", ratio)))


def _full(like: Tensor) -> Tensor:
    """One time for each sample, (B,)."""
    return made_from_nothing("full", like, (like.shape[0],), DType.F32)


def _draw(like: Tensor) -> Tensor:
    """Fresh noise in the shape of the latents."""
    return made_from_nothing("randn", like, like.shape, DType.F32)


def _deviation(values: Tensor) -> Tensor:
    """Standard deviation between the smallest and the largest, as learned."""
    fraction = div_scalar(add_scalar(values))
    return unary("exp", mul_scalar(add(mul_scalar(fraction), mul_scalar(minus_from(fraction)))))


def _velocity_from_score(score: Tensor, x: Tensor) -> Tensor:
    """f·x + g·s."""
    return add(mul_scalar(x), mul_scalar(score))


def _combined(slopes: list[Tensor]) -> Tensor:
    """A weighted sum, whose terms are all made before the first is added."""
    return _summed([mul_scalar(slope) for slope in slopes])


def _summed(terms: list[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = add(total, term)
    return total
