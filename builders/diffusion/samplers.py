"""From noise to latents: one entry for every objective and sampler, over numpy and torch alike.

Nothing here imports torch, so that a bundle generates without it. Callers who pass a torch network wrap the call in
`torch.inference_mode()`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sora_spec.builders.diffusion.arrays import NUMPY, Array, Arrays, Draw, Network, Step
from sora_spec.builders.diffusion.condition import Condition
from sora_spec.builders.diffusion.ddpm_sampler import sample_ddim, sample_ddpm
from sora_spec.builders.diffusion.guidance import GuidedNetwork, build_guided
from sora_spec.builders.diffusion.ode import ODE, Field
from sora_spec.builders.diffusion.paths import Path, build_path, ode_interval
from sora_spec.builders.diffusion.sde import VelocityAndScore, integrate_euler_maruyama
from sora_spec.errors import UserError
from sora_spec.language.facts import samplers_of
from sora_spec.language.schema.objective import (
    DdimSampler,
    Ddpm,
    DdpmSampler,
    EulerMaruyamaSampler,
    Interpolant,
)
from sora_spec.language.schema.spec import Spec
from sora_spec.recipe.sampling import is_guided, network_calls

__all__ = [
    "NUMPY",
    "Array",
    "Arrays",
    "Condition",
    "Network",
    "Step",
    "count_steps",
    "evaluations",
    "sample",
    "sampling_steps",
]


def sample(
    spec: Spec,
    network: Network,
    initial: Array,
    condition: Condition,
    draw: Draw,
    xp: Arrays,
    progress: Callable[[int], object] | None = None,
) -> Array:
    """The latents (B, C, F, H, W) that the last of `sampling_steps` reaches."""
    *_, last = sampling_steps(spec, network, initial, condition, draw, xp, progress)
    return last.latents


def sampling_steps(
    spec: Spec,
    network: Network,
    initial: Array,
    condition: Condition,
    draw: Draw,
    xp: Arrays,
    progress: Callable[[int], object] | None = None,
) -> Iterator[Step]:
    """From noise to latents drawn from `network` as `spec.sampler` says, one step of the sampler at a time.

    Args:
        spec: objective, sampler and condition are read.
        network: `network(latents (b, C, F, H, W), time (b,) float32, *condition.inputs()) -> (b, Cout, F, H, W)`.
            Time is the original training step 0..steps−1 for DDPM, and 0 (noise) to 1 (data) for interpolants. Under
            guidance b is 2·B: the conditional half first, then the half without a condition.
        initial: standard normal noise (B, C, F, H, W).
        condition: what each sample is steered by; an empty one asks for unconditional samples.
        draw: fresh standard normal noise in the shape of `initial`, called once per noisy step.
        xp: `NUMPY`, or `TORCH` of `torch_arrays`.
        progress: called with 1 after every call of the network; `count_steps` is their number.

    Raises UserError: objective and sampler do not belong together, guidance without a null label, a coefficient that is
    infinite where sampling starts, or (dopri5) a network whose output is not finite.
    """
    model = build_guided(spec, network, initial, condition, xp, progress)
    if isinstance(spec.objective, Ddpm):
        return _discrete_steps(spec, spec.objective, model, initial, draw, xp)
    return _interpolant_steps(spec, spec.objective, model, initial, draw, xp)


def count_steps(spec: Spec) -> int | None:
    """Calls of the network, one after another, that sampling makes; None for the adaptive dopri5."""
    if isinstance(spec.sampler, EulerMaruyamaSampler) and not isinstance(spec.objective, Interpolant):
        raise _mismatch(spec)
    return network_calls(spec)


def evaluations(spec: Spec) -> int | None:
    """Forward passes of the network per clip: `count_steps`, twice that under guidance; None for dopri5."""
    steps = count_steps(spec)
    return None if steps is None else steps * (2 if is_guided(spec) else 1)


def _discrete_steps(
    spec: Spec, objective: Ddpm, model: GuidedNetwork, x: Array, draw: Draw, xp: Arrays
) -> Iterator[Step]:
    at = Step(x, objective.steps - 1)
    match spec.sampler:
        case DdpmSampler():
            return sample_ddpm(objective, spec.sampler, model, at, draw, xp)
        case DdimSampler():
            return sample_ddim(objective, spec.sampler, model, at, draw)
        case _:
            raise _mismatch(spec)


def _interpolant_steps(
    spec: Spec, objective: Interpolant, model: GuidedNetwork, x: Array, draw: Draw, xp: Arrays
) -> Iterator[Step]:
    path, sampler = build_path(objective), spec.sampler
    field = _velocity_field(objective, path, model)
    t0, t1 = ode_interval(objective)
    at = Step(x, t0)
    if isinstance(sampler, EulerMaruyamaSampler):
        both = _velocity_and_score(objective, path, model)
        return integrate_euler_maruyama(path, objective, sampler, both, at, draw)
    if sampler.kind not in ODE:
        raise _mismatch(spec)
    # The conversion from noise divides by VP's σ, which has no values beyond t = 1.
    limit = t1 if objective.path == "vp" and objective.prediction == "noise" else float("inf")
    return ODE[sampler.kind](sampler, field, at, (t0, t1), xp, limit)


def _velocity_field(objective: Interpolant, path: Path, model: GuidedNetwork) -> Field:
    """The probability-flow ODE's velocity, whatever the network predicts. A second half of channels is dropped."""

    def field(x: Array, t: float) -> Array:
        prediction, _ = model(x, t)
        match objective.prediction:
            case "velocity":
                return prediction
            case "score":
                return path.velocity_from_score(prediction, x, t)
            case "noise":
                return path.velocity_from_score(path.score_from_noise(prediction, t), x, t)

    return field


def _velocity_and_score(objective: Interpolant, path: Path, model: GuidedNetwork) -> VelocityAndScore:
    """Velocity and score from one evaluation of the network."""

    def both(x: Array, t: float) -> tuple[Array, Array]:
        prediction, _ = model(x, t)
        if objective.prediction == "velocity":
            return prediction, path.score_from_velocity(prediction, x, t)
        score = prediction if objective.prediction == "score" else path.score_from_noise(prediction, t)
        return path.velocity_from_score(score, x, t), score

    return both


def _mismatch(spec: Spec) -> UserError:
    return UserError(
        f"sampler.kind: {spec.sampler.kind} cannot sample an objective of kind {spec.objective.kind}",
        f"set `sampler.kind` to one of: {', '.join(samplers_of(spec.objective))}",
    )
