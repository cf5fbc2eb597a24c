"""The phases of a training step as `sora-spec train` runs it: encode, forward and backward, optimiser, sample grid."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from sora_spec.graph.passes.shard import MASTER, part_numel
from sora_spec.graph.passes.state import adamw_temporary_bytes
from sora_spec.language.changes import changed
from sora_spec.language.shapes import derive_shapes
from sora_spec.language.tiles import streams
from sora_spec.plan.job import Job, with_clip
from sora_spec.plan.memory.meaning import Owner
from sora_spec.plan.memory.overhead import attention_workspace, conv_workspace, matrix_workspace
from sora_spec.plan.memory.resident import (
    Resident,
    dotted,
    gradient_bytes,
    held_terms,
    sharding_of,
    trained,
    training_terms,
)
from sora_spec.plan.memory.sharded import ShardedPeak, left_gathered, sharded_peak
from sora_spec.plan.memory.terms import Phase, Term, hold, some
from sora_spec.plan.memory.text_encoders import encoder_terms, encoding_terms
from sora_spec.plan.memory.workload import Peak, Workload
from sora_spec.recipe.training import SHOWN_RECONSTRUCTIONS, SHOWN_SAMPLES, vae_crop

if TYPE_CHECKING:
    from sora_spec.graph.component import Component
    from sora_spec.language.schema.spec import Spec


LATENTS = "at the end: latents"
"""The phase of a VAE's training in which its latents are measured."""


def train_phases(job: Job) -> list[Phase]:
    """Phases of a step, without what the allocator and the driver add."""
    return _vae_phases(job) if job.stage == "vae" else _denoiser_phases(job)


def step_work(job: Job) -> Workload:
    """Forward and backward of what is trained, on the clips of one group of ranks."""
    if job.stage == "vae":
        return _vae_job(job).work("vae_step", job.micro_batch)
    return job.work("denoiser_step", job.micro_batch)


def _vae_job(job: Job) -> Job:
    return replace(job, spec=crop_spec(job.spec))


def crop_spec(spec: Spec) -> Spec:
    """The spec with the VAE's training crop as its clip."""
    return with_clip(spec, **vae_crop(spec)._asdict())


def _denoiser_phases(job: Job) -> list[Phase]:
    work = step_work(job)
    kept = training_terms(job, work)
    text = encoder_terms(job)
    kept.device.extend([*vae_terms(job), *text, *matrix_workspace(job.device), *read_terms(job, job.spec)])
    phases = [_encode_phase(job, work, kept)] if job.has_vae else []
    phases += [_prompt_phase(job, work, kept)] if text else []
    phases += [_step_phase(job, work, kept), _optimizer_phase(job, work, kept)]
    if job.spec.train.sample_every is not None:
        phases += _sample_phases(job, work, kept)
    return phases


def _vae_phases(job: Job) -> list[Phase]:
    work = step_work(job)
    kept = training_terms(job, work)
    kept.device.extend([*matrix_workspace(job.device), *read_terms(job, crop_spec(job.spec))])
    phases = [_step_phase(job, work, kept), _optimizer_phase(job, work, kept)]
    return [*phases, *_reconstruction_phases(job, work, kept), _measuring_phase(job, work, kept)]


def _reconstruction_phases(job: Job, work: Workload, kept: Resident) -> list[Phase]:
    """The reconstruction grid: whole clips at once, as a training step takes its crops; not in pieces."""
    if job.spec.train.sample_every is None:
        return []
    whole = changed(
        job.spec, {"vae.tiling": {"kind": "none"}, **({"vae.streaming": False} if streams(job.spec) else {})}
    )
    clips, found = replace(job, spec=whole), list[Phase]()
    parts: tuple[tuple[str, Component], ...] = (("encode", "vae_encode"), ("decode", "vae_decode"))
    for name, component in parts:
        one = clips.work(component, SHOWN_RECONSTRUCTIONS)
        found.append(_vae_phase(f"sample grid: {name}", job, work, kept, one, "train.sample_every"))
    return found


def _measuring_phase(job: Job, work: Workload, kept: Resident) -> Phase:
    """After the last step: one whole clip after another is encoded, in pieces where the VAE works so."""
    return _vae_phase(LATENTS, job, work, kept, job.work("vae_encode", 1), "clip")


