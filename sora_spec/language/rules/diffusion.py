"""Objective, sampler and guidance: which belong together, and where a coefficient becomes infinite."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sora_spec.language.facts import sampler_facts, samplers_of
from sora_spec.language.rules.problem import At, Problem
from sora_spec.recipe.noise_levels import beta_ends, counts_by_stride, fixed_stride

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec


def sampler_fits_objective(spec: Spec) -> Iterator[Problem]:
    """E313."""
    if sampler_facts(spec.sampler).objective != spec.objective.kind:
        steps = "discrete steps" if spec.objective.kind == "ddpm" else "a continuous path"
        yield Problem(
            "E313",
            f"the sampler `{spec.sampler.kind}` cannot draw from the objective `{spec.objective.kind}`",
            At("sampler.kind", "another family"),
            (At("objective.kind", f"trained on {steps}"),),
            f"Samplers of `{spec.objective.kind}`: {', '.join(f'`{name}`' for name in samplers_of(spec.objective))}.",
        )


def learned_variance_has_outputs(spec: Spec) -> Iterator[Problem]:
    """E314."""
    objective, backbone = spec.objective, spec.backbone
    if objective.kind != "ddpm" or backbone.kind != "transformer":
        return
    if objective.variance == "learned_range" and not backbone.learn_sigma:
        yield Problem(
            "E314",
            "the variance is learned, but the network has no outputs for it",
            At("backbone.learn_sigma", "`learn_sigma` is false"),
            (At("objective.variance", "`variance: learned_range` needs them"),),
            "Set `backbone.learn_sigma: true`, or `objective.variance: fixed_small`.",
        )


def zero_snr_needs_velocity(spec: Spec) -> Iterator[Problem]:
    """E315. At zero signal the noise is the input, and predicting it says nothing about the data."""
    objective = spec.objective
    if objective.kind == "ddpm" and objective.zero_terminal_snr and objective.prediction != "velocity":
        yield Problem(
            "E315",
            f"zero terminal SNR needs velocity prediction, but the network predicts {objective.prediction}",
            At("objective.zero_terminal_snr", "the last step is pure noise"),
            (At("objective.prediction", f"predicts {objective.prediction}"),),
            "Set `objective.prediction: velocity`.",
        )


def diffusion_is_finite(spec: Spec) -> Iterator[Problem]:
    """E316. The SBDM coefficient (α'/α)σ² − σσ' is (1−t)/t on the linear path; velocity sampling starts at t = 0."""
    objective, sampler = spec.objective, spec.sampler
    if objective.kind != "interpolant" or sampler.kind != "euler_maruyama":
        return
    if sampler.diffusion == "sbdm" and objective.prediction == "velocity" and objective.path in ("linear", "gvp"):
        yield Problem(
            "E316",
            f"`diffusion: sbdm` is infinite at t = 0, where sampling a velocity on the {objective.path} path starts",
            At("sampler.diffusion", "infinite at the start"),
            (At("objective.path", f"path {objective.path}"), At("objective.prediction", "predicts velocity")),
            "Use `diffusion: sigma`, SiT's default.",
        )


def last_step_is_finite(spec: Spec) -> Iterator[Problem]:
    """E328. At t = 1 the noise level is 0, and the score that follows from a velocity or a noise divides by it."""
    objective, sampler = spec.objective, spec.sampler
    if objective.kind != "interpolant" or sampler.kind != "euler_maruyama":
        return
    no_score = objective.prediction == "score" or (objective.prediction == "velocity" and sampler.last_step == "euler")
    if sampler.last_step_size == 0 and sampler.last_step != "none" and not no_score:
        yield Problem(
            "E328",
            f"a last step of length 0 evaluates the `{sampler.last_step}` rule at t = 1, where the score is infinite",
            At("sampler.last_step_size", "length 0"),
            (At("sampler.last_step", f"needs the score of a {objective.prediction}"),),
            "Use `last_step_size: 0.04`, SiT's default, or `last_step: none`.",
        )


def weighting_has_effect(spec: Spec) -> Iterator[Problem]:
    """E317."""
    objective = spec.objective
    if objective.kind == "interpolant" and objective.weighting != "none" and objective.prediction == "velocity":
        yield Problem(
            "E317",
            f"`weighting: {objective.weighting}` weights score and noise prediction, but the network predicts velocity",
            At("objective.weighting", "has no meaning here"),
            (At("objective.prediction", "predicts velocity"),),
            "Remove `weighting`, or set `prediction: score` or `prediction: noise`.",
        )


def sampler_steps_fit_training(spec: Spec) -> Iterator[Problem]:
    """E318."""
    objective, sampler = spec.objective, spec.sampler
    if objective.kind != "ddpm" or (sampler.kind != "ddpm" and sampler.kind != "ddim"):
        return
    if sampler.steps > objective.steps:
        yield Problem(
            "E318",
            f"the sampler takes {sampler.steps} of {objective.steps} training steps",
            At("sampler.steps", f"{sampler.steps} steps"),
            (At("objective.steps", f"{objective.steps} steps"),),
            f"Use up to {objective.steps} sampling steps.",
        )
    elif sampler.spacing == "stride" and fixed_stride(objective.steps, sampler.steps) is None:
        near = ", ".join(map(str, counts_by_stride(objective.steps, sampler.steps)[:3]))
        yield Problem(
            "E318",
            f"no fixed stride visits exactly {sampler.steps} of {objective.steps} training steps",
            At("sampler.steps", f"{sampler.steps} steps"),
            (At("sampler.spacing", "a fixed stride"), At("objective.steps", f"{objective.steps} steps")),
            f"Use {near} steps, or `spacing: even`.",
        )


def noise_levels_rise(spec: Spec) -> Iterator[Problem]:
    """E319."""
    objective = spec.objective
    if objective.kind == "ddpm" and objective.schedule == "linear":
        low, high = beta_ends(objective)
        names = ("beta_start", "beta_end")
        if high >= 1:  # only left out: what is given is below 1
            yield Problem(
                "E319",
                f"over {objective.steps} steps the last beta is 0.02 · 1000/{objective.steps} = {high:g}, beyond 1",
                At("objective.steps", f"{objective.steps} steps"),
                (),
                "Use more than 20 steps, or give `beta_end`, for example 0.5.",
            )
            return
    elif objective.kind == "interpolant" and objective.path == "vp":
        low, high, names = objective.sigma_min, objective.sigma_max, ("sigma_min", "sigma_max")
    else:
        return
    if low >= high:
        defaults = "1e-4 and 0.02" if objective.kind == "ddpm" else "0.1 and 20"
        yield Problem(
            "E319",
            f"`{names[0]}` is {low:g} and `{names[1]}` is {high:g}, but noise must grow from one to the other",
            At(f"objective.{names[0]}", f"{low:g}"),
            (At(f"objective.{names[1]}", f"{high:g}"),),
            f"Make `{names[0]}` the smaller one; the published values are {defaults}.",
        )


def guidance_was_trained(spec: Spec) -> Iterator[Problem]:
    """E320. Guidance compares with the null condition, which the network sees only where the condition was dropped."""
    guidance, condition = spec.sampler.guidance, spec.condition
    if guidance == 1:
        return
    if condition.kind == "none":
        message = f"a guidance of {guidance:g} needs a condition, and there is none"
        yield Problem(
            "E320",
            message,
            At("sampler.guidance", f"guidance {guidance:g}"),
            (At("condition.kind", "unconditional"),),
            "Set `sampler.guidance: 1.0`, or add a `condition`.",
        )
    elif condition.dropout == 0:
        message = f"a guidance of {guidance:g} needs a trained null condition, but the condition is never dropped"
        yield Problem(
            "E320",
            message,
            At("condition.dropout", "never dropped"),
            (At("sampler.guidance", f"guidance {guidance:g}"),),
            "Set `condition.dropout: 0.1`, or `sampler.guidance: 1.0`.",
        )


def guided_channels_exist(spec: Spec) -> Iterator[Problem]:
    """E321."""
    guided, channels = spec.sampler.guidance_channels, spec.vae.channels
    if guided is not None and guided > channels:
        yield Problem(
            "E321",
            f"{guided} channels are to be guided, but a latent has {channels}",
            At("sampler.guidance_channels", f"{guided} channels"),
            (At("vae.channels", f"{channels} channels"),),
            f"Use up to {channels}, or remove `guidance_channels` to guide all.",
        )


RULES = (
    sampler_fits_objective,
    learned_variance_has_outputs,
    zero_snr_needs_velocity,
    diffusion_is_finite,
    last_step_is_finite,
    weighting_has_effect,
    sampler_steps_fit_training,
    noise_levels_rise,
    guidance_was_trained,
    guided_channels_exist,
)
