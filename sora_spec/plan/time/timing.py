"""How long it takes: a roofline over the ops of a job, messages between ranks, and the optimiser.

An op takes its FLOPs at the rate that ops of its class reach on the device, and its bytes at the memory's rate, and a
little to start and to drain:

    seconds = FLOPs / (share · rate) + bytes / (share · bandwidth) + start

The sum instead of the larger of the two is what gives every op its efficiency curve. With I = FLOPs / bytes, which for
a matrix product is governed by its smallest extent and for attention by the length of its sequences, and I₀ the ratio
of the two rates, the share of the rate that an op reaches is share / (1 + I₀ / I + start · share · rate / FLOPs): it
saturates in the op's shape and in its size, and time never falls when either grows. All ops together take at least the
time to launch them.

The shares are the device's `efficiency`: of matrix products, of attention, and of memory, of which programs move more
than the graph counts. They are what single kernels reach, divided by what published programs take longer
(`benchmarks/calibration.py`); their ends make the range. Ignored: data loading, checkpoints, throttling, and
compilation, which saves up to a quarter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from sora_spec.plan.devices.hardware import Device
from sora_spec.plan.interval import ZERO, Interval, total
from sora_spec.plan.job import Job
from sora_spec.plan.memory.resident import sharding_of
from sora_spec.plan.memory.schedule import Row
from sora_spec.plan.memory.sharded import exchanged_bytes, step_messages
from sora_spec.plan.memory.text_encoders import encoder_work
from sora_spec.plan.memory.workload import Workload

_COPY = Interval(0.6, 0.8, 0.92)  # share of the memory's rate that one pointwise kernel reaches
_SIMT = Interval(0.6, 0.75, 0.9)  # share of the fp32 rate that matrix products outside the tensor cores reach
_BACKWARD_ATTENTION = 63 / 73  # best backward to best forward rate of FlashAttention-2 on A100, arXiv 2307.08691 §4.1
_LAUNCH = {"cuda": Interval(3e-6, 6e-6, 12e-6), "cpu": Interval(5e-6, 15e-6, 40e-6)}  # seconds of the host per op
_START = {"cuda": Interval(1e-6, 2e-6, 4e-6), "cpu": Interval(1e-6, 3e-6, 8e-6)}  # seconds of the device per op
_LINK = {"nvlink": Interval(0.5, 0.7, 0.9), "pcie": Interval(0.12, 0.35, 0.8), "memory": Interval(0.3, 0.6, 0.9)}
"""Share of the link's rate that NCCL reaches. Over PCIe the devices of a node share its switches and its host."""
_HIDDEN = 0.7  # share of FSDP2's messages that can run beside arithmetic
_HOST_LINK = Interval(6e9, 18e9, 45e9)  # byte/s between pinned host memory and a device: a shared slot to PCIe 5
_HOST_MEMORY = Interval(8e9, 40e9, 200e9)  # byte/s that an optimiser on the host reaches: few cores to whole sockets
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
        return total(self.parts.values())


class Work(NamedTuple):
    """A run of ops by the rate that bounds them."""

    matrix: int
    """FLOPs of matrix products."""
    attention: float
    """FLOPs of fused attention, those of the backward pass raised by how much slower it runs."""
    conv: int
    """FLOPs of convolutions."""
    moved: int
    """Bytes read and written."""
    ops: int


class _Rows:
    """Rows as a key by identity: they are made once for every workload, and hashing them all would cost more."""

    __slots__ = ("rows",)

    def __init__(self, rows: tuple[Row, ...]) -> None:
        self.rows = rows

    def __hash__(self) -> int:
        return id(self.rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Rows) and self.rows is other.rows


def work_of(rows: tuple[Row, ...]) -> Work:
    """Sums over the ops. Cached."""
    return _work(_Rows(rows))


@lru_cache(maxsize=1024)
def _work(key: _Rows) -> Work:
    matrix = conv = moved = ops = 0
    attention = 0.0
    for kind, backward, flops, nbytes, count in key.rows:
        moved += nbytes * count
        ops += count
        if kind == "attention":
            attention += flops * count / (_BACKWARD_ATTENTION if backward else 1.0)
        elif kind == "conv":
            conv += flops * count
        else:
            matrix += flops * count
    return Work(matrix, attention, conv, moved, ops)


def compute_seconds(rows: tuple[Row, ...], device: Device, precision: str, tf32: bool = False) -> Interval:
    """Time of a run of ops."""
    work = work_of(rows)
    rates = _rates(device, precision, tf32)
    launch, start = _LAUNCH[device.kind], _START[device.kind]
    found: list[float] = []
    for end in range(3):
        best = 2 - end
        busy = work.matrix / rates.matrix[best] + work.attention / rates.attention[best] + work.conv / rates.conv[best]
        busy += work.moved / (device.bandwidth * device.memory[best]) + work.ops * start[end]
        found.append(max(busy, work.ops * launch[end]))
    return Interval(*found)


class Rates(NamedTuple):
    """FLOP/s that ops of a class reach, low, likely, high."""

    matrix: Interval
    attention: Interval
    conv: Interval