def _vae_phase(name: str, job: Job, work: Workload, kept: Resident, one: Workload, path: str) -> Phase:
    """The trained VAE without gradients. FSDP2 holds it whole, as it has no blocks."""
    element = 2 if job.precision == "bf16" else 4
    whole = element * sum(w.times * w.resident.numel for w in work.weights if w.resident.trained)
    terms = [
        hold("trained VAE", "inputs", one.peak.input_bytes, path),
        *activation_terms(one.peak, "trained VAE"),
        *([hold("ranks", "gathered weights", whole)] if job.sharded else []),
        *conv_workspace(job.device, one, "trained VAE"),
    ]
    gradients = (
        [hold("trained VAE", "gradients of the last step", gradient_bytes(job, work))] if name != LATENTS else []
    )
    device, host = _placed(job, gradients)
    return _phase(name, kept, [*device, *terms], host)


def _phase(name: str, kept: Resident, device: list[Term], host: list[Term] | None = None) -> Phase:
    """What stays, and what a phase adds to it."""
    return Phase(name, some([*kept.device, *device]), some([*kept.host, *(host or [])]))


def _placed(job: Job, terms: list[Term]) -> tuple[list[Term], list[Term]]:
    """Terms of one rank's part of gradients, on the device or on the host."""
    return ([], terms) if job.states_on_host else (terms, [])


def read_terms(job: Job, clip: Spec) -> list[Term]:
    """A pass's clips as background workers hand them over: 8-bit pixels in shared memory, held until the step ends.

    PyTorch's profiler counts them as the CPU's. A GPU's step has them in the memory of the host.
    """
    if job.device.kind != "cpu" or not job.spec.train.workers:
        return []
    return [hold(trained(job), "clips as read", job.micro_batch * prod(derive_shapes(clip).video))]


def vae_terms(job: Job) -> list[Term]:
    """The frozen VAE, whole and in fp32, on every rank."""
    if not job.has_vae:
        return []
    work = job.work("vae_encode", job.micro_batch, "fp32")  # the graph that encoding needs anyway
    return [hold("VAE", "frozen weights", work.parameter_bytes + work.buffer_bytes)]


def _prompt_phase(job: Job, work: Workload, kept: Resident) -> Phase:
    """Encoding a caption, with a pass's latents and the gradients of the passes before."""
    inputs = hold("denoiser", "inputs", step_work(job).peak.input_bytes)
    before = [hold("denoiser", "gradients of earlier passes", gradient_bytes(job, work))]
    device, host = _placed(job, before if job.accumulation > 1 else [])
    return _phase("text encode", kept, [*device, inputs, *encoding_terms(job)], host)


def _encode_phase(job: Job, work: Workload, kept: Resident) -> Phase:
    """Encoding a pass's clips, with the gradients of the passes before."""
    before = [hold("denoiser", "gradients of earlier passes", gradient_bytes(job, work))]
    device, host = _placed(job, before if job.accumulation > 1 else [])
    return _phase("encode", kept, [*device, *encode_terms(job)], host)


def encode_terms(job: Job) -> list[Term]:
    """Encoding one micro-batch without gradients, to samples of the posterior."""
    work = job.work("vae_encode", job.micro_batch, "fp32")
    return [
        hold("VAE", "video", work.peak.input_bytes),
        hold("VAE", "noise of the posterior", 4 * job.micro_batch * prod(derive_shapes(job.spec).latent)),
        *activation_terms(work.peak, "VAE"),
        *conv_workspace(job.device, work),
    ]


def activation_terms(peak: Peak | ShardedPeak, owner: Owner) -> list[Term]:
    """Activations by the YAML value that makes them."""
    return [hold(owner, "activations", nbytes, dotted(path)) for path, nbytes in peak.by_path]


