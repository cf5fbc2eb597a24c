"""`train_stage` and `try_stage`: from a spec to a trained stage in a run folder, or to a rehearsal without files."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from sora_spec import output
from sora_spec.errors import UserError
from sora_spec.plan.values import plan_values
from sora_spec.run_folder import RunFolder, StageName, write_atomically
from sora_spec.schema.spec import Spec
from sora_spec.train.data.loader import load_batches
from sora_spec.train.loop import Loop, Outcome
from sora_spec.train.measuring import Measurement
from sora_spec.train.preflight import preflight
from sora_spec.train.ranks import Ranks, started_ranks
from sora_spec.train.resume import check_same_run
from sora_spec.train.settings import stage_settings
from sora_spec.train.task import Task
from sora_spec.train.trainer import NotFiniteError, Trainer

_REHEARSED = 3
"""Steps of a rehearsal: one to warm up, one under the profiler, one to time."""


def build_task(spec: Spec, stage: StageName, run: RunFolder | None, ranks: Ranks, fresh: bool = True) -> Task:
    """The task of a stage, and on the first rank a few lines about its data.

    `fresh`: start from the weights that the spec names, if any.
    """
    task: Task
    if stage == "vae":
        from sora_spec.train.vae_stage import VaeTask

        task = VaeTask(spec, ranks, fresh)
    else:
        from sora_spec.train.denoiser_stage import DenoiserTask

        task = DenoiserTask(spec, run, ranks, fresh)
    if ranks.is_main and task.dataset.report is not None:
        task.dataset.report.tell()
    return task


def train_stage(
    spec: Spec,
    path: Path,
    stage: StageName = "denoiser",
    *,
    resume: bool = False,
    device: str | None = None,
    force: bool = False,
    hardware: Path | None = None,
) -> Outcome:
    """Train one stage of `spec` into the run folder `path`, from its newest checkpoint with `resume`.

    Everything that can fail for a user's reason is checked before the first file is written. `hardware`: a file of
    devices that count before the table's, as `sora-spec probe` writes it.

    Raises UserError for a spec, data, device or run folder that does not allow it, when the plan says that it does not
    fit and `force` is not given, and when the loss diverges.
    """
    settings = stage_settings(spec, stage)
    known = check_run(spec, path, stage, resume)
    with started_ranks(spec, device, settings.precision) as ranks:
        found = preflight(spec, stage, ranks, force, hardware)
        fresh = known is None or known.stage(stage).latest() is None
        task = build_task(spec, stage, known, ranks, fresh)
        if ranks.is_main:
            _record_run(spec, path, known, task)
        ranks.wait()
        return Loop(task, RunFolder.open(path).stage(stage), ranks, found).run()


def check_run(spec: Spec, path: Path, stage: StageName, resume: bool) -> RunFolder | None:
    """The run folder if it exists and this stage may be trained in it, None if it is to be made.

    Raises UserError when the stage has begun and `resume` is not given, or when the spec is another one.
    """
    if not (path / "spec.yaml").exists():
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"{path} exists and is not a run folder", "name another folder with --run")
        if resume:
            output.note(f"{path} does not exist yet: starting from the beginning")
        return None
    run = RunFolder.open(path)
    if run.stage(stage).path.exists() and not resume:
        raise UserError(
            f"{path} already holds a {stage} stage",
            f"go on with it: sora-spec train {path} --stage {stage} --resume; or start another: --run {path}-2",
        )
    check_same_run(run, spec)
    return run


def _record_run(spec: Spec, path: Path, known: RunFolder | None, task: Task) -> None:
    """Make the run folder, or bring its spec up to date, and note what made it."""
    from sora_spec.loading import dump_spec

    run = known or RunFolder.create(path, dump_spec(spec))
    if known is not None:
        write_atomically(run.spec_path, dump_spec(spec))
    if task.dataset.classes is not None:
        write_atomically(run.classes_path, json.dumps(task.dataset.classes) + "\n")
    names = ("sora-spec", "torch", "numpy", "av")
    run.record(python=platform.python_version(), versions={name: metadata.version(name) for name in names})


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
) -> Rehearsal:
    """Build everything and make three steps on real clips: memory is measured in the second, time in the third.

    Nothing is written. Raises UserError for whatever `train_stage` would refuse, except that a stage which has begun is
    no hindrance.
    """
    settings = stage_settings(spec, stage)
    known = check_run(spec, path, stage, resume=path.exists())
    with started_ranks(spec, device, settings.precision) as ranks:
        found = preflight(spec, stage, ranks, force, hardware)
        task = build_task(spec, stage, known, ranks)
        trainer = Trainer(task, ranks)
        order = trainer.order(0)
        batches = load_batches(task.dataset, order, workers=0)
        steps = min(_REHEARSED, settings.steps)
        measurement = Measurement(trainer, found, steps)
        try:
            results = [measurement.step(step + 1, partial(trainer.step, step, batches, order)) for step in range(steps)]
        except NotFiniteError as error:
            raise UserError(f"in the first steps {error}", "lower the learning rate") from None
        measured = measurement.values("rehearsed", 0)
    result = results[-1]
    facts = task.describe() | {
        "data": f"{len(task.dataset)} files of {settings.data}",
        "batch": f"{settings.batch} clips a step: {order.micro_batch} × {ranks.world} ranks × {settings.accumulation}",
        "precision": f"{settings.precision} on {ranks.device}",
        "run folder": str(path),
    }
    compute = result.seconds - (result.data_seconds if settings.workers else 0.0)
    predicted = None
    if found.plan is not None:
        values = plan_values(found.plan)
        predicted = {"verdict": values["verdict"], "memory": values["memory"], "time": values["time"]}
    return Rehearsal(facts, compute, settings.steps, result.terms["loss"], predicted, measured)
