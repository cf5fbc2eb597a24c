"""A run folder: where training writes and where export and generation read. Torch-free.

```
runs/NAME/
  spec.yaml                  the resolved spec, overrides included
  run.json                   versions and arguments
  classes.json               class names in label order, where there are labels
  history.jsonl              a line for every start and every change: see `sora_spec.disk.history`
  train.lock                 who trains in it: see `sora_spec.disk.run_lock`
  vae/  denoiser/            one folder per stage
    plan.json                what was predicted for this machine, as `sora-spec plan --json` prints it
    data.json                what it was trained on, as `sora-spec data check --json` prints it, without usable files
    measured.json            what it took: see below
    latents.json             of the VAE: what is measured of its latents after the last step
    metrics.jsonl
    tensorboard/  samples/
    checkpoints/step-00001000/{model,ema,optimizer}.safetensors, state.json, checksums.sha256;
                             of several ranks folders {model,ema,optimizer}/: see `sora_spec.disk.checkpoints`
```

A checkpoint is a folder that appears whole, by one rename, or not at all.

`plan.json` is there before the first step, except where a spec cannot be planned; its lines are those of `spec.yaml`.
`measured.json` appears after the third step of a process, is renewed with every checkpoint and completed at the end:

```
{
  "contract": 1,                         raised only when a key changes its meaning; keys may be added
  "status": "running",                   then "finished" or "interrupted"
  "step": 40,                            optimiser steps behind the weights when this was written
  "device": "CPU, 2 threads",
  "memory": {
    "scope": "step",                     on a CPU: one early step; "run" on a GPU: all up to now, sample grids too
    "of_step": 2,                        the step that was measured, counted from 1; null for "run"
    "allocated_bytes": 285000000,        most bytes of tensors alive at once, weights included; null: not measured
    "reserved_bytes": null,              most bytes that CUDA's caching allocator held; null on a CPU
    "predicted_allocated_bytes": {"low": …, "likely": …, "high": …},     of the same scope; null without a plan
    "predicted_reserved_bytes": {"low": …, "likely": …, "high": …}
  },
  "time": {
    "step_seconds": 0.61,                median over the newest steps, waiting for data and the first two left out
    "data_seconds": 0.002,               median wait for data in them
    "steps": 38,                         how many those are
    "predicted_step_seconds": {"low": …, "likely": …, "high": …}
  }
}
```
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from sora_spec.disk.atomic import is_temporary, remove_folder, replacing_folder, sweep, write_atomically
from sora_spec.disk.run_lock import NAME as LOCK
from sora_spec.errors import UserError
from sora_spec.os_errors import told

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec

StageName = Literal["vae", "denoiser"]
MEASURED_CLIPS = 256
"""Clips at most whose latents are measured once a VAE is trained: `latents.json`."""
STAGES: tuple[StageName, ...] = ("vae", "denoiser")
_CHECKPOINT = re.compile(r"step-(\d{8,})")


class StageFolder:
    """One training stage inside a run folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plan_path = path / "plan.json"
        self.data_path = path / "data.json"
        self.measured_path = path / "measured.json"
        self.latents_path = path / "latents.json"
        self.metrics_path = path / "metrics.jsonl"
        self.samples_path = path / "samples"
        self.tensorboard_path = path / "tensorboard"
        self.checkpoints_path = path / "checkpoints"

    def checkpoint_path(self, step: int) -> Path:
        """Where the checkpoint after `step` optimiser steps lies."""
        return self.checkpoints_path / f"step-{step:08d}"

    def checkpoints(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        if not self.checkpoints_path.is_dir():
            return []
        found = [path for path in self.checkpoints_path.iterdir() if _CHECKPOINT.fullmatch(path.name) and path.is_dir()]
        return sorted(found, key=step_of)

    def latest(self) -> Path | None:
        """The newest checkpoint, or None. Whether its files are as they were written, `find_checkpoint` says."""
        whole = self.checkpoints()
        return whole[-1] if whole else None

    @contextmanager
    def writing_checkpoint(self, step: int) -> Generator[Path]:
        """Give a folder to fill; it becomes `checkpoint_path(step)` when the body succeeds."""
        with replacing_folder(self.checkpoint_path(step)) as temporary:
            yield temporary

    def prune(self, keep: int) -> None:
        """Delete all but the `keep` newest checkpoints, and what an earlier crash left half-written."""
        for path in self.checkpoints()[:-keep]:
            remove_folder(path)
        sweep(self.checkpoints_path)

    def set_aside(self, checkpoint: Path) -> Path:
        """Take a damaged checkpoint out of the row, so that none newer than the next one stands in it."""
        aside = checkpoint.with_name(f"damaged-{checkpoint.name}")
        shutil.rmtree(aside, ignore_errors=True)
        return checkpoint.rename(aside)


def step_of(checkpoint: Path) -> int:
    """Optimiser steps behind a checkpoint folder."""
    match = _CHECKPOINT.fullmatch(checkpoint.name)
    assert match is not None, checkpoint
    return int(match.group(1))


class RunFolder:
    """A run folder on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spec_path = path / "spec.yaml"
        self.info_path = path / "run.json"
        self.classes_path = path / "classes.json"
        self.history_path = path / "history.jsonl"

    @classmethod
    def create(cls, path: Path | str, spec_text: str) -> RunFolder:
        """Make a new run folder holding `spec_text`.

        Raises UserError when `path` already holds a run or anything else: nothing is overwritten.
        """
        run = cls(Path(path))
        if run.spec_path.exists():
            raise UserError(
                f"{run.path} already holds a run",
                f"go on with it: --resume --run {run.path}; or start another: --run {run.path}-2",
            )
        check_free(run.path)
        run.path.mkdir(parents=True, exist_ok=True)
        write_atomically(run.spec_path, spec_text)
        return run

    @classmethod
    def open(cls, path: Path | str) -> RunFolder:
        """Open an existing run folder. Raises UserError when there is none."""
        run = cls(Path(path))
        if not run.spec_path.is_file():
            raise UserError(f"{run.path} is not a run folder: it has no spec.yaml", "train first: sora-spec train SPEC")
        return run

    @staticmethod
    def is_run(path: Path | str) -> bool:
        """Whether `path` looks like a run folder rather than a bundle or a spec file."""
        path = Path(path)
        return (path / "spec.yaml").is_file() and not (path / "manifest.json").exists()

    def load_spec(self) -> Spec:
        from sora_spec.language.loading import load_spec

        return load_spec(str(self.spec_path))

    def stage(self, name: StageName) -> StageFolder:
        """The folder of one training stage; it may not exist yet."""
        return StageFolder(self.path / name)

    def classes(self) -> list[str] | None:
        """Class names in label order, if the run recorded them. Raises UserError when the file is damaged."""
        names = _read_json(self.classes_path, "training writes it again: sora-spec train RUN --resume")
        if names is None:
            return None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in cast("list[Any]", names)):
            raise _damaged(self.classes_path, "it holds no list of names", "training writes it again")
        return cast("list[str]", names)

    def info(self) -> dict[str, Any]:
        """What run.json holds; empty where there is none. Raises UserError when the file is damaged."""
        values = _read_json(self.info_path, "the next start writes it again")
        if values is not None and not isinstance(values, dict):
            raise _damaged(self.info_path, "it holds no object", "the next start writes it again")
        return cast("dict[str, Any]", values or {})

    def record(self, **values: Any) -> None:
        """Merge `values` into run.json."""
        write_atomically(self.info_path, json.dumps(self.info() | values, indent=2) + "\n")


def check_free(path: Path) -> None:
    """Raise UserError when `path` holds anything but what an attempt to make a run there left behind."""
    if not path.exists() and not path.is_symlink():
        return
    if any(StageFolder(path / stage).checkpoints() for stage in STAGES):
        raise UserError(
            f"{path} holds checkpoints, but {path / 'spec.yaml'} is missing",
            "bring it back from a copy; every checkpoint's state.json holds the values of its spec",
        )
    if not path.is_dir() or any(not is_temporary(child) and child.name != LOCK for child in path.iterdir()):
        raise UserError(f"{path} exists and is not a run folder", "name another folder with --run")


def _read_json(path: Path, after: str) -> Any:
    """What a JSON file holds; None where there is no file. Raises UserError when it cannot be read."""
    try:
        with told(f"{path} cannot be read"):
            return json.loads(path.read_bytes()) if path.exists() else None
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "it is empty" if not path.stat().st_size else "it is not JSON", after) from error


def _damaged(path: Path, why: str, after: str) -> UserError:
    return UserError(f"{path} is damaged: {why}", f"bring it back from a copy, or delete it: {after}")
