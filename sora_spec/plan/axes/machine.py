"""Axes of the job: what is done, on which devices, in which batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sora_spec.errors import UserError
from sora_spec.language.facts import is_trainable
from sora_spec.language.rules.problem import counted
from sora_spec.plan.axes.axis import (
    Axis,
    Change,
    Ease,
    Solved,
    generates,
    halves,
    trains_denoiser,
    whole_number,
)
from sora_spec.plan.devices.hardware import device_names

if TYPE_CHECKING:
    from sora_spec.plan.job import Job

COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096)
_MOST = 4096
"""Devices, or clips of a pass, that are tried."""
_MOST_CLIPS = 65_536

_JOBS = {
    "train denoiser": {"mode": "train", "stage": "denoiser"},
    "train VAE": {"mode": "train", "stage": "vae"},
    "generate": {"mode": "generate", "stage": "denoiser"},
}


def _own_job(job: Job) -> str:
    return "generate" if generates(job) else "train VAE" if job.stage == "vae" else "train denoiser"


def _counted(job: Job, count: int) -> Change:
    """Other devices: how they share the weights is worked out anew; groups of ranks stay where they divide them."""
    parallel, dropped = job.spec.parallel, ["parallel.shard"]
    if count % (parallel.sequence * parallel.replicate):
        dropped += ["parallel.sequence", "parallel.replicate"]
    return Change(options={"count": count}, dropped=tuple(dropped))


def _usual_counts(job: Job) -> list[int]:
    """Counts that can share the batch."""
    return [n for n in COUNTS if generates(job) or job.clips_per_step % (n * job.accumulation) == 0]


def _every_count(job: Job) -> range:
    if generates(job):
        raise UserError("generation runs on one device, so there is no number of devices to solve for")
    return range(1, _MOST + 1)


def _more_devices(job: Job) -> Ease | None:
    if not trains_denoiser(job):
        return None
    per_rank = job.spec.train.batch // max(1, job.accumulation)
    counts = [job.count * factor for factor in (2, 4, 8, 16, 32)]
    return Ease(9, 3.0, [(f"{n} devices", _counted(job, n)) for n in counts if per_rank % n == 0])


def _powers(most: int, own: int) -> list[int]:
    return sorted({own, *(2**power for power in range(most.bit_length()))})


def _share(job: Job) -> int:
    """Clips of a step that one clip of a pass makes."""
    return 1 if generates(job) else job.groups * job.accumulation


def _own_batch(job: Job) -> int:
    return job.generated if generates(job) else job.clips_per_step


def _usual_batches(job: Job) -> list[int]:
    share = max(_share(job), job.ranks)
    return sorted({n for n in BATCHES if n % share == 0} | {share * n for n in BATCHES if share * n <= _MOST_CLIPS})


def _batched(job: Job, batch: int) -> Change:
    if generates(job):
        return Change(options={"batch": batch})
    if job.stage == "vae":
        return Change({"vae.training.batch": batch})
    return Change({"train.batch": batch, **_pass_of(job, batch // _share(job))})


def _pass_of(job: Job, clips: int) -> dict[str, int]:
    """Clips of one pass, where the spec names them."""
    return {} if job.spec.train.micro_batch is None else {"train.micro_batch": max(1, clips)}


def _batch_words(job: Job, batch: int) -> str:
    if generates(job):
        return f"{counted(batch, 'clip')} at a time"
    return f"{counted(batch, 'clip')} a step, {batch // _share(job)} a pass"


def _every_batch(job: Job) -> range:
    share = _share(job)
    return range(share, share * (_MOST if generates(job) else min(_MOST, _MOST_CLIPS // share)) + 1, share)


def _few_batches(job: Job) -> list[int]:
    share = _share(job)
    return [share * clips for clips in _powers(1024, _own_batch(job) // share)]


def _smaller_batch(job: Job) -> Ease | None:
    have, low = _own_batch(job), job.spec.export.batch[0]
    if trains_denoiser(job):
        return None
    if not generates(job):
        fewer = [n for n in halves(have) if n % job.ranks == 0]
        return Ease(0, 2.0, [(f"{n} clips a step instead of {have}", _batched(job, n)) for n in fewer])
    if job.batch is not None:
        return Ease(0, 1.0, [(f"{n} clips at a time", _batched(job, n)) for n in halves(have)])
    fewer = {f"{n} clips at a time instead of {have}": (min(low, n), n) for n in halves(have)}
    return Ease(0, 1.0, [(words, Change({"export.batch": batch})) for words, batch in fewer.items()])


def _usual_passes(job: Job) -> list[int]:
    per_rank = job.micro_batch * job.accumulation
    return [n for n in range(1, min(per_rank, 1024) + 1) if per_rank % n == 0]


def _passed(job: Job, passes: int) -> Change:
    return Change({"train.accumulation": passes, **_pass_of(job, job.clips_per_step // (job.groups * passes))})


def _more_passes(job: Job) -> Ease | None:
    """Fewer clips per pass and more passes: the batch stays."""
    if not trains_denoiser(job):
        return None
    have = job.micro_batch
    fewer = [n for n in range(have - 1, 0, -1) if have % n == 0 and job.clips_per_step % (_share(job) * have // n) == 0]
    changes = [_passed(job, job.accumulation * have // n) for n in fewer]
    return Ease(1, 1.0, zip([f"{n} clips a pass instead of {have}" for n in fewer], changes, strict=True))


def _free_passes(job: Job) -> list[Change]:
    """From one pass of many clips to many passes of one."""
    clips = job.spec.train.batch // job.groups
    return [_passed(job, n) for n in range(1, clips + 1) if clips % n == 0] if trains_denoiser(job) else []


MACHINE_AXES = (
    Axis(
        *("job", "job", "Train the denoiser or the VAE, or generate clips."),
        own=_own_job,
        usual=lambda job: [name for name in _JOBS if is_trainable(job.spec.vae) or name != "train VAE"],
        change=lambda _, name: Change(options=_JOBS[name]),
        results=True,
    ),
    Axis(
        *("gpu", "GPU", "hardware.gpu"),
        own=lambda job: job.device.name,
        usual=lambda job: device_names(job.hardware or None),
        change=lambda _, name: Change(options={"gpu": name}),
    ),
    Axis(
        *("gpus", "GPUs", "hardware.count"),
        own=lambda job: job.count,
        usual=_usual_counts,
        change=_counted,
        scale=float,
        read=whole_number(_MOST),
        ease=_more_devices,
        solved=Solved(
            every=_every_count,
            few=lambda job: [] if generates(job) else _powers(512, job.count),
            words=lambda _, count: counted(count, "device"),
        ),
    ),
    Axis(
        *("batch", "batch", "Clips of one optimiser step over all devices; in generation, clips at a time."),
        own=_own_batch,
        usual=_usual_batches,
        change=_batched,
        scale=float,
        read=whole_number(_MOST_CLIPS),
        results=True,
        ease=_smaller_batch,
        solved=Solved(
            every=_every_batch,
            few=_few_batches,
            words=_batch_words,
            x=lambda job, batch: batch // _share(job),
        ),
    ),
    Axis(
        *("passes", "passes a step", "train.accumulation"),
        own=lambda job: job.accumulation,
        usual=_usual_passes,
        change=_passed,
        scale=float,
        read=whole_number(_MOST),
        applies=trains_denoiser,
        ease=_more_passes,
        free=_free_passes,
        ladder=True,
    ),
)
