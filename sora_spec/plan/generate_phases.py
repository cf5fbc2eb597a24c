"""The phases of a generation as `sora-spec generate` runs it: text, denoising, decoding."""

from __future__ import annotations

from sora_spec.plan.job import FRAMES_PER_DECODE, Job, with_clip
from sora_spec.plan.overhead import conv_workspace, matrix_workspace
from sora_spec.plan.resident import buffer_term, weight_terms
from sora_spec.plan.terms import Phase, Term, exact, some
from sora_spec.plan.text_encoders import encoder_work
from sora_spec.plan.train_phases import activation_terms
from sora_spec.plan.workload import Workload


def generate_phases(job: Job) -> list[Phase]:
    """Phases of one batch of clips, without what the allocator and the driver add."""
    alone = job.placement == "sequential"
    denoiser, decoder = network_work(job), decode_work(job)
    network = _network_terms(denoiser, job)
    codec = [exact("codec weights", decoder.parameter_bytes + decoder.buffer_bytes, "vae")] if decoder else []
    text = _text_terms(job)
    always = matrix_workspace(job.device)
    phases = [Phase("text encode", some([*always, *text, *([] if alone else [*network, *codec])]))] if text else []
    others = [] if alone else [*text[:1]]
    peak = denoiser.peak
    terms = [exact("inputs", peak.input_bytes, "clip"), *activation_terms(peak, "activations")]
    phases.append(Phase("denoise", some([*always, *network, *([] if alone else codec), *others, *terms])))
    if decoder:
        terms = [
            exact("latents", decoder.peak.input_bytes, "clip"),
            *activation_terms(decoder.peak, "codec activations"),
            *conv_workspace(decoder.peak.activation_bytes),
        ]
        phases.append(Phase("decode", some([*always, *codec, *([] if alone else network), *others, *terms])))
    return phases


def network_work(job: Job) -> Workload:
    """One call of the network: guidance doubles the batch."""
    return job.work("denoiser", job.generated * (2 if job.guided else 1))


def decode_work(job: Job) -> Workload | None:
    """One call of the decoder: one clip at a time, and 16 frames of it where the codec sees each on its own."""
    if not job.has_codec:
        return None
    frames = job.spec.clip.frames
    per_frame = job.spec.vae.kind == "image_kl"
    part = with_clip(job.spec, frames=min(frames, FRAMES_PER_DECODE)) if per_frame else job.spec
    return Job(part, job.device, job.count, job.mode, job.stage).work("vae_decode", 1)


def decode_calls(job: Job) -> float:
    """Calls of the decoder for a batch of clips."""
    frames = job.spec.clip.frames if job.spec.vae.kind == "image_kl" else 1
    return job.generated * max(1.0, frames / FRAMES_PER_DECODE)


def _network_terms(work: Workload, job: Job) -> list[Term]:
    size = 2 if job.precision == "bf16" else 4
    return [*weight_terms(work, "denoiser", 1, size), *buffer_term(work, "denoiser", "backbone.position")]


def _text_terms(job: Job) -> list[Term]:
    """The encoder's weights, and what encoding all prompts of a batch takes beside them, the empty ones included."""
    work = encoder_work(job, job.generated * (2 if job.guided else 1))
    if work is None:
        return []
    return [
        exact("text encoder weights, bf16", work.parameter_bytes + work.buffer_bytes, "condition.encoder"),
        exact("prompts", work.peak.input_bytes, "condition.tokens"),
        *activation_terms(work.peak, "text encoder activations"),
    ]
