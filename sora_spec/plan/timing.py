"""How long it takes: a roofline over the ops of a job, messages between ranks, and the optimiser.

Every op takes the longer of its arithmetic at the rate that whole video models reach on the device (`efficiency`) and
of its bytes at the memory's rate; all of them together at least the time to launch them. The ends of the interval take
the ends of both. Ignored: data loading, checkpoints, throttling, and compilation, which can save a quarter.
"""

from __future__ import annotations

from dataclasses import dataclass

from sora_spec.plan.hardware import Device
from sora_spec.plan.interval import ZERO, Interval, total
from sora_spec.plan.job import Job
from sora_spec.plan.schedule import Row
from sora_spec.plan.workload import Workload

_BANDWIDTH = Interval(0.6, 0.8, 0.92)  # share of the memory's rate that pointwise kernels reach
_SIMT = Interval(0.6, 0.75, 0.9)  # share of the fp32 rate that matrix products outside the tensor cores reach
_LAUNCH = {"cuda": Interval(3e-6, 6e-6, 12e-6), "cpu": Interval(5e-6, 15e-6, 40e-6)}  # seconds per op
_LINK = Interval(0.5, 0.7, 0.9)  # share of the link's rate that NCCL reaches
_HIDDEN = 0.7  # share of FSDP2's messages that can run beside arithmetic
NODE = 8
"""Devices of one node."""

# Bytes moved per parameter: foreach AdamW makes about fourteen passes over fp32 lists; the average three.
_ADAMW_BYTES, _AVERAGE_BYTES, _NORM_BYTES = 56, 12, 8


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimiser step, or of one sampler step, by what they are spent on."""

    parts: dict[str, Interval]

    @property
    def seconds(self) -> Interval:
        """All of them."""
        return total(self.parts.values())


def compute_seconds(rows: tuple[Row, ...], device: Device, precision: str, tf32: bool = False) -> Interval:
    """Time of a run of ops."""
    matrix, conv = _rates(device, precision, tf32)
    found = [0.0, 0.0, 0.0]
    bandwidth = device.bandwidth
    launches = 0
    for kind, _, flops, moved, count in rows:
        launches += count
        rates = conv if kind == "conv" else matrix
        for end in range(3):
            best = 2 - end
            seconds = moved / (bandwidth * _BANDWIDTH[best])
            if flops:
                seconds = max(seconds, flops / rates[best])
            found[end] += count * seconds
    launch = _LAUNCH[device.kind]
    return Interval(*[max(found[end], launches * launch[end]) for end in range(3)])


def _rates(device: Device, precision: str, tf32: bool) -> tuple[Interval, Interval]:
    """FLOP/s that are reached by matrix products and attention, and by convolutions, which use TF32 by default."""
    if precision == "bf16":
        both = device.efficiency.times(device.rate("bf16"))
        return both, both
    if device.kind == "cpu":
        both = device.efficiency.times(device.rate("fp32"))
        return both, both
    tensor_cores = device.efficiency.times(max(device.rate("tf32"), device.rate("fp32")))
    return tensor_cores if tf32 else _SIMT.times(device.rate("fp32")), tensor_cores


def message_seconds(nbytes: float, device: Device, ranks: int) -> Interval:
    """Time of messages of so many bytes leaving each rank, over the network once a group spans nodes."""
    if nbytes <= 0:
        return ZERO
    rate = device.link if ranks <= NODE else min(device.link, device.network)
    return Interval(nbytes / (rate * _LINK.high), nbytes / (rate * _LINK.likely), nbytes / (rate * _LINK.low))


def sharding_seconds(job: Job, work: Workload) -> Interval:
    """FSDP2's messages of one pass: weights gathered for forward and backward, gradients reduced in fp32."""
    parallel = job.spec.parallel
    count, size = work.parameters, 2 if job.precision == "bf16" else 4
    shard = (parallel.shard - 1) / parallel.shard
    across = 2 * (parallel.replicate - 1) / parallel.replicate
    own = message_seconds(count * shard * (2 * size + 4), job.device, parallel.shard * parallel.sequence)
    others = message_seconds(count / parallel.shard * 4 * across, job.device, job.ranks)
    return own.plus(others)


def exposed(messages: Interval, compute: Interval) -> Interval:
    """What of the messages arithmetic cannot hide: from all that exceeds it to nearly all of them."""
    likely = (1 - _HIDDEN) * messages.likely + max(0.0, _HIDDEN * messages.likely - compute.likely)
    return Interval(min(likely, max(0.0, messages.low - compute.low)), likely, max(likely, messages.high))


def sequence_seconds(job: Job, work: Workload) -> Interval:
    """Ulysses: queries, keys, values and results change hands around every attention, forward and backward."""
    ranks = job.spec.parallel.sequence
    if ranks == 1:
        return ZERO
    from sora_spec.shapes import derive_shapes

    size = 2 if job.precision == "bf16" else 4
    backbone = job.spec.backbone
    width, depth = (backbone.width, backbone.depth) if backbone.kind == "transformer" else (0, 0)
    one = job.micro_batch * derive_shapes(job.spec).tokens * width * size * (ranks - 1) / ranks
    again = 1.0 if work.backward_flops <= 2.6 * work.forward_flops else 2.0
    return message_seconds((4 * again + 4) * one * depth, job.device, ranks)


def optimizer_seconds(job: Job, work: Workload) -> Interval:
    """Norm of the gradients, AdamW and moving average: bytes over bandwidth."""
    ema = job.vae_training.ema if job.stage == "vae" else job.spec.train.ema
    passes = _ADAMW_BYTES + _NORM_BYTES + (_AVERAGE_BYTES if ema > 0 else 0)
    nbytes = passes * work.parameters / job.spec.parallel.shard
    rate, launch = job.device.bandwidth, _LAUNCH[job.device.kind]
    launches = 2 * sum(w.times for w in work.weights if w.resident.role == "parameter")
    return Interval(*[max(nbytes / (rate * _BANDWIDTH[2 - end]), launches * launch[end]) for end in range(3)])


def train_step(job: Job, work: Workload) -> StepTime:
    """One optimiser step on one rank; all ranks take as long."""
    sequence = job.spec.parallel.sequence
    compute = compute_seconds(work.rows, job.device, job.precision, job.tf32).times(1 / sequence)
    parts = {"forward and backward": compute}
    if job.stage == "denoiser" and job.has_codec:
        encode = job.work("vae_encode", job.micro_batch, "fp32")
        parts["encode"] = compute_seconds(encode.rows, job.device, "fp32", job.tf32)
    if job.ranks > 1:
        messages = sharding_seconds(job, work)
        parts["messages"] = exposed(messages, compute).plus(sequence_seconds(job, work))
    parts = {name: seconds.times(job.accumulation) for name, seconds in parts.items()}
    parts["optimizer"] = optimizer_seconds(job, work)
    return StepTime(parts)
