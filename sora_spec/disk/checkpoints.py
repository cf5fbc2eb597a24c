"""Which checkpoint of a stage can be used, and what a checkpoint knows beside tensors. Torch-free.

```
step-00001000/
  model.safetensors, ema.safetensors, optimizer.safetensors
  state.json            see `State`
  checksums.sha256      SHA-256 of each of them
```

Several ranks write each part in shards, as `torch.distributed.checkpoint` does: `model/__RANK_0.distcp` and an index,
`model/.metadata`, and so for `ema/` and `optimizer/`.

Whoever reads a checkpoint compares what it reads with the checksums first. A damaged one gives way to the one before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, cast

from sora_spec import output
from sora_spec.disk.checksums import damage_of_files, damage_of_safetensors
from sora_spec.disk.run_folder import RunFolder, StageFolder, StageName, step_of
from sora_spec.errors import UserError
from sora_spec.language.facts import vae_facts

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec

FORMAT, SHARDED = 2, 3
"""Of checkpoints in files, and in folders of shards: with checksums, the spec and the number of clips. 1 had none."""
INDEX = ".metadata"
"""Of a folder of shards."""
MODEL, AVERAGE, OPTIMIZER, STATE = "model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json"


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
    format: int = 1
    clips: int | None = None
    """Clips seen; None where the batch was the same from the first step on."""
    average: bool | None = None
    """Whether a moving average was kept; None where format 1 does not say."""
    spec: dict[str, Any] | None = None
    """The spec of the steps that led here."""
    sizes: str | None = None
    """Digest of the bytes that each file of the data set has."""
    vae: str | None = None
    """Digest of the VAE whose latents the denoiser learns; None without one, and where format 1 does not say."""
    text: str | None = None
    """Digest of the text encoder whose features steer the denoiser, as `vae`."""
    measured: bool | None = None
    """Whether the VAE's latents are measured; None before the last step, where nothing is, and in old checkpoints."""


@dataclass(frozen=True)
class Checkpoint:
    """One whose files are as they were written."""

    path: Path
    state: State

    @property
    def step(self) -> int:
        return self.state.step


@dataclass(frozen=True)
class Damaged:
    """One that cannot be used."""

    path: Path
    why: str


def find_checkpoint(folder: StageFolder, names: Sequence[str]) -> tuple[Checkpoint | None, list[Damaged]]:
    """The newest checkpoint whose `state.json` and files `names` are whole, and the damaged ones that are newer.

    A warning names each damaged one and what is taken in its place. Raises UserError when all are damaged; gives None
    where there is none at all.
    """
    damaged: list[Damaged] = []
    for path in reversed(folder.checkpoints()):
        found = examine(path, folder.path.name, names)
        if isinstance(found, Damaged):
            damaged.append(found)
            continue
        for bad in damaged:
            output.warn(f"{bad.path} is damaged ({bad.why}); {path} is taken in its place")
        return found, damaged
    if damaged:
        listing = "\n".join(f"  {bad.path.name}: {bad.why}" for bad in damaged)
        raise UserError(
            f"no checkpoint of {folder.path} can be used:\n{listing}",
            f"bring one back from a copy; to begin the stage anew, delete {folder.path}",
        )
    return None, []


def whole_checkpoint(folder: StageFolder, names: Sequence[str], step: int | None) -> Checkpoint:
    """The checkpoint after `step` updates, or the newest whole one. Raises UserError where it is damaged or missing."""
    if step is None:
        found = find_checkpoint(folder, names)[0]
        if found is None:
            raise UserError(f"{folder.path} has no checkpoint yet", "sora-spec train writes them")
        return found
    path = folder.checkpoint_path(step)
    if not path.is_dir():
        there = ", ".join(str(step_of(other)) for other in folder.checkpoints()) or "none"
        raise UserError(f"{folder.path} has no checkpoint of step {step}", f"it has those of steps: {there}")
    examined = examine(path, folder.path.name, names)
    if isinstance(examined, Damaged):
        raise UserError(f"{path} is damaged: {examined.why}", "name another step, or bring it back from a copy")
    return examined


