"""Checkpoints: model, moving average and optimiser as safetensors, the rest as JSON, in a folder that appears whole."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sora_spec import output
from sora_spec.disk.checkpoints import AVERAGE, FORMAT, MODEL, OPTIMIZER, STATE, State
from sora_spec.disk.checksums import write_checksums
from sora_spec.disk.run_folder import StageFolder
from sora_spec.errors import UserError
from sora_spec.train.ema import MovingAverage
from sora_spec.train.optimizer import load_optimizer, optimizer_tensors
from sora_spec.train.ranks import Ranks
from sora_spec.train.shards import assign, whole


@dataclass
class Trained:
    """The three things that a step changes."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    average: MovingAverage | None


def save_checkpoint(folder: StageFolder, trained: Trained, state: State, ranks: Ranks, keep: int) -> None:
    """Write the checkpoint after `state.step` updates and delete old ones. Every rank must call it."""
    model = {name: whole(tensor) for name, tensor in trained.module.state_dict().items()}
    moments = optimizer_tensors(trained.optimizer, trained.module)
    average = {name: whole(tensor) for name, tensor in trained.average.average.items()} if trained.average else None
    if ranks.is_main:
        with folder.writing_checkpoint(state.step) as path, _plain_faults(path):
            save_file(model, path / MODEL)
            save_file(moments, path / OPTIMIZER)
            if average is not None:
                save_file(average, path / AVERAGE)
            written = replace(state, format=FORMAT, average=average is not None)
            (path / STATE).write_text(json.dumps(asdict(written), indent=2) + "\n")
            write_checksums(path)
        folder.prune(keep)
    ranks.wait()


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
    """Put the checkpoint after `step` updates back into module, optimiser and average.

    An average that the checkpoint does not have, as after `--change train.ema=…`, begins with its weights. Raises
    UserError when it does not fit.
    """
    _load_into(trained.module.state_dict(), checkpoint / MODEL)
    load_optimizer(trained.optimizer, trained.module, _read(checkpoint / OPTIMIZER), step)
    if trained.average is None:
        return
    if (checkpoint / AVERAGE).exists():
        _load_into(trained.average.average, checkpoint / AVERAGE)
    else:
        output.note(f"{checkpoint} has no moving average: it begins with the weights of step {step}")
        _load_into(trained.average.average, checkpoint / MODEL)


def _load_into(live: dict[str, Tensor], file: Path) -> None:
    saved = _read(file)
    if saved.keys() != live.keys():
        odd = sorted(saved.keys() ^ live.keys())
        raise UserError(f"{file} does not fit the spec: {len(odd)} tensors differ, the first is {odd[0]}")
    for name, tensor in live.items():
        if saved[name].shape != tensor.shape:
            raise UserError(f"{file}: {name} is {tuple(saved[name].shape)}, the spec makes it {tuple(tensor.shape)}")
        assign(tensor, saved[name])


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} cannot be read: {error}", "bring it back from a copy") from error
