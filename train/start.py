"""`train_stage` and `try_stage`: from a spec to a trained stage in a run folder, or to a rehearsal without files."""

from __future__ import annotations

import json
import os
import platform
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from sora_spec import output
from sora_spec.atomic import sweep, write_atomically
from sora_spec.checkpoints import (
    AVERAGE,
    MODEL,
    OPTIMIZER,
    Checkpoint,
    Damaged,
    State,
    examine,
    find_checkpoint,
)
from sora_spec.disk import disk_faults
from sora_spec.errors import UserError
from sora_spec.history import Change, append_history
from sora_spec.loading import dump_spec
from sora_spec.plan.values import plan_values
from sora_spec.run_folder import STAGES, RunFolder, StageFolder, StageName, check_free
from sora_spec.run_lock import locked
from sora_spec.schema.spec import Spec
from sora_spec.train.data.loader import load_batches
from sora_spec.train.loop import Loop, Outcome
from sora_spec.train.measuring import Measurement
from sora_spec.train.preflight import preflight
from sora_spec.train.ranks import Ranks, started_ranks
from sora_spec.train.resume import check_same_data, check_same_run, joined_classes
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
    change: bool = False,
    device: str | None = None,
    force: bool = False,
    hardware: Path | None = None,
) -> Outcome:
    """Train one stage of `spec` into the run folder `path`, from its newest whole checkpoint with `resume`.

    Everything that can fail for a user's reason is checked before the first file is written, and no other process can
    train in the folder meanwhile. `change`: go on although fields that decide the weights, or the data, are others.
    `hardware`: a file of devices that count before the table's, as `sora-spec probe` writes it.

    Raises UserError for a spec, data, device or run folder that does not allow it, when the plan says that it does not
    fit and `force` is not given, when the loss diverges, and when a disk fails.
    """
    settings = stage_settings(spec, stage)
    main = os.environ.get("RANK", "0") == "0"
    with ExitStack() as held, disk_faults(path):
        if main and path.is_dir() and RunFolder.is_run(path):
            held.enter_context(locked(path))
        begin = check_run(spec, path, stage, resume, change, main)
        with started_ranks(spec, device, settings.precision) as ranks:
            found = preflight(spec, stage, ranks, force, hardware)
            task = build_task(spec, stage, begin.run, ranks, begin.fresh)
            folder = StageFolder(path / stage)
            loop = Loop(task, folder, ranks, found, spec.model_dump(mode="json"))
            step = int(ranks.of_main(begin.step))
            if not begin.fresh:
                loop.load(folder.checkpoint_path(step), begin.clips(settings.batch))
            if ranks.is_main:
                _record_run(spec, path, begin, loop, held, change)
            ranks.wait()
            return loop.run()


@dataclass(frozen=True)
class Begin:
    """Where a stage begins."""

    run: RunFolder | None
    """None where the run folder is to be made."""
    fresh: bool = True
    """Whether it begins at step 0."""
    checkpoint: Checkpoint | None = None
    """What it goes on from; known to the first rank only."""
    damaged: tuple[Damaged, ...] = ()
    changes: tuple[Change, ...] = ()

    @property
    def step(self) -> int:
        """Updates done."""
        return 0 if self.checkpoint is None else self.checkpoint.step

    def clips(self, batch: int) -> int:
        """Clips seen by then. `batch`: that of the steps to come."""
        if self.checkpoint is None:
            return 0
        if self.checkpoint.state.clips is not None:
            return self.checkpoint.state.clips
        before = (change.before for change in self.changes if change.path in ("train.batch", "vae.training.batch"))
        return self.step * int(next(before, batch))


def check_run(spec: Spec, path: Path, stage: StageName, resume: bool, change: bool = False, main: bool = True) -> Begin:
    """Whether and from where this stage may be trained in `path`. Changes nothing.

    Only the `main` rank reads checkpoints through. Raises UserError when the stage has begun and `resume` is not given,
    when the spec is another one, or when a file of the run is damaged.
    """
    if not (path / "spec.yaml").exists():
        check_free(path)
        if resume:
            output.note(f"{path} does not exist yet: starting from the beginning")
        return Begin(None)
    run = RunFolder.open(path)
    if run.stage(stage).path.exists() and not resume:
        raise UserError(
            f"{path} already holds a {stage} stage",
            f"go on with it: sora-spec train {path} --stage {stage} --resume; or start another: --run {path}-2",
        )
    fresh = run.stage(stage).latest() is None
    if not main:
        return Begin(run, fresh)
    run.info()
    run.classes()
    checkpoint, damaged = find_checkpoint(run.stage(stage), (MODEL, OPTIMIZER, AVERAGE))
    states: dict[StageName, State] = {} if checkpoint is None else {stage: checkpoint.state}
    for other in STAGES:
        newest = run.stage(other).latest()
        if other != stage and newest is not None:
            examined = examine(newest, other, ())
            if isinstance(examined, Checkpoint):  # a damaged one is told of where its weights are read
                states[other] = examined.state
    changes = check_same_run(run, spec, stage, states, change)
    return Begin(run, fresh, checkpoint, tuple(damaged), tuple(changes))


def _record_run(spec: Spec, path: Path, begin: Begin, loop: Loop, held: ExitStack, change: bool) -> None:
    """Check the data, then make the run folder or bring it up to date, and note what made it."""
    dataset, source, state = loop.task.dataset, loop.settings.data, loop.state
    classes, changes = dataset.classes, list(begin.changes)
    if begin.run is not None and begin.checkpoint is not None:
        moved = check_same_data(begin.run, source, begin.checkpoint.state, state.data, state.step, change)
        changes += moved
        if begin.checkpoint.state.data != state.data:
            classes = joined_classes(begin.run, source, classes)
    run = _made(spec, path, begin, held)
    for left in (run.path, loop.folder.path, loop.folder.checkpoints_path):
        sweep(left)
    versions = {name: metadata.version(name) for name in ("sora-spec", "torch", "numpy", "av")}
    if state.step < loop.settings.steps:
        event = "changed" if changes else "started" if begin.fresh else "resumed"
        facts = {"ranks": loop.ranks.world, "versions": versions}
        append_history(run.history_path, loop.settings.stage, state.step, event, changes, facts)
        for bad in begin.damaged:
            loop.folder.set_aside(bad.path)
    if classes is not None:
        write_atomically(run.classes_path, json.dumps(classes) + "\n")
    run.record(python=platform.python_version(), versions=versions)
    write_atomically(run.spec_path, dump_spec(spec))


def _made(spec: Spec, path: Path, begin: Begin, held: ExitStack) -> RunFolder:
    """The run folder, locked; made now if there was none."""
    if begin.run is not None:
        return begin.run
    path.mkdir(parents=True, exist_ok=True)
    held.enter_context(locked(path))
    return RunFolder.create(path, dump_spec(spec))


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
) -> Rehearsal:
    """Build everything and make three steps on real clips: memory is measured in the second, time in the third.

    Nothing is written. Raises UserError for whatever `train_stage` would refuse, except that a stage which has begun is
    no hindrance.
    """
    settings = stage_settings(spec, stage)
    known = check_run(spec, path, stage, resume=path.exists(), change=change).run
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
