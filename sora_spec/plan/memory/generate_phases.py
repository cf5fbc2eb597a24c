"""The phases of a generation as `sora-spec generate` runs it: text, denoising, decoding."""

from __future__ import annotations

from sora_spec.language.facts import vae_facts
from sora_spec.language.tiles import cut_of
from sora_spec.plan.interval import ZERO, Interval
from sora_spec.plan.job import Job, with_clip
from sora_spec.plan.memory.overhead import conv_workspace, matrix_workspace
from sora_spec.plan.memory.resident import weight_terms
from sora_spec.plan.memory.terms import Phase, Term, hold, some
from sora_spec.plan.memory.text_encoders import encoder_terms, encoding_terms
from sora_spec.plan.memory.train_phases import activation_terms
from sora_spec.plan.memory.workload import Workload
from sora_spec.recipe.sampling import decoder_steps, frames_per_decode

# Bytes a second between pageable host memory and a device: from a shared PCIe 3 slot to PCIe 5, of which such copies
# reach a part.
_HOST_LINK = Interval(3e9, 8e9, 20e9)


def generate_phases(job: Job) -> list[Phase]:
    """Phases of one batch of clips, without what the allocator and the driver add."""
    alone = offloaded(job)
    denoiser, decoder = network_work(job), decode_work(job)
    network = _network_terms(denoiser, job)
    vae = [hold("VAE", "weights", decoder.parameter_bytes + decoder.buffer_bytes)] if decoder else []
    text = encoder_terms(job)
    always = matrix_workspace(job.device)
    others = [] if alone else [*network, *vae]
    phases = [Phase("text encode", some([*always, *text, *encoding_terms(job), *others]))] if text else []
    others = [] if alone else text
    peak = sampler_work(job).peak
    terms = [hold("denoiser", "inputs", peak.input_bytes), *activation_terms(peak, "denoiser")]
    phases.append(Phase("denoise", some([*always, *network, *([] if alone else vae), *others, *terms])))
    if decoder:
        terms = [
            hold("VAE", "latents", decoder.peak.input_bytes),
            *activation_terms(decoder.peak, "VAE"),
            *conv_workspace(job.device, decoder),
            *_assembly_terms(job),
        ]
        phases.append(Phase("decode", some([*always, *vae, *([] if alone else network), *others, *terms])))
    return phases


def sampler_work(job: Job) -> Workload:
    """One step of the sampler: calls of the network, and the latents, noise and slopes that are held meanwhile."""
    return job.work("sampler_step", job.generated)


def network_work(job: Job) -> Workload:
    """One call of the network: guidance doubles the batch."""
    return job.work("denoiser", job.generated * (2 if job.guided else 1))


def offloaded(job: Job) -> bool:
    """Whether parts that do not run leave the device. Where the CPU is the device, they have nowhere to go."""
    return job.offloads and job.device.kind == "cuda"


def decode_work(job: Job) -> Workload | None:
    """One call of the decoder: a clip or a tile of it, and some of its frames where the VAE sees each on its own."""
    if not job.has_vae:
        return None
    clip, tiles, sides = job.spec.clip, cut_of(job.spec), dict[str, int]()
    if vae_facts(job.spec.vae).per_frame:
        sides["frames"] = frames_per_decode(job.spec, clip.frames)
    if tiles is not None:
        space = job.spec.vae.compression.space
        sides |= {"height": tiles.tile_height * space, "width": tiles.tile_width * space}
    part = with_clip(job.spec, **sides) if sides else job.spec
    return Job(part, job.device, job.count, mode=job.mode, stage=job.stage).work("vae_decode", 1)


def decode_calls(job: Job) -> float:
    """Calls of the decoder for a batch of clips."""
    tiles, frames = cut_of(job.spec), job.spec.clip.frames
    pieces = (1 if tiles is None else tiles.tiles) * frames / frames_per_decode(job.spec, frames)
    return job.generated * decoder_steps(job.spec) * pieces


def _assembly_terms(job: Job) -> list[Term]:
    """The clip that tiles and pieces are put together to, and one row of tiles. In the memory of the host."""
    clip, tiles = job.spec.clip, cut_of(job.spec)
    frames = frames_per_decode(job.spec, clip.frames)
    if job.device.kind != "cpu" or (tiles is None and frames == clip.frames):
        return []
    row, found = 3 * 4 * clip.width, list[Term]()
    if frames < clip.frames:
        found.append(hold("machine", "clip put together", row * clip.height * clip.frames))
    if tiles is not None:
        found.append(hold("machine", "picture put together", row * clip.height * frames))
        if len(tiles.rows) > 1 and len(tiles.columns) > 1:
            side = tiles.tile_height * job.spec.vae.compression.space
            found.append(hold("machine", "row of tiles", row * side * frames))
    return found


def offload_seconds(job: Job) -> Interval:
    """Weights on their way to the device and back, once for each batch of clips."""
    if not offloaded(job):
        return ZERO
    parts = [network_work(job), decode_work(job)]
    nbytes = 2 * sum(part.parameter_bytes + part.buffer_bytes for part in parts if part is not None)
    return Interval(nbytes / _HOST_LINK.high, nbytes / _HOST_LINK.likely, nbytes / _HOST_LINK.low)


def _network_terms(work: Workload, job: Job) -> list[Term]:
    size = 2 if job.precision == "bf16" else 4
    return [*weight_terms(work, "denoiser", 1, size), hold("denoiser", "buffers", work.buffer_bytes)]
