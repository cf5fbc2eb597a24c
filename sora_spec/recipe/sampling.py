"""How a generation proceeds, as the spec alone says: the program that runs it and the plan of it read the same rules.

Times are those of interpolants: t = 0 is noise, t = 1 data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sora_spec.language.facts import is_trainable, sampler_facts, steps_of, vae_facts
from sora_spec.language.shapes import derive_shapes

if TYPE_CHECKING:
    from sora_spec.language.schema.objective import EulerMaruyamaSampler, Interpolant
    from sora_spec.language.schema.spec import Spec

Interval = tuple[float, float]
LONGEST = 512
"""Latent frames that every network takes at least: its tables of time reach so far, and its exported graph."""
TOKENS_PER_BATCH = 16_384
"""Tokens that a batch is filled up to when no batch size is asked for."""


def is_guided(spec: Spec) -> bool:
    """Whether every step runs the network with and without its condition."""
    return spec.sampler.guidance != 1.0 and spec.condition.kind != "none"


def network_calls(spec: Spec) -> int | None:
    """Calls of the network, one after another, for one batch; guidance doubles the batch and not the calls.

    None for an adaptive sampler, which decides while it samples.
    """
    sampler, objective = spec.sampler, spec.objective
    steps = steps_of(sampler)
    if steps is None:
        return None
    last = sampler.kind == "euler_maruyama" and objective.kind == "interpolant" and takes_last_step(objective, sampler)
    return sampler_facts(sampler).stages * steps + last


def takes_last_step(objective: Interpolant, sampler: EulerMaruyamaSampler) -> bool:
    """Whether the last step evaluates the network: not where it is `none`, and not where it has nothing left to do."""
    if sampler.last_step == "none":
        return False
    _, t1 = sde_interval(objective, sampler)
    return t1 < 1 if sampler.last_step == "tweedie" else sampler.last_step_size > 0


def margin(objective: Interpolant, *, training: bool) -> float:
    """How far SiT stays away from a singular end of the path.

    VP keeps 1e-5 in training and 1e-3 in sampling; score and noise prediction on Linear and GVP 1e-3 in both; velocity
    prediction on Linear and GVP is regular everywhere and keeps none.
    """
    if objective.path == "vp":
        return 1e-5 if training else 1e-3
    return 0.0 if objective.prediction == "velocity" else 1e-3


def sde_interval(objective: Interpolant, sampler: EulerMaruyamaSampler) -> Interval:
    """Times t0, t1 between which the SDE takes its noisy steps; the last step leads from t1 to the data.

    Only the SBDM coefficient and score and noise prediction are singular at t = 0, so only they start later.
    """
    kept = margin(objective, training=False)
    singular = objective.path != "vp" and (sampler.diffusion == "sbdm" or objective.prediction != "velocity")
    last = 0.0 if sampler.last_step == "none" else sampler.last_step_size
    return (kept if singular else 0.0), 1.0 - (last if last > 0 else kept)


def default_batch(spec: Spec) -> int:
    """Clips sampled at a time: as many as `TOKENS_PER_BATCH` hold, within the spec's `export.batch`.

    One for an adaptive sampler: its step follows the error of the whole batch, and a clip would hang on its neighbours.
    """
    if network_calls(spec) is None:
        return 1
    low, high = spec.export.batch
    return max(low, min(high, TOKENS_PER_BATCH // derive_shapes(spec).tokens))


def longest_clip(patch_time: int, token_frames: int) -> int:
    """Token frames of the longest clip that a network takes whose own clip has `token_frames`."""
    return max(LONGEST // patch_time, token_frames)


def decoder_steps(spec: Spec) -> int:
    """Calls of the decoder's network, one after another, for whatever it decodes at a time."""
    if not is_trainable(spec.vae):
        return 1
    decoder = spec.vae.decoder
    match decoder.kind:
        case "kl":
            return 1
        case "consistency":
            return decoder.steps


def frames_per_decode(spec: Spec, frames: int) -> int:
    """Latent frames of one pass of the decoder for a clip of `frames`: all of them, or, where the VAE sees each on
    its own, `export.decode_frames`, in multiples of the patch."""
    if not vae_facts(spec.vae).per_frame:
        return frames
    unit = spec.patch.time
    return min(frames, max(spec.export.decode_frames // unit * unit, unit))
