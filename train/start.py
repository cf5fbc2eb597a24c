"""`train_stage` and `try_stage`: from a spec to a trained stage in a run folder, or to a rehearsal without files."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sora_spec.builders.tf32 import set_tf32
from sora_spec.disk.run_folder import RunFolder, StageFolder, StageName
from sora_spec.disk.run_lock import locked
from sora_spec.errors import UserError
from sora_spec.language.schema.spec import Spec
from sora_spec.plan.show.values import plan_values
from sora_spec.train.begin import check_data, check_run, make_run, record_run
from sora_spec.train.data.loader import load_batches
from sora_spec.train.from_run import start_from
from sora_spec.train.launched import NotFiniteError, StepResult
from sora_spec.train.loop import Loop, Outcome
from sora_spec.train.measuring import Measurement
from sora_spec.train.preflight import preflight
from sora_spec.train.ranks import Ranks, started_ranks
from sora_spec.train.resume import going_on
from sora_spec.train.settings import stage_settings
from sora_spec.train.task import Task
from sora_spec.train.trainer import Trainer

_REHEARSED = 3
"""Steps of a rehearsal: one to warm up, one under the profiler, one to time."""


def build_task(
    spec: Spec, stage: StageName, run: RunFolder | None, ranks: Ranks, fresh: bool = True, ema: bool = True
) -> Task:
    """The task of a stage, and on the first rank a few lines about its data.

    `fresh`: start from the weights that the spec names, if any. `ema` off: a VAE's moving average may be missing.
    """
    set_tf32(spec.train.tf32)
    task: Task
    with going_on(run, stage):
        if stage == "vae":
            from sora_spec.train.stages.vae import VaeTask

            task = VaeTask(spec, ranks, fresh)
        else:
            from sora_spec.train.stages.denoiser import DenoiserTask

            task = DenoiserTask(spec, run, ranks, fresh, lacking=not ema)
    if ranks.is_main and task.dataset.report is not None:
        task.dataset.report.tell()
    return task


def train_stage(
    spec: Spec,
    path: Path,
    stage: StageName = "denoiser",
    *,
    resume: bool = False,
    change: bool = False,
    origin: Path | None = None,
    ema: bool = True,
    device: str | None = None,
    force: bool = False,
    hardware: Path | None = None,
) -> Outcome:
    """Train one stage of `spec` into the run folder `path`, from its newest whole checkpoint with `resume`.

    Everything that can fail for a user's reason is checked before the first file is written, and no other process can
    train in the folder meanwhile. `change`: go on although fields that decide the weights, or the data, are others.
    `origin`: another run, from whose weights a new one starts; `ema` off takes those of its last step, not their
    average. `hardware`: a file of devices that count before the table's, as `sora-spec probe` writes it.

    Raises UserError for a spec, data, device or run folder that does not allow it, when the plan says that it does not
    fit and `force` is not given, when the loss diverges, and when a disk fails.
    """
    settings = stage_settings(spec, stage)
    main = os.environ.get("RANK", "0") == "0"
    with ExitStack() as held:
        if main and path.is_dir() and RunFolder.is_run(path):
            held.enter_context(locked(path))
        begin = check_run(spec, path, stage, resume, change, main)
        source = None
        if origin is not None:
            spec, source = start_from(spec, origin, stage, ema)
        with started_ranks(spec, device, settings.own.precision) as ranks:
            found = preflight(spec, stage, ranks, force, hardware)
            task = build_task(spec, stage, begin.run, ranks, begin.fresh, ema)
            folder = StageFolder(path / stage)
            loop = Loop(task, folder, ranks, found, spec.model_dump(mode="json"))
            step = int(ranks.of_main(begin.step))
            if not begin.fresh:
                loop.load(folder.checkpoint_path(step), begin.clips(settings.own.batch))
            if ranks.is_main:
                changes = check_data(begin, loop, change)
                record_run(make_run(spec, path, begin, held), spec, begin, loop, changes, source)
            ranks.wait()
            return loop.run()


@dataclass(frozen=True)
class Rehearsal:
    """What a dry run found."""

    facts: dict[str, str]
    seconds_per_step: float
    steps: int
    loss: float
    predicted: dict[str, Any] | None
    """`memory` and `time` of the plan, as `plan --json` has them; None where the spec cannot be planned."""
    measured: dict[str, Any]
    """What the steps took, as `measured.json` has it."""

    @property
    def seconds(self) -> float:
        """Estimate for all steps."""
        return self.seconds_per_step * self.steps


def try_stage(
    spec: Spec,
    path: Path,
    stage: StageName = "denoiser",
    device: str | None = None,
    force: bool = False,
    hardware: Path | None = None,
    change: bool = False,
    origin: Path | None = None,
    ema: bool = True,
) -> Rehearsal:
    """Build everything and make three steps on real clips: memory is measured in the second, time in the third.

    Nothing is written. Raises UserError for whatever `train_stage` would refuse, except that a stage which has begun is
    no hindrance.
    """
    settings = stage_settings(spec, stage)
    known = check_run(spec, path, stage, resume=path.exists(), change=change).run
    if origin is not None:
        spec, _ = start_from(spec, origin, stage, ema)
    with started_ranks(spec, device, settings.own.precision) as ranks:
        found = preflight(spec, stage, ranks, force, hardware)
        task = build_task(spec, stage, known, ranks, ema=ema)
        trainer = Trainer(task, ranks)
        order = trainer.order(0)
        batches = load_batches(task.dataset, order, workers=0)
        steps = min(_REHEARSED, settings.own.steps)
        measurement, results = Measurement(trainer, found, steps), list[StepResult]()
        try:
            for step in range(steps):
                results.append(measurement.step(step + 1, partial(trainer.step, step, batches, order)).result())
                measurement.note(results[-1])
        except NotFiniteError as error:
            raise UserError(f"in the first steps {error}", "lower the learning rate") from None
        measured = measurement.values("rehearsed", 0)
    result, own = results[-1], settings.own
    facts = task.describe() | {
        "data": f"{len(task.dataset)} files of {settings.data}",
        "batch": f"{own.batch} clips a step: {order.micro_batch} × {ranks.world} ranks × {settings.accumulation}",
        "precision": f"{own.precision} on {ranks.device}",
        "run folder": str(path),
    }
    compute = result.seconds - (result.data_seconds if settings.train.workers else 0.0)
    predicted = None
    if found.plan is not None:
        values = plan_values(found.plan)
        predicted = {"verdict": values["verdict"], "memory": values["memory"], "time": values["time"]}
    return Rehearsal(facts, compute, own.steps, result.terms["loss"], predicted, measured)