def examine(path: Path, stage: str | None, names: Sequence[str]) -> Checkpoint | Damaged:
    """Compare files of one checkpoint with its checksums. `names` may list an average that the run does not keep.

    `stage`: whose checkpoint it must be, at its place in a run; None for a copy of one, wherever it lies.
    """
    try:
        state = read_state(path)
    except ValueError as error:
        return Damaged(path, str(error))
    if stage is not None and (state.step != step_of(path) or state.stage != stage):
        return Damaged(path, f"{STATE} is of step {state.step} of the {state.stage} stage")
    if state.format < FORMAT:
        return _examine_old(path, state, names)
    kept = [name for name in names if name != AVERAGE or state.average]
    if state.format == SHARDED:
        kept = [f"{shards_of(path, name).name}/" for name in kept]
    damage = damage_of_files(path, [STATE, *kept])
    return Checkpoint(path, state) if damage is None else Damaged(path, damage)


def _examine_old(path: Path, state: State, names: Sequence[str]) -> Checkpoint | Damaged:
    """Without checksums only the form of the files can be looked at."""
    kept = [name for name in names if name != AVERAGE or (path / name).exists()]
    damage = next((text for name in kept if (text := damage_of_safetensors(path / name))), None)
    if damage is not None:
        return Damaged(path, damage)
    output.note(f"{path} has no checksums, as an earlier version wrote it: damage inside its files cannot be seen")
    return Checkpoint(path, state)


def shards_of(path: Path, name: str) -> Path:
    """The folder of a part's shards, where several ranks wrote the checkpoint."""
    return path / name.removesuffix(".safetensors")


def part_of(path: Path, name: str) -> Path:
    """Where a part of a checkpoint lies: its file, or the folder of its shards."""
    sharded = any(shards_of(path, other).is_dir() for other in (MODEL, AVERAGE, OPTIMIZER))
    return shards_of(path, name) if sharded else path / name


def read_state(path: Path) -> State:
    """`state.json` of a checkpoint. Raises ValueError when it is missing or damaged."""
    try:
        values: Any = json.loads((path / STATE).read_bytes())
        if values.get("format", 1) > SHARDED:
            raise ValueError(f"{STATE} is of a later version of sora-spec")
        if "codec" in values:  # its name in checkpoints of earlier versions
            values["vae"] = values.pop("codec")
        state = State(**{name: value for name, value in values.items() if name in _TYPES})
    except FileNotFoundError as error:
        raise ValueError(f"{STATE} is missing") from error
    except OSError as error:
        raise ValueError(f"{STATE} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, json.JSONDecodeError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{STATE} is damaged") from error
    numbers = state.window.values() if type(state.window) is dict else [None]
    odd = [name for name, types in _TYPES.items() if type(getattr(state, name)) not in types]
    if odd or not all(type(value) in (int, float) for value in numbers):
        raise ValueError(f"{STATE} is damaged")
    return state


_TYPES: dict[str, tuple[type, ...]] = {
    "step": (int,),
    "stage": (str,),
    "data": (str,),
    "window": (dict,),
    "window_steps": (int,),
    "format": (int,),
    "clips": (int, NoneType),
    "average": (bool, NoneType),
    "spec": (dict, NoneType),
    "sizes": (str, NoneType),
    "vae": (str, NoneType),
    "text": (str, NoneType),
    "measured": (bool, NoneType),
}
"""Of every field of `State`."""


@dataclass(frozen=True)
class Weights:
    """Files that hold the weights of a stage, compared with their checksums."""

    path: Path
    """The checkpoint."""
    step: int
    averaged: bool
    """Whether the moving average is meant; else the weights."""

    @property
    def part(self) -> Path:
        """What holds them: a file, or a folder of shards."""
        return part_of(self.path, AVERAGE if self.averaged else MODEL)


