"""The state of a training run as its files tell it: what it does, how far it is, and what was predicted."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any, Literal, cast

from sora_spec.characters import visible_name
from sora_spec.disk.run_folder import STAGES, RunFolder, StageFolder, StageName, step_of
from sora_spec.disk.run_lock import ended_without_word
from sora_spec.language.facts import is_trainable
from sora_spec.watch.metrics import Curve, Metrics, MetricsReader
from sora_spec.watch.prediction import Compared, capacity_bytes, compare_with_plan

Status = Literal["starting", "running", "finished", "stopped"]
POINTS = 400
"""Stretches of a curve: twice as many points as the widest plot has columns of dots."""
SMOOTHING = 0.9
_PATIENCE = 60.0
"""Seconds without a sign of life after which a run counts as stopped, if its lines do not take longer."""
_LONG_WORK = 1800.0
"""The same while a sample grid or a checkpoint is due, and before the first line."""
_LAST_WORDS = 5.0
"""Seconds between the last checkpoint and the note that training was interrupted."""
_LINES_OF_PATIENCE = 20
_LINES_OF_RATE = 25
_CURVES = ("loss", "lr", "grad_norm", "step_seconds", "data_seconds")


@dataclass(frozen=True)
class Schedule:
    """What the spec of a run says about one stage."""

    steps: int | None = None
    log_every: int = 1
    sample_every: int | None = None
    checkpoint_every: int | None = None
    frame_height: int = 0
    """Pixels of one frame of a sample grid; 0 where the spec cannot be read."""
    frame_width: int = 0


@dataclass(frozen=True)
class StageState:
    """One stage at one moment."""

    name: StageName
    status: Status
    why: str
    schedule: Schedule
    step: int
    latest: Mapping[str, float]
    """Fields of the last line."""
    curves: Mapping[str, Curve]
    seconds_per_step: float | None
    """Median of the last lines, waiting for data included."""
    eta_seconds: float | None
    """Steps left at that rate. Sample grids and checkpoints are not counted."""
    checkpoints: tuple[int, ...]
    samples: tuple[Path, ...]
    """Sample grids, oldest first."""
    skipped: int
    """Lines of metrics that could not be read."""
    touched: float
    """Time of the last sign of life, in seconds since the epoch."""
    compared: tuple[Compared, ...]
    """Predicted and real."""
    device: str
    """What it runs on, as training wrote it; empty where it has not."""
    capacity_bytes: float | None
    """Memory of that device, as the plan knew it."""


@dataclass(frozen=True)
class RunState:
    """A run folder at one moment."""

    path: Path
    name: str
    stages: tuple[StageState, ...]
    problem: str = ""
    """Why the folder's spec cannot be read, if it cannot."""

    @property
    def current(self) -> StageState | None:
        """The stage that was worked on last."""
        return max(self.stages, key=lambda stage: stage.touched, default=None)


def find_runs(paths: Iterable[Path]) -> list[Path]:
    """Run folders among `paths` and right below them, the one touched last first. What cannot be read is left out."""
    found: dict[Path, float] = {}
    for path in paths:
        for candidate in (path, *_folders(path)):
            if RunFolder.is_run(candidate):
                found[candidate] = max(_touched(candidate), *(_life(candidate / stage) for stage in STAGES))
    return sorted(found, key=lambda path: -found[path])


def _folders(path: Path) -> list[Path]:
    try:
        return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))
    except OSError:
        return []


@dataclass
class RunWatch:
    """Follows one run folder; `look` costs what was added since the last look."""

    path: Path
    _readers: dict[StageName, MetricsReader] = field(default_factory=dict)
    _curves: dict[StageName, Mapping[str, Curve]] = field(default_factory=dict)
    _spec: tuple[float, Any, str] = (-1.0, None, "")

    def look(self, now: float | None = None) -> RunState:
        now = time.time() if now is None else now
        run = RunFolder(self.path)
        spec, problem = self._read_spec(run.spec_path)
        stages = [self._stage(run.stage(name), name, spec, now) for name in STAGES if run.stage(name).path.is_dir()]
        name = visible_name(self.path.name) if spec is None else str(spec.name)
        return RunState(self.path, name, tuple(stages), problem)

    def _read_spec(self, path: Path) -> tuple[Any, str]:
        """Values of the spec, read again when the file changes, and what is wrong with it."""
        stamp = _touched(path)
        if stamp != self._spec[0]:
            self._spec = (stamp, *_spec_of(path))
        return self._spec[1], self._spec[2]

    def _stage(self, folder: StageFolder, name: StageName, spec: Any, now: float) -> StageState:
        reader = self._readers.setdefault(name, MetricsReader(folder.metrics_path))
        if reader.read() or name not in self._curves:
            curves = {field: reader.metrics.curve(field, POINTS, SMOOTHING) for field in _CURVES}
            self._curves[name] = MappingProxyType(curves)
        metrics, schedule = reader.metrics, _schedule(spec, name)
        checkpoints = tuple(step_of(path) for path in folder.checkpoints())
        samples = tuple(_pngs(folder.samples_path))
        step = max([*metrics.steps[-1:], *checkpoints[-1:]], default=0)
        rate = median(metrics.recent("step_seconds", _LINES_OF_RATE) or [0.0]) or None
        touched = _life(folder.path)
        planned, measured = _json(folder.plan_path), _json(folder.measured_path)
        status, why = _judge(schedule, step, checkpoints, samples, rate, now - touched)
        ended = _touched(folder.measured_path) > touched - _LAST_WORDS  # an older note is of a run that was resumed
        if status in ("running", "starting") and ended and _interrupted(measured, step):
            status, why = "stopped", f"interrupted at step {step:,}; {_kept(checkpoints)}"
        if status in ("running", "starting") and (ending := ended_without_word(folder.path.parent)):
            status, why = "stopped", f"{ending} at step {step:,}; {_kept(checkpoints)}"
        left = None if schedule.steps is None or rate is None else max(0, schedule.steps - step) * rate
        return StageState(
            name=name,
            status=status,
            why=why,
            schedule=schedule,
            step=step,
            latest=metrics.latest(),
            curves=self._curves[name],
            seconds_per_step=rate,
            eta_seconds=0.0 if status == "finished" else left,
            checkpoints=checkpoints,
            samples=samples,
            skipped=metrics.skipped,
            touched=touched,
            compared=compare_with_plan(planned, measured, _computing(metrics)),
            device=str(measured.get("device", "")),
            capacity_bytes=capacity_bytes(planned),
        )


