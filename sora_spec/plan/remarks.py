"""What a plan takes for granted, and what it leaves out."""

from __future__ import annotations

from sora_spec.disk.run_folder import MEASURED_CLIPS
from sora_spec.graph.lower.families import is_lowered
from sora_spec.language.facts import vae_facts
from sora_spec.language.tiles import cut_of, streams
from sora_spec.plan.interval import Interval
from sora_spec.plan.job import Job
from sora_spec.plan.memory.text_encoders import unknown_encoder
from sora_spec.plan.time.sampling import ADAPTIVE
from sora_spec.recipe.sampling import decoder_steps, frames_per_decode, network_calls


def assumptions(job: Job) -> list[str]:
    """What was taken for granted."""
    return [*_machine(job), *_recorded(job), *(_training(job) if job.mode == "train" else _generation(job))]


def _recorded(job: Job) -> list[str]:
    """Where the figures of parts without a lowering come from."""
    found: list[str] = []
    for component in ("denoiser", "vae_decode"):
        if not is_lowered(job.spec, component):
            graph = job.work(component, 2, "fp32" if component == "vae_decode" else None).schedule.graph
            found.append(f"the {component.partition('_')[0]} has no lowering: {graph.recorded}")
    return found


def _machine(job: Job) -> list[str]:
    device = job.device
    if device.kind == "cpu":
        guess = "the table's CPU is a guess: `sora-spec probe` measures this one"
        return [f"eager PyTorch 2.13 on the CPU; {f'rates of {device.from_file}' if device.from_file else guess}"]
    kernel = str(job.kernel("denoiser"))
    if job.temporal_attention is not None:
        kernel += f", {job.temporal_attention} across frames"
    if job.rms_norm is not None:
        kernel += f"; RMS norm {'in one kernel' if job.rms_norm == 'fused' else 'written out'}"
    matrix, attention, memory = (_percent(share) for share in (device.efficiency, device.attention, device.memory))
    found = [
        f"eager PyTorch 2.13, nothing else on the device; attention kernel: {kernel}",
        f"of the device's rates, matrix products reach {matrix}, attention {attention}, memory {memory} "
        f"({device.sources['efficiency']})",
    ]
    condition = job.spec.condition
    if job.kernel("denoiser") == "flash" and condition.kind == "text" and condition.masked and not condition.pooled:
        found.append("prompts are masked, and attended to by the memory-efficient kernel: flash takes no mask")
    if job.precision == "fp32" and job.allows_tf32:
        found.append("fp32 matrix products and convolutions run in TF32")
    if job.precision == "fp32" and not job.allows_tf32:
        found.append("fp32 matrix products run outside the tensor cores, convolutions in TF32 (PyTorch's defaults)")
    return found


def _percent(share: Interval) -> str:
    low, likely, high = (100 * value for value in share)
    return f"{likely:.0f} % ({low:.0f}-{high:.0f})"


def _training(job: Job) -> list[str]:
    ways = "FSDP2" if job.sharded else "one process, no FSDP2"
    weights = "fp32 weights, gradients and moments"
    parallel = job.spec.parallel
    together = job.device.kind == "cuda" and not job.states_on_host
    found = [
        f"{job.clips_per_step} clips a step = {job.micro_batch} per pass × {job.groups} ranks × {job.accumulation} "
        "passes",
        f"{ways}: shard {parallel.shard}, sequence {parallel.sequence}, replicate {parallel.replicate}; "
        f"{weights}, {job.precision} arithmetic",
        "AdamW as " + ("foreach (CUDA's default)" if together else "a loop over parameters"),
    ]
    if job.stage == "vae":
        found.append(f"after the last step the latents of {MEASURED_CLIPS} clips are measured, which the time includes")
    if job.average_on_host:
        found.append("the host has memory enough for what every rank keeps there")
    if parallel.sequence > 1:
        found.append("sequence parallelism as in DeepSpeed-Ulysses: each rank has a share of the tokens or heads")
    if job.stage == "denoiser" and job.has_vae:
        found.append("the frozen VAE encodes every batch in fp32, on every rank")
        found += _vae_pieces(job)
    return found


