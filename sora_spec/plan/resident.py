"""What stays in memory through all phases of a job: weights, optimiser states, the moving average, the codec."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

from sora_spec.plan.job import Job
from sora_spec.plan.schedule import Schedule
from sora_spec.plan.terms import Term, documented, exact
from sora_spec.plan.workload import Workload

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
    "vae": "codec",
    "vae.multipliers": "codec levels",
    "vae.channels": "codec latents",
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
            rows = resident.shape[0] if resident.shape else 1
            nbytes = -(-rows // ranks) * (resident.numel // max(rows, 1)) * element
            unit = schedule.rounding
            found[dotted(weight.yaml)] += weight.times * (-(-nbytes // unit) * unit)
    return dict(found)


def parameter_counts(work: Workload) -> tuple[int, int, int]:
    """Parameters of the largest block, of everything outside blocks, and number of blocks."""
    return _parameter_counts(work.schedule)


@lru_cache(maxsize=512)
def _parameter_counts(schedule: Schedule) -> tuple[int, int, int]:
    blocks, root = Counter[int](), 0
    graph = schedule.graph
    for weight in schedule.weights:
        if weight.resident.role != "parameter":
            continue
        block = graph.regions[weight.resident.region].block if weight.in_block else None
        if block is None:
            root += weight.resident.numel * weight.times
        else:
            blocks[block] += weight.resident.numel
    return max(blocks.values(), default=0), root, len(blocks)


def weight_terms(work: Workload, what: str, ranks: int = 1, element: int = 4) -> list[Term]:
    """Weights by the YAML value that makes them."""
    share = f", 1/{ranks}" if ranks > 1 else ""
    parts = shard_bytes(work, ranks, element)
    return [exact(f"{what} weights: {label(path)}{share}", nbytes, path) for path, nbytes in parts.items()]


def buffer_term(work: Workload, what: str, path: str) -> list[Term]:
    """Constants that are stored with the weights."""
    return [exact(f"{what} buffers", work.buffer_bytes, path)] if work.buffer_bytes else []


def training_terms(job: Job, work: Workload) -> list[Term]:
    """Weights, moments and average of what is trained, in fp32, one rank's share."""
    shard = job.spec.parallel.shard
    part = sum(shard_bytes(work, shard).values())
    what = "codec" if job.stage == "vae" else "denoiser"
    optimizer = "vae.training.optimizer" if job.stage == "vae" else "train.optimizer"
    ema = "vae.training.ema" if job.stage == "vae" else "train.ema"
    decay = job.vae_training.ema if job.stage == "vae" else job.spec.train.ema
    share = f", 1/{shard}" if shard > 1 else ""
    terms = [
        *weight_terms(work, what, shard),
        *buffer_term(work, what, "vae" if job.stage == "vae" else "backbone.position"),
        exact(f"AdamW moments{share}", 2 * part, optimizer),
    ]
    if decay > 0:
        kept = sum(4 * w.resident.numel * w.times for w in work.weights if w.resident.persistent)
        terms.append(exact(f"moving average{share}", part + kept, ema))
    if job.device.kind == "cpu":  # elsewhere they are in host memory too
        count = sum(w.times for w in work.weights if w.resident.trained)
        terms.append(exact("AdamW step counters", 4 * count, optimizer))
    return terms


def gradient_bytes(job: Job, work: Workload) -> int:
    """One rank's gradients in fp32 when the backward pass has ended."""
    return sum(shard_bytes(work, job.spec.parallel.shard).values())


def gathered_terms(job: Job, work: Workload, backward: bool) -> list[Term]:
    """What FSDP2 holds beside the shards: the root's and one block's weights whole, the next block's on its way, and in
    the backward pass a block's gradients before they are reduced. Checked against `FSDPMemTracker`."""
    if not job.sharded:
        return []
    block, root, _ = parameter_counts(work)
    size = 2 if job.precision == "bf16" else 4
    terms = [
        documented("FSDP2: gathered weights", size * (root + block), "parallel.shard"),
        documented("FSDP2: weights in flight", size * block, "parallel.shard"),
    ]
    if backward:
        unit = block or root
        terms.append(documented("FSDP2: gradients being reduced", (4 + size) * unit, "parallel.shard"))
    return terms