def pick_weights(run: RunFolder, stage: StageName, ema: bool = True, lacking: bool = False) -> Weights | None:
    """The weights to read of a stage: of its newest whole checkpoint, and of them the moving average that it keeps.

    `ema` off asks for the weights themselves; `lacking` takes them where an average should be and is not.

    None where the stage has no checkpoint. Raises UserError when all are damaged, when the average is missing, or when
    the run's spec is not the one that was trained.
    """
    folder, spec = run.stage(stage), run.load_spec()
    newest = folder.latest()
    if newest is None:
        return None
    lost = part_of(newest, AVERAGE)
    gone = ema and _lost_average(newest, _keeps_average(spec, stage))
    if gone and not lacking:
        raise UserError(
            f"{lost} is missing, and this run keeps a moving average: it is what a trained model is",
            "bring it back from a copy; to take the weights of the last step in its place: --no-ema",
        )
    if gone:
        output.warn(f"{lost} is missing: the weights of the last step are taken in its place")
    found, _ = find_checkpoint(folder, (MODEL, AVERAGE) if ema and not gone else (MODEL,))
    assert found is not None
    _check_meaning(run, spec, stage, found)
    check_measured(found, spec, f"sora-spec train {run.path} --stage vae --resume")
    return Weights(found.path, found.step, averaged=ema and part_of(found.path, AVERAGE).exists())


def check_measured(found: Checkpoint, spec: Spec, command: str) -> None:
    """Raise UserError for a VAE whose training was stopped before its latents were measured.

    `command` goes on with it. A VAE per frame has its scale in the spec, and needs no measurement.
    """
    if found.state.measured is False and vae_facts(spec.vae).measured:
        raise UserError(f"{found.path}: the latents of this VAE are not measured yet", f"measure them: {command}")


def _keeps_average(spec: Spec, stage: StageName) -> bool:
    training = spec.train if stage == "denoiser" else getattr(spec.vae, "training", None)
    return training is not None and training.ema > 0


def _lost_average(path: Path, wanted: bool) -> bool:
    """Whether a checkpoint should have an average and has no file of it."""
    if part_of(path, AVERAGE).exists():
        return False
    try:
        average = read_state(path).average
    except ValueError:
        return False  # the checkpoint is damaged, which is told of elsewhere
    return wanted if average is None else average


_MEANING = ("clip", "vae", "patch", "backbone", "temporal", "condition", "objective")
"""Sections that say what weights are weights of."""
_BESIDE = ("weights", "training", "decoder", "tiling", "streaming")
"""Fields of `vae` and `backbone` that do not."""


def _check_meaning(run: RunFolder, spec: Spec, stage: StageName, found: Checkpoint) -> None:
    """Refuse a `spec.yaml` that was edited or damaged after training: the weights would mean something else."""
    trained = found.state.spec
    if trained is None:
        return
    sections = _MEANING if stage == "denoiser" else ("vae",)
    before, now = (dict(_leaves(values, sections)) for values in (trained, spec.model_dump(mode="json")))
    odd = [(path, value, now[path]) for path, value in before.items() if path in now and now[path] != value]
    if odd:
        listing = "\n".join(f"  {path}: {was!r} in the checkpoint, {given!r} in spec.yaml" for path, was, given in odd)
        raise UserError(
            f"{run.spec_path} is not the spec that {found.path} was trained under:\n{listing}",
            "put spec.yaml back as it was: it is written by training, and other settings go on the command line",
        )


def _leaves(values: Mapping[str, Any], sections: Sequence[str], path: str = "") -> Iterator[tuple[str, Any]]:
    for name in sections or values:
        inner, place = values.get(name), f"{path}.{name}" if path else name
        if path in ("vae", "backbone") and name in _BESIDE:
            continue
        if isinstance(inner, Mapping):
            yield from _leaves(cast("Mapping[str, Any]", inner), (), place)
        else:
            yield place, inner