def _generation(job: Job) -> list[str]:
    clips = "one clip" if job.generated == 1 else f"{job.generated} clips"
    doubled = ", doubled by guidance" if job.guided else ""
    found = [
        f"{clips} at a time{doubled}, weights and arithmetic in {job.spec.export.precision}",
        _placed(job),
        "latents, noise and slopes of the sampler lie on the device",
        *_vae_pieces(job, bundles=True),
    ]
    if job.spec.export.precision != "fp32":
        asked = job.spec.export.precision
        found.append(
            f"`sora-spec generate RUN` computes in fp32 unless asked: --precision {asked}; a bundle in its own"
        )
    if job.count > 1:
        found.append(f"each of {job.count} devices generates on its own: as many clips each, in the time of one device")
    elif job.spec.hardware.count > 1:
        found.append(
            f"a generation runs on one device; `--count {job.spec.hardware.count}` plans that many side by side"
        )
    if network_calls(job.spec) is None:
        found.append(f"{job.spec.sampler.kind} calls the network {ADAPTIVE.low:g} to {ADAPTIVE.high:g} times")
    if decoder_steps(job.spec) > 1:
        found.append(f"the decoder samples: {decoder_steps(job.spec)} calls for each piece of a clip")
    return found


def _placed(job: Job) -> str:
    if not job.offloads:
        return "all parts stay on the device, as `sora-spec generate` keeps them"
    if job.device.kind == "cuda":
        return "one part on the device at a time, as with `sora-spec generate --offload`; others wait in host memory"
    return "offloading a run saves nothing where the CPU is the device; of a bundle only one graph is loaded at a time"


def _vae_pieces(job: Job, bundles: bool = False) -> list[str]:
    """How the VAE cuts clips, and what that costs."""
    tiles, found = cut_of(job.spec), list[str]()
    if tiles is not None:
        more = tiles.tiles * tiles.tile_height * tiles.tile_width / (tiles.height * tiles.width) - 1
        found.append(f"the VAE works in {tiles.tiles} tiles, one at a time: {100 * more:.0f} % more positions")
    asked, clip = job.spec.export.decode_frames, job.spec.clip.frames
    run = frames_per_decode(job.spec, clip)
    if bundles and vae_facts(job.spec.vae).per_frame and run != min(asked, clip):
        found.append(
            f"the VAE decodes {run} frames at a time: {asked} in multiples of the patch, {job.spec.patch.time}"
        )
    if streams(job.spec):
        whole = "; a bundle's decoder is not streamed and needs more" if bundles else ""
        found.append(f"the VAE works on one latent frame at a time{whole}")
    return found


def _uncounted_host(job: Job) -> str:
    """What of the host's memory is not in the plan: all of it, or what is not the states that lie there."""
    if job.device.kind == "cpu":
        return "memory of the host beside this process: caches of files, and the workers' own"
    if job.states_on_host:
        return "memory of the host for anything but weights, gradients, moments and average"
    if job.average_on_host and _averages(job):
        return "memory of the host for anything but the average"
    return "memory of the host"


def _averages(job: Job) -> bool:
    return (job.vae_training.ema if job.stage == "vae" else job.spec.train.ema) > 0


def not_counted(job: Job) -> list[str]:
    """What is left out."""
    found = ["other programs on the device, and a screen on it", "torch.compile, CUDA graphs and TensorRT"]
    if job.mode == "train":
        found += ["loading of data, checkpoints and sample grids in the time", _uncounted_host(job)]
        if job.spec.condition.kind == "text" and job.stage == "denoiser":
            found.append("features of earlier captions, of which 64 MiB stay on the device")
    else:
        found += ["reading weights from disk, writing videos", "egress, storage and idle time in the cost"]
    unknown = unknown_encoder(job.spec)
    if unknown is not None:
        found.append(f"the size of the text encoder: {unknown}")
    elif job.spec.condition.kind == "text" and (job.mode == "generate" or job.stage == "denoiser"):
        found.append("padding masks of prompts")
    return found
