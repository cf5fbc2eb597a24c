"""What stays in memory through all phases of a job: weights, optimiser states, the moving average, the VAE."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import NamedTuple

from sora_spec.graph.passes.shard import MASTER, Held, Sharding, part_numel
from sora_spec.plan.job import Job
from sora_spec.plan.memory.meaning import Owner
from sora_spec.plan.memory.schedule import Schedule
from sora_spec.plan.memory.terms import Term, hold
from sora_spec.plan.memory.workload import Workload


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


def weight_terms(work: Workload, owner: Owner, ranks: int = 1, element: int = 4) -> list[Term]:
    """Weights by the YAML value that makes them."""
    parts = shard_bytes(work, ranks, element)
    return [hold(owner, "weights", nbytes, path, ranks) for path, nbytes in parts.items()]


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
    owner, shard = trained(job), job.spec.parallel.shard
    part = sum(shard_bytes(work, shard).values())
    decay = job.vae_training.ema if job.stage == "vae" else job.spec.train.ema
    states = [*weight_terms(work, owner, shard), hold(owner, "AdamW moments", 2 * part, ranks=shard)]
    if job.device.kind == "cpu" or job.states_on_host:  # elsewhere they are in host memory too, and not worth a line
        count = sum(w.times for w in work.weights if w.resident.trained)
        states.append(hold(owner, "AdamW step counters", 4 * count))
    average = list[Term]()
    if decay > 0:
        kept = sum(MASTER * w.resident.numel * w.times for w in work.weights if w.resident.persistent)
        average.append(hold(owner, "moving average", part + kept, ranks=shard))
    buffers = master_buffer_bytes(work)
    perceptual = sum(MASTER * w.resident.numel for w in work.weights if w.part == PERCEPTUAL)
    constants = [hold(owner, "buffers", buffers - perceptual), hold(owner, "LPIPS network", perceptual)]
    found = Resident([term for term in constants if term.bytes.high > 0], [])
    found[job.states_on_host].extend(states)
    found[job.average_on_host].extend(average)
    return found


def trained(job: Job) -> Owner:
    """Whose weights a training changes."""
    return "trained VAE" if job.stage == "vae" else "denoiser"


def gradient_bytes(job: Job, work: Workload) -> int:
    """One rank's gradients in fp32 when the backward pass has ended."""
    return sum(shard_bytes(work, job.spec.parallel.shard).values())


def held_terms(held: Held, owner: Owner) -> list[Term]:
    """What FSDP2 holds beside the shards at one moment; checked against `FSDPMemTracker` and a real allocator."""
    return [
        hold("ranks", "gathered weights", held.gathered),
        hold("ranks", "weights in flight", held.gathering),
        hold("ranks", "gradients being reduced", held.reducing),
        hold(owner, "gradients", held.gradients),
    ]
