"""Knobs of the job: what is done, on which devices, in which batches."""

from __future__ import annotations

from dataclasses import replace

from sora_spec.language.facts import is_trainable
from sora_spec.plan.devices.hardware import device_names
from sora_spec.plan.job import Question
from sora_spec.plan.knobs.field_knobs import help_at
from sora_spec.plan.knobs.knob import Knob, Setting, Situation, trains_denoiser, whole_number

COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096)


def _job_settings(at: Situation) -> list[Setting]:
    found = [Setting("train denoiser", replace(at.question, mode="train", stage="denoiser"))]
    if is_trainable(at.spec.vae):
        found.append(Setting("train VAE", replace(at.question, mode="train", stage="vae")))
    return [*found, Setting("generate", replace(at.question, mode="generate", stage="denoiser"))]


def _job_shown(at: Situation) -> str:
    if at.job.mode == "generate":
        return "generate"
    return "train VAE" if at.job.stage == "vae" else "train denoiser"


def _gpu_settings(at: Situation) -> list[Setting]:
    names, typed = device_names(at.question.hardware or None), "hardware.gpu" in at.job.typed
    return [
        Setting(name, at.question.having("hardware.gpu", name) if typed else replace(at.question, gpu=name))
        for name in names
    ]


def _count(at: Situation, count: int) -> Question:
    """Other devices: how they share the weights is worked out anew; groups of ranks stay where they divide them."""
    parallel, asked = at.job.spec.parallel, at.question.without("parallel.shard")
    if count % (parallel.sequence * parallel.replicate):
        asked = asked.without("parallel.sequence").without("parallel.replicate")
    return asked.on(count, at.job)


def _count_settings(at: Situation) -> list[Setting]:
    """Counts that can share the batch."""
    if at.job.mode == "generate":
        return [Setting(str(n), _count(at, n), n) for n in COUNTS]
    train, vae = at.spec.train, at.job.stage == "vae"
    batch, passes = (at.job.vae_training.batch, 1) if vae else (train.batch, train.accumulation)
    return [Setting(str(n), _count(at, n), n) for n in COUNTS if batch % (n * passes) == 0]


def _batch_now(at: Situation) -> int:
    return at.job.generated if at.job.mode == "generate" else at.job.clips_per_step


def _batch(at: Situation, batch: int) -> Question:
    if at.job.mode == "generate":
        return replace(at.question, batch=batch)
    if at.job.stage == "vae":
        return at.question.having("vae.training.batch", str(batch))
    changed = at.question.having("train.batch", str(batch))
    if at.spec.train.micro_batch is not None:
        changed = changed.having("train.micro_batch", str(max(1, batch // _share(at))))
    return changed


def _share(at: Situation) -> int:
    """Clips of a step come in multiples of this."""
    parallel = at.job.spec.parallel
    groups = parallel.shard * parallel.replicate
    return groups * at.job.accumulation if at.job.mode == "train" else 1


def _batch_settings(at: Situation) -> list[Setting]:
    share = max(_share(at), at.job.ranks)
    shared = sorted({n for n in BATCHES if n % share == 0} | {share * n for n in BATCHES if share * n <= 65_536})
    return [Setting(str(n), _batch(at, n), n) for n in shared]


def _passes(at: Situation, passes: int) -> Question:
    changed = at.question.having("train.accumulation", str(passes))
    if at.spec.train.micro_batch is not None:
        micro = at.spec.train.batch * passes // max(1, _share(at) * passes * passes // at.job.accumulation)
        changed = changed.having("train.micro_batch", str(max(1, micro)))
    return changed


def _passes_settings(at: Situation) -> list[Setting]:
    per_rank = at.job.micro_batch * at.job.accumulation
    return [Setting(str(n), _passes(at, n), n) for n in range(1, min(per_rank, 1024) + 1) if per_rank % n == 0]


JOB_KNOBS: tuple[Knob, ...] = (
    Knob("job", "job", "Train the denoiser or the VAE, or generate clips.", _job_shown, _job_settings),
    Knob("gpu", "GPU", help_at("hardware.gpu"), lambda at: at.job.device.name, _gpu_settings),
    Knob(
        *("count", "GPUs", help_at("hardware.count")),
        shown=lambda at: str(at.job.count),
        settings=_count_settings,
        place=lambda at: at.job.count,
        typed=whole_number(1, 4096, _count),
    ),
    Knob(
        *("batch", "batch", "Clips of one optimiser step over all devices; in generation, clips at a time."),
        shown=lambda at: str(_batch_now(at)),
        settings=_batch_settings,
        place=_batch_now,
        typed=whole_number(1, 65_536, _batch),
    ),
    Knob(
        *("passes", "passes a step", help_at("train.accumulation")),
        shown=lambda at: str(at.job.accumulation),
        settings=_passes_settings,
        place=lambda at: at.job.accumulation,
        typed=whole_number(1, 4096, _passes),
        applies=trains_denoiser,
    ),
)