@lru_cache(maxsize=256)
def _rates_of(key: _Machine) -> Rates:
    device = key.device
    matrix, attention = device.efficiency, device.attention
    if key.precision == "bf16" or device.kind == "cpu":
        rate = device.rate("bf16" if key.precision == "bf16" else "fp32")
        return Rates(matrix.times(rate), attention.times(rate), matrix.times(rate))
    tensor_cores = max(device.rate("tf32"), device.rate("fp32"))
    convs = matrix.times(tensor_cores)  # PyTorch lets cuDNN use TF32 by default
    if key.tf32:
        return Rates(convs, attention.times(tensor_cores), convs)
    simt = _SIMT.times(device.rate("fp32"))
    return Rates(simt, simt, convs)


class _Machine:
    """A device in a precision, as a key by identity."""

    __slots__ = ("device", "key", "precision", "tf32")

    def __init__(self, device: Device, precision: str, tf32: bool) -> None:
        self.device, self.precision, self.tf32 = device, precision, tf32
        self.key = (id(device), precision, tf32)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Machine) and self.key == other.key and self.device is other.device


def _rates(device: Device, precision: str, tf32: bool) -> Rates:
    return _rates_of(_Machine(device, precision, tf32))


def message_seconds(nbytes: float, device: Device, ranks: int) -> Interval:
    """Time of messages of so many bytes leaving each rank, over the network once a group spans nodes."""
    if nbytes <= 0:
        return ZERO
    rate = device.link if ranks <= NODE else min(device.link, device.network)
    share = _LINK.get(device.link_kind, _LINK["nvlink"])
    return Interval(*[nbytes / (rate * share[2 - end]) for end in range(3)])


def sharding_seconds(job: Job, work: Workload) -> Interval:
    """FSDP2's messages of one pass: weights gathered for forward and backward, gradients reduced in fp32."""
    parallel = job.spec.parallel
    sent = step_messages(work.schedule, sharding_of(job, work))
    own = message_seconds(sent.gathers + sent.reductions, job.device, parallel.shard * parallel.sequence)
    return own.plus(message_seconds(sent.sums, job.device, job.ranks))


def exposed(messages: Interval, compute: Interval) -> Interval:
    """What of the messages arithmetic cannot hide: from all that exceeds it to nearly all of them."""
    likely = (1 - _HIDDEN) * messages.likely + max(0.0, _HIDDEN * messages.likely - compute.likely)
    return Interval(min(likely, max(0.0, messages.low - compute.low)), likely, max(likely, messages.high))


def sequence_seconds(job: Job, work: Workload) -> Interval:
    """Ulysses: queries, keys, values and results change hands around every attention, forward and backward."""
    ranks = job.spec.parallel.sequence
    if ranks == 1:
        return ZERO
    return message_seconds(exchanged_bytes(work.schedule, work.batch) * (ranks - 1) / ranks, job.device, ranks)


def host_seconds(job: Job, work: Workload) -> Interval:
    """Copies of one pass with states in host memory: a rank's fp32 weights to the device whenever they are gathered,
    its gradients back."""
    return _over(step_messages(work.schedule, sharding_of(job, work)).host, _HOST_LINK)


def _over(nbytes: float, rate: Interval) -> Interval:
    return Interval(nbytes / rate.high, nbytes / rate.likely, nbytes / rate.low)


def optimizer_seconds(job: Job, work: Workload) -> Interval:
    """Norm of the gradients, AdamW and moving average: bytes over the bandwidth of the memory that holds them."""
    ema = job.vae_training.ema if job.stage == "vae" else job.spec.train.ema
    share, rate = work.parameters / job.spec.parallel.shard, _COPY.times(job.device.bandwidth)
    average = _AVERAGE_BYTES * share if ema > 0 else 0.0
    states = (_ADAMW_BYTES + _NORM_BYTES) * share
    if job.states_on_host:
        return _over(states + average, _HOST_MEMORY)
    launch = _LAUNCH[job.device.kind]
    launches = 2 * sum(w.times for w in work.weights if w.resident.role == "parameter")
    beside = average if job.average_on_host else 0.0
    busy = _over(states + average - beside, rate)
    found = Interval(*[max(busy[end], launches * launch[end]) for end in range(3)])
    return found.plus(_over(beside, _HOST_MEMORY)).plus(_over(4 * share if beside else 0.0, _HOST_LINK))


def prompt_seconds(job: Job, prompts: int) -> Interval:
    """So many prompts through the text encoder, one after another; nothing without one that is known."""
    work, condition = encoder_work(job), job.spec.condition
    if work is None or condition.kind != "text":
        return ZERO
    return compute_seconds(work.rows, job.device, condition.precision, job.allows_tf32).times(prompts)


def train_step(job: Job, work: Workload) -> StepTime:
    """One optimiser step on one rank; all ranks take as long."""
    compute = compute_seconds(work.rows, job.device, job.precision, job.allows_tf32)
    parts = {"forward and backward": compute}
    if job.stage == "denoiser" and job.has_vae:
        encode = job.work("vae_encode", job.micro_batch, "fp32")
        parts["encode"] = compute_seconds(encode.rows, job.device, "fp32", job.allows_tf32)
    if job.stage == "denoiser" and encoder_work(job) is not None:
        parts["text encode"] = prompt_seconds(job, job.micro_batch)  # each caption is new
    if job.ranks > 1 or job.states_on_host:
        messages = sharding_seconds(job, work).plus(host_seconds(job, work))
        parts["messages"] = exposed(messages, compute).plus(sequence_seconds(job, work))
    parts = {name: seconds.times(job.accumulation) for name, seconds in parts.items()}
    parts["optimizer"] = optimizer_seconds(job, work)
    return StepTime(parts)
