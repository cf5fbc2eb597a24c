"""Before the first step: whether and from where a stage may be trained in a folder, and the files that say so."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from sora_spec import output
from sora_spec.disk.atomic import sweep, write_atomically
from sora_spec.disk.checkpoints import AVERAGE, MODEL, OPTIMIZER, Checkpoint, Damaged, State, examine, find_checkpoint
from sora_spec.disk.history import Change, append_history
from sora_spec.disk.run_folder import STAGES, RunFolder, StageFolder, StageName, check_free
from sora_spec.disk.run_lock import locked
from sora_spec.errors import UserError
from sora_spec.language.loading import dump_spec
from sora_spec.language.schema.spec import Spec
from sora_spec.train.from_run import Origin
from sora_spec.train.loop import Loop
from sora_spec.train.resume import check_same_data, check_same_frozen, check_same_run, joined_classes
from sora_spec.watch.metrics import MetricsReader


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
    if fresh:
        _check_lost(run, stage)
    run.info()  # damaged, they end it here
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


def _check_lost(run: RunFolder, stage: StageName) -> None:
    """A stage without checkpoints begins anew only where it never had one: its metrics would be lost, too.

    Raises UserError.
    """
    folder, every = run.stage(stage), run.load_spec().train.checkpoint_every
    hint = f"bring the checkpoints back; to begin the stage anew, delete {folder.path}"
    for path in (folder.path, folder.checkpoints_path):
        if os.path.lexists(path) and not path.is_dir():
            raise UserError(f"{path} is no folder, and the checkpoints of the {stage} stage belong there", hint)
    reader = MetricsReader(folder.metrics_path)
    reader.read()
    logged = reader.metrics.steps[-1] if reader.metrics.steps else 0
    source, steps = folder.metrics_path, logged if logged > every else 0
    if not steps:  # metrics come seldom, and `measured.json` is renewed after every checkpoint
        source, steps = folder.measured_path, _measured_steps(folder, every)
    if steps:
        raise UserError(
            f"{folder.checkpoints_path} holds no checkpoint, but {source.name} tells of {steps} steps", hint
        )
    if folder.path.exists():
        output.note(f"{folder.path} has no checkpoint yet: starting from the beginning")


def _measured_steps(folder: StageFolder, every: int) -> int:
    """Steps that `measured.json` tells of, if there was a checkpoint of them; a damaged one tells nothing."""
    try:
        measured = json.loads(folder.measured_path.read_bytes())
        steps, finished = int(measured["step"]), measured["status"] == "finished"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return 0
    return steps if finished or steps >= every else 0


def check_data(begin: Begin, loop: Loop, change: bool) -> list[Change]:
    """All changes that are to be noted, those of the data included. Raises UserError for what is not allowed."""
    if begin.run is None or begin.checkpoint is None:
        return list(begin.changes)
    now, source = loop.state, loop.settings.data
    before = begin.checkpoint.state
    moved = check_same_data(begin.run, source, before, now, change)
    moved += check_same_frozen(begin.run, before, now, change)
    if before.data != now.data:
        joined_classes(begin.run, source, loop.task.dataset.classes)
    return [*begin.changes, *moved]


def make_run(spec: Spec, path: Path, begin: Begin, held: ExitStack) -> RunFolder:
    """The run folder, locked; made now if there was none."""
    if begin.run is not None:
        return begin.run
    path.mkdir(parents=True, exist_ok=True)
    held.enter_context(locked(path))
    return RunFolder.create(path, dump_spec(spec))


def record_run(
    run: RunFolder, spec: Spec, begin: Begin, loop: Loop, changes: Sequence[Change], origin: Origin | None
) -> None:
    """Bring the run folder up to date, after every check."""
    state, classes = loop.state, loop.task.dataset.classes
    if begin.checkpoint is not None and begin.checkpoint.state.data != state.data:
        classes = joined_classes(run, loop.settings.data, classes)
    for left in (run.path, loop.folder.path, loop.folder.checkpoints_path, loop.folder.samples_path):
        sweep(left)
    versions = {name: metadata.version(name) for name in ("sora-spec", "torch", "numpy", "av")}
    if state.step < loop.settings.own.steps:
        event = "changed" if changes else "started" if begin.fresh else "resumed"
        facts: dict[str, Any] = {"ranks": loop.ranks.world, "versions": versions}
        if origin is not None:
            origin.warn_of_classes(classes)
            facts["from"] = origin.facts()
        if begin.damaged:
            facts["damaged"] = {bad.path.name: bad.why for bad in begin.damaged}
        append_history(run.history_path, loop.settings.stage, state.step, event, changes, facts)
        for bad in begin.damaged:
            loop.folder.set_aside(bad.path)
    if classes is not None:
        write_atomically(run.classes_path, json.dumps(classes) + "\n")
    run.record(python=platform.python_version(), versions=versions)
    write_atomically(run.spec_path, dump_spec(spec))
