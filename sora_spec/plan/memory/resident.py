"""What stays in memory through all phases of a job: weights, optimiser states, the moving average, the VAE."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import NamedTuple

from sora_spec.graph.passes.shard import MASTER, Held, Sharding, part_numel
from sora_spec.plan.job import Job
from sora_spec.plan.memory.schedule import Schedule
from sora_spec.plan.memory.terms import Term, exact
from sora_spec.plan.memory.workload import Workload

LABELS = {
    "backbone.mlp_ratio": "MLP",
    "backbone.heads": "attention",
    "backbone.conditioning": "modulation",
    "backbone.width": "embeddings and head",
    "backbone.position": "positions",
    "backbone.qk_norm": "QK norm",
    "patch": "patches",
    "condition": "condition",
    "condition.encoder": "encoder",
    "condition.tokens": "tokens",
    "objective": "loss",
    "sampler": "sampler",
    "vae": "VAE",
    "vae.multipliers": "VAE levels",
    "vae.channels": "VAE latents",
}


def label(path: str) -> str:
    """What the YAML value at a path makes."""
    return LABELS.get(path, path.rpartition(".")[2] or "tensors")


def dotted(path: tuple[str | int, ...]) -> str:
    """Path as a user writes it."""
    return ".".join(str(part) for part in path)


def shard_bytes(work: Workload, ranks: int, element: int = 4) -> dict[str, int]:
    """Bytes of one rank's part of the parameters, by YAML path: every tensor is cut along its first dimension."""
    return _shard_bytes(work.schedule, ranks, element)


@lru_cache(maxsize=512)
def _shard_bytes(schedule: Schedule, ranks: int, element: int) -> dict[str, int]:
    found = Counter[str]()
    for weight in schedule.weights:
        resident = weight.resident
        if resident.role == "parameter":
            nbytes = part_numel(resident.shape, ranks) * element
            unit = schedule.rounding
            found[dotted(weight.yaml)] += weight.times * (-(-nbytes // unit) * unit)
    return dict(found)


def weight_terms(work: Workload, what: str, ranks: int = 1, element: int = 4) -> list[Term]:
    """Weights by the YAML value that makes them."""
    share = f", 1/{ranks}" if ranks > 1 else ""
    parts = shard_bytes(work, ranks, element)
    return [exact(f"{what} weights: {label(path)}{share}", nbytes, path) for path, nbytes in parts.items()]


def buffer_term(work: Workload, what: str, path: str) -> list[Term]:
    """Constants that are stored with the weights."""
    return [exact(f"{what} buffers", work.buffer_bytes, path)] if work.buffer_bytes else []


def master_buffer_bytes(work: Workload) -> int:
    """Constants in fp32, which FSDP2 leaves as they are whatever computes; they are cast where they are used."""
    unit, sizes = work.schedule.rounding, work.schedule.sizes_at(work.batch)
    found = 0
    for weight, size in zip(work.weights, sizes, strict=False):
        if weight.resident.role == "buffer":
            found += weight.times * max(size, -(-MASTER * weight.resident.numel // unit) * unit)
    return found


def sharding_of(job: Job, work: Workload) -> Sharding:
    """How FSDP2 cuts and gathers what is trained. Ranks of a sequence group hold the same shards, as replicas do."""
    parallel = job.spec.parallel
    return Sharding(
        ranks=parallel.shard,
        replicas=parallel.replicate * parallel.sequence,
        element=2 if job.precision == "bf16" else 4,
        reshard=parallel.reshard,
        offload=job.states_on_host,
        accumulates=job.accumulation > 1,
        on_cpu=job.device.kind == "cpu",
        rounding=work.schedule.rounding,
    )


PERCEPTUAL = "perceptual"
"""Region of the perceptual loss's network in the graph of a VAE's training step."""


class Resident(NamedTuple):
    """What stays through all phases."""

    device: list[Term]
    host: list[Term]
    """In host memory, where that is another one."""


def training_terms(job: Job, work: Workload) -> Resident:
    """Weights, moments and average of what is trained, in fp32, one rank's share."""
    shard = job.spec.parallel.shard
    part = sum(shard_bytes(work, shard).values())
    what, path = ("VAE", "vae.training") if job.stage == "vae" else ("denoiser", "train")
    decay = job.vae_training.ema if job.stage == "vae" else job.spec.train.ema
    share = f", 1/{shard}" if shard > 1 else ""
    states = [*weight_terms(work, what, shard), exact(f"AdamW moments{share}", 2 * part, f"{path}.optimizer")]
    if job.device.kind == "cpu" or job.states_on_host:  # elsewhere they are in host memory too, and not worth a line
        count = sum(w.times for w in work.weights if w.resident.trained)
        states.append(exact("AdamW step counters", 4 * count, f"{path}.optimizer"))
    average = list[Term]()
    if decay > 0:
        kept = sum(MASTER * w.resident.numel * w.times for w in work.weights if w.resident.persistent)
        average.append(exact(f"moving average{share}", part + kept, f"{path}.ema"))
    buffers = master_buffer_bytes(work)
    place = "vae" if job.stage == "vae" else "backbone.position"
    perceptual = sum(MASTER * w.resident.numel for w in work.weights if w.part == PERCEPTUAL)
    constants = [
        exact(f"{what} buffers", buffers - perceptual, place),
        exact("LPIPS network, frozen", perceptual, "vae.training.perceptual"),
    ]
    found = Resident([term for term in constants if term.bytes.high > 0], [])
    found[job.states_on_host].extend(states)
    found[job.average_on_host].extend(average)
    return found


def gradient_bytes(job: Job, work: Workload) -> int:
    """One rank's gradients in fp32 when the backward pass has ended."""
    return sum(shard_bytes(work, job.spec.parallel.shard).values())


def held_terms(held: Held) -> list[Term]:
    """What FSDP2 holds beside the shards at one moment; checked against `FSDPMemTracker` and a real allocator."""
    return [
        exact("FSDP2: gathered weights", held.gathered, "parallel.shard"),
        exact("FSDP2: weights in flight", held.gathering, "parallel.shard"),
        exact("FSDP2: gradients being reduced", held.reducing, "parallel.shard"),
        exact("gradients", held.gradients, "train.optimizer"),
    ]
