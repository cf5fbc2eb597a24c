"""The plan of a job: what it needs, how long it takes, and whether it fits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from sora_spec.disk.run_folder import MEASURED_CLIPS
from sora_spec.language.abilities import Lack, lacks
from sora_spec.plan.devices.hardware import Device
from sora_spec.plan.interval import ZERO, Interval, exactly, worst
from sora_spec.plan.job import Job
from sora_spec.plan.memory import generate_phases, train_phases
from sora_spec.plan.memory.components import Part, components_of
from sora_spec.plan.memory.overhead import context, fragmentation, within_room
from sora_spec.plan.memory.terms import Phase
from sora_spec.plan.remarks import assumptions, not_counted
from sora_spec.plan.time.sampling import sampler_calls
from sora_spec.plan.time.timing import StepTime, compute_seconds, prompt_seconds, train_step
from sora_spec.recipe.parts import PartName

Verdict = Literal["yes", "tight", "no"]
"""`tight`: the likely need fits, its upper end does not."""
Standing = Literal["yes", "tight", "no", "cannot"]
"""The verdict, or that this program cannot do the job whatever the machine."""


@dataclass(frozen=True)
class Times:
    """Seconds and dollars."""

    step: StepTime
    """One optimiser step; in generation one step of the sampler."""
    total_seconds: Interval
    """All steps of the training; in generation one batch of clips on each device, decoded."""
    gpu_hours: Interval
    cost: Interval | None
    """None where the device has no price."""


@dataclass(frozen=True)
class Plan:
    """Everything that is known before launch."""

    job: Job
    phases: tuple[Phase, ...]
    times: Times

    @property
    def device(self) -> Device:
        return self.job.device

    @property
    def peak(self) -> Phase:
        return max(self.phases, key=lambda phase: phase.device.likely)

    @property
    def allocated(self) -> Interval:
        """Largest over the phases: what `torch.cuda.max_memory_allocated` will say."""
        return worst(phase.allocated for phase in self.phases)

    @property
    def reserved(self) -> Interval:
        """Largest over the phases: what `torch.cuda.max_memory_reserved` will say."""
        return worst(phase.reserved for phase in self.phases)

    @property
    def needed(self) -> Interval:
        """Largest over the phases, driver and context included."""
        return worst(phase.device for phase in self.phases)

    @property
    def host(self) -> Interval:
        """Largest over the phases: what one rank's states take of host memory."""
        return worst(phase.host for phase in self.phases)

    @property
    def verdict(self) -> Verdict:
        needed, there = self.needed, self.device.memory_bytes
        if needed.likely > there:
            return "no"
        return "tight" if needed.high > there else "yes"

    @property
    def fits(self) -> bool:
        """Whether the likely need fits."""
        return self.verdict != "no"

    @property
    def lacks(self) -> list[Lack]:
        """What stands in the way of doing the job with this program, whatever the machine."""
        return lacks(self.job.spec, self.job.verb)

    @property
    def standing(self) -> Standing:
        """The answer to what was asked."""
        return "cannot" if self.lacks else self.verdict

    @property
    def headroom(self) -> Interval:
        """Bytes that stay free, worst case first; negative where there are too few."""
        needed, there = self.needed, self.device.memory_bytes
        return Interval(there - needed.high, there - needed.likely, there - needed.low)

    @property
    def components(self) -> dict[PartName, Part]:
        """Parameters and FLOPs of the parts, for one sample."""
        return components_of(self.job)

    @property
    def assumptions(self) -> list[str]:
        """What was taken for granted."""
        return assumptions(self.job)

    @property
    def not_counted(self) -> list[str]:
        return not_counted(self.job)


def make_plan(job: Job) -> Plan:
    """The plan of a job. Raises UserError for a variant without a model graph."""
    phases = tuple(_whole(job, phase) for phase in bare_phases(job))
    return Plan(job, phases, times_of(job))


def times_of(job: Job) -> Times:
    """The times of a job, whether it fits or not. Raises UserError for a variant without a model graph."""
    return _training_times(job) if job.mode == "train" else _generation_times(job)


def bare_phases(job: Job) -> list[Phase]:
    """Phases without what the allocator and the driver add."""
    return list(_phases(_Machineless(job)))


class _Machineless:
    """A job as a key: of the device only what changes its tensors."""

    __slots__ = ("job", "key")

    def __init__(self, job: Job) -> None:
        self.job = job
        device = job.device
        places = (device.kind, device.capability >= 9)
        self.key = (id(job.spec), places, *job.way.values())

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Machineless) and self.key == other.key and self.job.spec is other.job.spec


@lru_cache(maxsize=256)
def _phases(key: _Machineless) -> tuple[Phase, ...]:
    job = key.job
    return tuple(train_phases.train_phases(job) if job.mode == "train" else generate_phases.generate_phases(job))


def _whole(job: Job, phase: Phase) -> Phase:
    outside = context(job.device, job.ranks)
    phase = within_room(job.device, phase, outside)
    return replace(phase, terms=(*phase.terms, fragmentation(job.device, phase.allocated), *outside))


def _training_times(job: Job) -> Times:
    step = train_step(job, train_phases.step_work(job))
    steps = job.vae_training.steps if job.stage == "vae" else job.spec.train.steps
    seconds = step.seconds.times(steps)
    if job.stage == "vae":
        encoded = job.work("vae_encode", 1)
        once = compute_seconds(encoded.rows, job.device, job.precision, job.allows_tf32)
        seconds = seconds.plus(once.times(MEASURED_CLIPS))
    return _priced(job, step, seconds, job.ranks)


def _generation_times(job: Job) -> Times:
    call = compute_seconds(generate_phases.network_work(job).rows, job.device, job.precision, job.allows_tf32)
    decoder = generate_phases.decode_work(job)
    decode = ZERO
    if decoder is not None:
        once = compute_seconds(decoder.rows, job.device, job.precision, job.allows_tf32)
        decode = once.times(generate_phases.decode_calls(job))
    calls = sampler_calls(job.spec)
    sampling = Interval(*[calls[end] * call[end] for end in range(3)])
    prompts = prompt_seconds(job, job.generated + job.guided)  # the empty one once
    total = sampling.plus(decode).plus(prompts).plus(generate_phases.offload_seconds(job))
    return _priced(job, StepTime({"denoise": call, "decode": exactly(0)}), total, job.count)


def _priced(job: Job, step: StepTime, seconds: Interval, devices: int) -> Times:
    hours = seconds.times(devices / 3600)
    price = job.device.usd_per_hour
    return Times(step, seconds, hours, None if price is None else hours.times(price))