def _computing(metrics: Metrics) -> float | None:
    """Median of a step without the wait for data over the last lines."""
    steps, waits = (metrics.recent(name, _LINES_OF_RATE) for name in ("step_seconds", "data_seconds"))
    if not steps or len(steps) != len(waits):
        return None
    return median(step - wait for step, wait in zip(steps, waits, strict=True))


def _interrupted(measured: Mapping[str, Any], step: int) -> bool:
    return measured.get("status") == "interrupted" and measured.get("step") == step


def _kept(checkpoints: tuple[int, ...]) -> str:
    return f"the checkpoint of step {checkpoints[-1]:,} is kept" if checkpoints else "there is no checkpoint"


def _spec_of(path: Path) -> tuple[Any, str]:
    from sora_spec.language.loading import check
    from sora_spec.language.source import load_document

    checked = check(load_document(path))
    if checked.ok:
        return checked.values, ""
    errors = [diagnostic for diagnostic in checked.diagnostics if diagnostic.severity == "error"]
    return None, errors[0].message if errors else "its spec cannot be read"


def _schedule(spec: Any, name: StageName) -> Schedule:
    if spec is None:
        return Schedule()
    train, height, width = spec.train, spec.clip.height, spec.clip.width
    steps = train.steps
    if name == "vae":
        if not is_trainable(spec.vae):
            return Schedule()
        steps = spec.vae.training.steps
        crop = spec.vae.training.crop
        height, width = (height, width) if crop is None else (crop, crop)
    return Schedule(steps, train.log_every, train.sample_every, train.checkpoint_every, height, width)


def _judge(
    schedule: Schedule,
    step: int,
    checkpoints: tuple[int, ...],
    samples: tuple[Path, ...],
    rate: float | None,
    silence: float,
) -> tuple[Status, str]:
    """What the stage does, and how one can tell: from its checkpoints and from how long nothing was written."""
    steps, saved = schedule.steps, checkpoints[-1] if checkpoints else 0
    if steps is not None and saved >= steps:
        return "finished", f"all {steps:,} steps are done and saved"
    if step == 0:
        if silence < _LONG_WORK:
            return "starting", "no line of metrics yet"
        return "stopped", f"nothing was written for {_ago(silence)}, and there is no line of metrics"
    due = _due(schedule, step, saved, samples)
    usual = (rate or 0.0) * schedule.log_every
    patience = max(_PATIENCE, _LINES_OF_PATIENCE * usual, _LONG_WORK if due else 0.0)
    if silence < patience:
        return "running", f"working on {due}" if due and silence > 2 * usual else f"last written {_ago(silence)} ago"
    return "stopped", f"nothing was written for {_ago(silence)}; {_kept(checkpoints)}"


def _due(schedule: Schedule, step: int, saved: int, samples: tuple[Path, ...]) -> str:
    """What the loop makes after this step and has not made yet."""
    every = schedule.sample_every
    if every and step % every == 0 and not any(path.stem == f"step-{step:08d}" for path in samples):
        return f"the sample grid of step {step:,}"
    last = step == schedule.steps
    if saved < step and (last or (schedule.checkpoint_every and step % schedule.checkpoint_every == 0)):
        return f"the checkpoint of step {step:,}"
    return ""


def _ago(seconds: float) -> str:
    from sora_spec.plan.amounts import duration

    return duration(round(max(1.0, seconds)))


def _life(folder: Path) -> float:
    """When a stage last wrote anything: lines, pictures, a checkpoint or a part of one."""
    stage = StageFolder(folder)
    watched = [folder, stage.plan_path, stage.metrics_path, stage.samples_path, stage.checkpoints_path]
    parts = [*_children(stage.samples_path), *_children(stage.checkpoints_path)]
    unfinished = [file for part in parts if part.name.startswith(".") for file in _children(part)]
    return max(_touched(path) for path in [*watched, *parts, *unfinished])


def _children(path: Path) -> list[Path]:
    try:
        return list(path.iterdir())
    except OSError:
        return []


def _touched(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _pngs(path: Path) -> list[Path]:
    return sorted(child for child in _children(path) if child.suffix == ".png" and not child.name.startswith("."))


def _json(path: Path) -> Mapping[str, Any]:
    """A JSON object of a file; empty where there is none, or where it is not whole."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return MappingProxyType({})
    return MappingProxyType(cast("dict[str, Any]", found) if isinstance(found, dict) else {})
