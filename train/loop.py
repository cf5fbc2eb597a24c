"""The loop: steps, lines of metrics, sample grids, checkpoints, and stopping at any moment without losing anything."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from sora_spec import output
from sora_spec.disk.checkpoints import State, read_state
from sora_spec.disk.run_folder import RunFolder, StageFolder
from sora_spec.errors import UserError
from sora_spec.os_errors import refusal
from sora_spec.train.batch import Batch
from sora_spec.train.checkpoint import CheckpointWriter, load_checkpoint
from sora_spec.train.data.loader import load_batches
from sora_spec.train.data.order import BatchOrder
from sora_spec.train.interrupt import StopRequest
from sora_spec.train.launched import HostCopy, Launched, NotFiniteError, StepResult
from sora_spec.train.measuring import Measurement
from sora_spec.train.metrics import MetricsLog
from sora_spec.train.preflight import Preflight, write_plan
from sora_spec.train.ranks import Ranks
from sora_spec.train.task import Task
from sora_spec.train.trainer import Trainer

_NOTE_SECONDS = 30.0  # between lines of progress where there is no terminal for a bar


@dataclass(frozen=True)
class Outcome:
    """How a stage ended."""

    status: Literal["finished", "interrupted", "already finished"]
    step: int
    loss: float | None
    """That of the last line of metrics; None when none was written."""
    seconds: float


@dataclass(frozen=True)
class _Flight:
    """A step, counted from 0, whose numbers are on their way."""

    step: int
    launched: Launched
    copy: HostCopy


class Loop:
    """Runs one task from a checkpoint, or from the start, to its last step.

    `spec`: its values, as every checkpoint keeps them.
    """

    def __init__(self, task: Task, folder: StageFolder, ranks: Ranks, found: Preflight, spec: dict[str, Any]) -> None:
        self.task, self.folder, self.ranks, self.settings = task, folder, ranks, task.settings
        self.found = found
        self.trainer = Trainer(task, ranks)
        self.writer = CheckpointWriter(folder, ranks, self.settings.train.keep)
        self.state = State(0, self.settings.stage, task.dataset.fingerprint(), clips=0, spec=spec)
        self.state.sizes, self.state.vae, self.state.text = task.dataset.sizes(), task.vae_digest, task.text_digest
        self._place: tuple[int, int] | None = None
        self.log: MetricsLog | None = None
        self.measurement: Measurement | None = None
        self.last_loss: float | None = None
        self._behind = 1 if ranks.device.type == "cuda" else 0
        """Steps that the device may still be at work on while it is given the next: its queue never runs dry."""

    def load(self, checkpoint: Path, clips: int) -> None:
        """Begin at a checkpoint that was found whole; nothing is written. `clips`: seen by then.

        Raises UserError when it does not fit.
        """
        saved = read_state(checkpoint)
        load_checkpoint(checkpoint, self.trainer.trained, saved.step)
        state = self.state
        state.step, state.window, state.window_steps, state.clips = saved.step, saved.window, saved.window_steps, clips
        state.measured = saved.measured if saved.step >= self.settings.own.steps else None

    def run(self) -> Outcome:
        """Train. Raises UserError when the loss is no longer a finite number, or a disk fails."""
        begin, first = time.perf_counter(), self.state.step
        done = first >= self.settings.own.steps
        if done and self.state.measured is not False:
            return Outcome("already finished", first, None, 0.0)
        try:
            stopped = self._measure_again() if done else self._train(first)
        except (OSError, RuntimeError, MemoryError) as error:
            if self._place is not None:
                self._check_place()
            refused = refusal(error, f"training stopped at step {self._kept()}")
            if refused is None:
                raise
            raise refused from error
        return Outcome(
            "interrupted" if stopped else "finished", self.state.step, self.last_loss, time.perf_counter() - begin
        )

    def _train(self, first: int) -> bool:
        order = self.trainer.order(first)
        batches = load_batches(self.task.dataset, order, self.settings.train.workers)
        self.measurement = Measurement(self.trainer, self.found, self.settings.own.steps - first)
        if self.ranks.is_main:
            self.log = MetricsLog(self.folder, first)
            write_plan(self.folder, self.found)
            if self.task.dataset.report is not None:
                self.task.dataset.report.write(self.folder.data_path)
            self._place = self._where()
        try:
            with StopRequest() as stop:
                stopped = self._steps(stop, batches, order)
                self.writer.wait()
        finally:
            self.writer.settle()
            if self.log is not None:
                self.log.close()
        self._tell("interrupted" if stopped else "finished")
        return stopped

    def _measure_again(self) -> bool:
        """Go on with a measurement after the last step that was interrupted; True when asked to stop again."""
        if self.ranks.is_main:
            self._place = self._where()
        with StopRequest() as stop:
            stopped = self._finish(stop)
            self.writer.wait()
        return stopped

    def _kept(self) -> str:
        """The step, and what is left of it on disk."""
        self.writer.settle()
        newest = self.folder.latest()
        kept = f"the last checkpoint is {newest}" if newest else "there is no checkpoint yet"
        return f"{self.state.step}; {kept}"

    def _where(self) -> tuple[int, int] | None:
        """Identity of the stage's folder while it is part of a run."""
        try:
            facts = self.folder.path.stat()
        except OSError:
            return None
        run = RunFolder(self.folder.path.parent)
        return (facts.st_dev, facts.st_ino) if run.spec_path.exists() else None

    def _check_place(self) -> None:
        """Raise UserError when the run folder went away: what is written would make a folder that is no run."""
        if self.ranks.is_main and self._where() != self._place:
            raise UserError(
                f"{self.folder.path.parent} was deleted or moved while training; "
                f"training stopped at step {self.state.step}, and what was not yet saved is lost",
                "bring the folder back and go on with --resume, or start again",
                exit_code=1,
            )

    def _steps(self, stop: StopRequest, batches: Iterator[Batch], order: BatchOrder) -> bool:
        """Make the remaining steps; True when asked to stop before the last one."""
        settings, first = self.settings, self.state.step
        label = f"training the {settings.stage}, steps {first + 1} to {settings.own.steps}"
        noted = time.perf_counter()
        with output.progress(label, settings.own.steps - first) as advance:
            flying, stopping = deque[_Flight](), False
            for step in range(first, settings.own.steps):
                flying.append(self._launch(step, batches, order, stop))
                while len(flying) > (0 if stopping or self._is_due(step + 1) else self._behind):
                    loss, asked = self._land(flying.popleft())
                    stopping = stopping or asked
                    advance(1)
                    advance.describe(f"loss {loss:.4f}")
                    if not sys.stderr.isatty() and time.perf_counter() - noted > _NOTE_SECONDS:
                        noted = time.perf_counter()
                        output.note(f"step {self.state.step} of {settings.own.steps}, loss {loss:.4f}")
                if self._after(step + 1, stop, stopping):
                    return True
        return False

    def _launch(self, step: int, batches: Iterator[Batch], order: BatchOrder, stop: StopRequest) -> _Flight:
        """Give the device a step, and send its numbers home with word of whether a rank is asked to stop."""
        make = partial(self.trainer.step, step, batches, order)
        launched = make() if self.measurement is None else self.measurement.step(step + 1, make)
        asked = self.ranks.mean_of(float(stop.requested or self.writer.failed))
        return _Flight(step, launched, HostCopy(torch.cat([launched.values, asked])))

    def _land(self, flight: _Flight) -> tuple[float, bool]:
        """Take in a step that has ended: its loss, and whether a rank was asked to stop by then."""
        *values, asked = flight.copy.read()
        step = flight.step
        try:
            result = flight.launched.result(values)
        except NotFiniteError as error:
            self.writer.settle()
            newest = self.folder.latest()
            kept = f"the last good checkpoint is {newest}" if newest else "there is no checkpoint yet"
            raise UserError(
                f"training stopped at step {step + 1}: {error}; {kept}",
                "try a lower learning rate, a longer warmup, clip_grad=1.0, or precision fp32",
                exit_code=1,
            ) from None
        self.state.step = step + 1
        self.state.clips = (self.state.clips or 0) + self.settings.own.batch
        if self.measurement is not None:
            self.measurement.note(result)
        self._record(result)
        return result.terms["loss"], asked > 0

    def _tell(self, status: str) -> None:
        """Renew what is known of memory and time."""
        if self.measurement is not None and self.ranks.is_main:
            self.measurement.write(self.folder, status, self.state.step)

    def _record(self, result: StepResult) -> None:
        """Add a step to the window, and write a line when it is full: means since the last line."""
        state, window = self.state, self.state.window
        values = result.terms | {
            "grad_norm": result.grad_norm,
            "step_seconds": result.seconds,
            "data_seconds": result.data_seconds,
        }
        for name, value in values.items():
            window[name] = window.get(name, 0.0) + value
        state.window_steps += 1
        if state.step != 1 and state.step % self.settings.train.log_every:
            return
        means = {name: value / state.window_steps for name, value in window.items()}
        self.last_loss = means["loss"]
        if self.log is not None:
            self._check_place()
            self.log.write({"step": state.step, **means, "lr": result.lr, "clips": state.clips})
        state.window, state.window_steps = {}, 0

    def _is_due(self, step: int) -> bool:
        """Whether something is made of the weights after `step`: all is then to be known of the steps up to it."""
        train = self.settings.train
        every = (self.settings.own.steps, train.checkpoint_every, train.sample_every)
        return any(number and step % number == 0 for number in every)

    def _after(self, step: int, stop: StopRequest, stopping: bool) -> bool:
        """Sample, measure and save as `step` demands; True when the run is to stop here."""
        settings, last = self.settings, step == self.settings.own.steps
        if settings.train.sample_every and step % settings.train.sample_every == 0 and not stopping:
            self._check_place()
            self._with_average(self._show)
        if last:
            return self._finish(stop)
        if stopping or step % settings.train.checkpoint_every == 0:
            self._save()
        elif self.measurement is not None and self.measurement.settled:
            self._tell("running")
        return stopping

    def _finish(self, stop: StopRequest) -> bool:
        """Save the last step, measure what is measured of it, and save that; True when asked to stop before."""
        if not self.task.measures:
            self._save()
            return False
        self.state.measured = False
        self._save()
        self._with_average(lambda: self._measure(stop))
        if not self.state.measured:
            return True
        if self.trainer.trained.average is not None:
            self.trainer.trained.average.copy_buffers()
        self._save()
        return False

    def _measure(self, stop: StopRequest) -> None:
        self.state.measured = self.task.finish(
            self.folder.latents_path, self.state.step, lambda: self.ranks.any(stop.requested)
        )

    def _save(self) -> None:
        self._check_place()
        self.writer.save(self.trainer.trained, self.state)
        self._tell("running")

    def _show(self) -> None:
        self.task.show(self.folder.samples_path / f"step-{self.state.step:08d}")

    def _with_average(self, action: Callable[[], None]) -> None:
        """Do `action` with the averaged weights in place."""
        average = self.trainer.trained.average
        if average is None:
            action()
            return
        with average.in_place():
            action()
