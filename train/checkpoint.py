"""Checkpoints: model, moving average and optimiser as safetensors, the rest as JSON, in a folder that appears whole."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sora_spec.errors import UserError
from sora_spec.run_folder import StageFolder
from sora_spec.train.ema import MovingAverage
from sora_spec.train.optimizer import load_optimizer, optimizer_tensors
from sora_spec.train.ranks import Ranks
from sora_spec.train.shards import assign, whole


@dataclass
class State:
    """What a checkpoint knows beside tensors."""

    step: int
    """Updates done."""
    stage: str
    data: str
    """Fingerprint of the data set."""
    window: dict[str, float] = field(default_factory=dict)
    """Sums over the steps since the last line of metrics."""
    window_steps: int = 0


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
        with folder.writing_checkpoint(state.step) as path:
            save_file(model, path / "model.safetensors")
            save_file(moments, path / "optimizer.safetensors")
            if average is not None:
                save_file(average, path / "ema.safetensors")
            (path / "state.json").write_text(json.dumps(asdict(state), indent=2) + "\n")
        folder.prune(keep)
    ranks.wait()


def read_state(checkpoint: Path) -> State:
    """`state.json` of a checkpoint."""
    try:
        return State(**json.loads((checkpoint / "state.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{checkpoint}/state.json cannot be read: {error}", _go_back(checkpoint)) from error


def load_checkpoint(checkpoint: Path, trained: Trained) -> State:
    """Put a checkpoint back into module, optimiser and average. Raises UserError when it does not fit or is damaged."""
    state = read_state(checkpoint)
    _load_into(trained.module.state_dict(), checkpoint / "model.safetensors")
    load_optimizer(trained.optimizer, trained.module, _read(checkpoint / "optimizer.safetensors"), state.step)
    if trained.average is not None:
        _load_into(trained.average.average, checkpoint / "ema.safetensors")
    return state


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
        raise UserError(f"{file} cannot be read: {error}", _go_back(file.parent)) from error


def _go_back(checkpoint: Path) -> str:
    return f"delete {checkpoint} to go on from the checkpoint before it"
