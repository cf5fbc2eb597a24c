"""Checkpoints: model, moving average and optimiser, in a folder that appears whole while training goes on.

One process writes safetensors, the rest is JSON. Several ranks write shards: see `sora_spec.builders.weights.shards`.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from sora_spec import output
from sora_spec.builders.weights.files import read_safetensors, shapes_of
from sora_spec.disk.checkpoints import (
    AVERAGE,
    FORMAT,
    INDEX,
    MODEL,
    OPTIMIZER,
    SHARDED,
    STATE,
    State,
    part_of,
    shards_of,
)
from sora_spec.disk.checksums import sums_of, write_checksums
from sora_spec.disk.run_folder import StageFolder
from sora_spec.errors import UserError
from sora_spec.train.ema import MovingAverage
from sora_spec.train.optimizer import begin_state, optimizer_tensors
from sora_spec.train.ranks import Ranks
from sora_spec.train.shards import assign, on_host, whole


@dataclass
class Trained:
    """The three things that a step changes."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    average: MovingAverage | None


class CheckpointWriter:
    """Writes checkpoints while training goes on: values are copied at once, and a thread of its own writes the copy.

    Several ranks each write their own shards and agree on a process group of their own; on that of training, messages
    of both would mix. A checkpoint appears when all are done. Every rank makes a writer and uses it at the same steps.
    """

    def __init__(self, folder: StageFolder, ranks: Ranks, keep: int) -> None:
        self.folder, self.ranks, self.keep = folder, ranks, keep
        self.failed = False
        """Whether a checkpoint could not be written, which `wait` raises."""
        self._group = cast("dist.ProcessGroup", dist.new_group(backend="gloo")) if ranks.world > 1 else None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._first = True

    def save(self, trained: Trained, state: State) -> None:
        """Begin to write the checkpoint after `state.step` updates, when the one before is written.

        The first of a process is waited for: a stage that tells of more steps than `checkpoint_every` then has one.
        Raises what the one before could not be written for.
        """
        self.wait()
        hold = whole if self._group is None else on_host
        parts = {
            name: {key: hold(tensor) for key, tensor in tensors.items()} for name, tensors in _parts(trained).items()
        }
        form = FORMAT if self._group is None else SHARDED
        written = replace(state, format=form, average=AVERAGE in parts)
        arguments = (state.step, parts, json.dumps(asdict(written), indent=2) + "\n")
        self._thread = threading.Thread(target=self._run, args=arguments, name="checkpoint")
        self._thread.start()
        if self._first:
            self.wait()
        self._first = False

    def settle(self) -> None:
        """Wait until nothing is being written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def wait(self) -> None:
        """As `settle`, and raise what a checkpoint could not be written for."""
        self.settle()
        if self._error is not None:
            raise self._error

    def _run(self, step: int, parts: Mapping[str, dict[str, Tensor]], state: str) -> None:
        try:
            if self._group is None:
                self._write(step, parts, state)
            else:
                self._write_shards(step, parts, state, self._group)
        except BaseException as error:  # it is raised where training waits for it
            self._error, self.failed = error, True

    def _write(self, step: int, parts: Mapping[str, dict[str, Tensor]], state: str) -> None:
        with self.folder.writing_checkpoint(step) as path, _plain_faults(path):
            for name, tensors in parts.items():
                save_file(tensors, path / name)
            (path / STATE).write_text(state)
            write_checksums(path)
        self.folder.prune(self.keep)

    def _write_shards(
        self, step: int, parts: Mapping[str, dict[str, Tensor]], state: str, group: dist.ProcessGroup
    ) -> None:
        from sora_spec.builders.weights.shards import write_shards  # it imports what only several ranks need

        with ExitStack() as stack:  # of the first rank; left with an error, the temporary folder goes
            path = self._agreed(lambda: stack.enter_context(self.folder.writing_checkpoint(step)), main=True)[0]
            for name, tensors in parts.items():
                write_shards(shards_of(path, name), tensors, group)
            sums = self._agreed(lambda: sums_of(path, f"*/__{self.ranks.rank}_*"))

            def complete() -> None:
                (path / STATE).write_text(state)
                rest = sums_of(path, f"*/{INDEX}") | sums_of(path, STATE)
                write_checksums(path, {name: digest for found in (*sums, rest) for name, digest in found.items()})
                stack.close()
                self.folder.prune(self.keep)

            self._agreed(complete, main=True)

    def _agreed(self, action: Callable[[], Any], main: bool = False) -> list[Any]:
        """What `action` gives on every rank, or on the `main` one; what it raises on any is raised on all."""
        mine: tuple[Any, Exception | None] = (None, None)
        try:
            if self.ranks.is_main or not main:
                mine = (action(), None)
        except Exception as error:  # the others would wait for ever
            mine = (None, error)
        given: list[tuple[Any, Exception | None]] = [mine] * self.ranks.world
        dist.all_gather_object(given, mine, group=self._group)
        for _, error in given:
            if error is not None:
                raise error
        return [value for value, _ in given]


def _parts(trained: Trained) -> dict[str, dict[str, Tensor]]:
    """What a checkpoint holds, by part."""
    parts = {MODEL: trained.module.state_dict(), OPTIMIZER: optimizer_tensors(trained.optimizer, trained.module)}
    return parts if trained.average is None else parts | {AVERAGE: trained.average.average}


@contextmanager
def _plain_faults(path: Path) -> Generator[None]:
    """safetensors tells of a full disk in an error of its own; it becomes the OSError that it is."""
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def load_checkpoint(checkpoint: Path, trained: Trained, step: int) -> None:
    """Put the checkpoint after `step` updates back into module, optimiser and average, whatever ranks wrote it.

    An average that the checkpoint does not have, as after `--change train.ema=…`, begins with its weights. Raises
    UserError when it does not fit.
    """
    model, moments, average = (part_of(checkpoint, name) for name in (MODEL, OPTIMIZER, AVERAGE))
    _load_into(trained.module.state_dict(), model)
    begin_state(trained.optimizer, trained.module, step, shapes_of(moments))
    _load_into(optimizer_tensors(trained.optimizer, trained.module), moments)
    if trained.average is None:
        return
    if not average.exists():
        output.note(f"{checkpoint} has no moving average: it begins with the weights of step {step}")
    _load_into(trained.average.average, average if average.exists() else model)


def _load_into(live: dict[str, Tensor], part: Path) -> None:
    saved = shapes_of(part)
    if saved.keys() != live.keys():
        odd = sorted(saved.keys() ^ live.keys())
        raise UserError(f"{part} does not fit the spec: {len(odd)} tensors differ, the first is {odd[0]}")
    for name, tensor in live.items():
        if saved[name] != tensor.shape:
            raise UserError(f"{part}: {name} is {saved[name]}, the spec makes it {tuple(tensor.shape)}")
    if part.is_dir():
        from sora_spec.builders.weights.shards import fill_from_shards

        fill_from_shards(part, live)
        return
    for name, tensor in read_safetensors(part).items():
        assign(live[name], tensor)