def _step_phase(job: Job, work: Workload, kept: Resident) -> Phase:
    """Forward and backward at their highest moment."""
    device = _sharded_terms(job, work) if job.sharded else _whole_terms(job, work)
    if job.stage == "vae":
        device += conv_workspace(job.device, work, "trained VAE")
    else:
        samples = -(-job.micro_batch // job.spec.parallel.sequence)  # heads are shared by a sequence group
        kernels = (job.kernel("denoiser_step"), job.temporal_attention)
        device += attention_workspace(job.spec, samples, job.device, *kernels)
    host = [hold(trained(job), "gradients", gradient_bytes(job, work))] if job.states_on_host else []
    return _phase("forward and backward", kept, device, host)


def _whole_terms(job: Job, work: Workload) -> list[Term]:
    """On one process without FSDP2."""
    peak, owner = work.peak_with(1.0), trained(job)
    terms = [hold(owner, "inputs", peak.input_bytes), *activation_terms(peak, owner)]
    if job.accumulation == 1:
        return [*terms, hold(owner, "gradients", peak.gradient_bytes)]
    added = hold(owner, "gradients being added", peak.gradient_bytes)
    return [*terms, hold(owner, "gradients", gradient_bytes(job, work), "train.accumulation"), added]


def _sharded_terms(job: Job, work: Workload) -> list[Term]:
    """Under FSDP2: the model and what FSDP2 holds at the same moment."""
    peak, owner = sharded_peak(work.schedule, work.batch, sharding_of(job, work)), trained(job)
    return [
        hold(owner, "inputs", peak.input_bytes),
        *activation_terms(peak, owner),
        hold(owner, "gradients not yet reduced", peak.whole_gradient_bytes),
        *held_terms(peak.held, owner),
    ]


def _optimizer_phase(job: Job, work: Workload, kept: Resident) -> Phase:
    """AdamW on one rank's part. FSDP2 has freed all gathered weights when the backward pass ends."""
    owner, part, shard = trained(job), gradient_bytes(job, work), job.spec.parallel.shard
    kind = "foreach" if job.device.kind == "cuda" and not job.states_on_host else "forloop"
    unit = work.schedule.rounding
    sizes = [
        (-(-MASTER * part_numel(w.resident.shape, shard) // unit) * unit, w.times)
        for w in work.weights
        if w.resident.trained
    ]
    temporary = adamw_temporary_bytes(sizes, kind)
    updated = hold(owner, "AdamW temporaries", temporary)
    terms = [hold(owner, "gradients", part, updated.path), updated]
    return _phase("optimizer", kept, *_placed(job, terms))


def _sample_phases(job: Job, work: Workload, kept: Resident) -> list[Phase]:
    """The sample grid: the averaged weights take the place of the trained ones, which are set aside beside it."""
    part = gradient_bytes(job, work)
    aside = [hold("denoiser", "weights set aside", part if job.spec.train.ema > 0 else 0)]
    device, host = _placed(job, [hold("denoiser", "gradients of the last step", part)])
    (host if job.average_on_host else device).extend(aside)
    # With FSDP2 the few latents of the sampler are left out, and one call of the network stands for its step.
    calls = (
        job.work("denoiser", SHOWN_SAMPLES * (2 if job.guided else 1))
        if job.sharded
        else job.work("sampler_step", SHOWN_SAMPLES)
    )
    running, left = _forward_terms(job, calls)
    phases = [_phase("sample grid: denoise", kept, [*device, *running], host)]
    if job.has_vae:
        decoded = job.work("vae_decode", SHOWN_SAMPLES, "fp32")
        terms = [
            hold("VAE", "latents", decoded.peak.input_bytes, "train.sample_every"),
            *activation_terms(decoded.peak, "VAE"),
            *conv_workspace(job.device, decoded),
        ]
        phases.append(_phase("sample grid: decode", kept, [*device, *left, *terms], host))
    return phases


def _forward_terms(job: Job, network: Workload) -> tuple[list[Term], list[Term]]:
    """A forward pass without gradients, and what it leaves: FSDP2 keeps what it does not reshard."""
    if not job.sharded:
        peak = network.peak
        return [hold("denoiser", "inputs", peak.input_bytes), *activation_terms(peak, "denoiser")], []
    sharding = replace(sharding_of(job, network), accumulates=False)
    peak = sharded_peak(network.schedule, network.batch, sharding)
    running = [hold("denoiser", "inputs", peak.input_bytes), *activation_terms(peak, "denoiser")]
    left = held_terms(left_gathered(network.schedule, sharding), "denoiser")
    return [*running, *held_terms(peak.held, "denoiser")], left
