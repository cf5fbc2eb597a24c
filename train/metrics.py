"""Metrics: one JSON object a line, and the same numbers for TensorBoard."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

from sora_spec import output
from sora_spec.disk.atomic import write_atomically
from sora_spec.disk.run_folder import StageFolder

TIMING = frozenset({"step_seconds", "data_seconds"})
"""Fields that differ between two runs of the same spec; all others are equal to the last bit."""


def truncate_metrics(path: Path, step: int) -> None:
    """Drop the lines after `step`, and a half-written last one: the file as it was when the checkpoint was made.

    Lines that are damaged are left out too; a warning counts them, and the file as it was is kept beside.
    """
    if not path.exists():
        if step:
            output.warn(f"{path} is lost: the lines up to step {step} are missing")
        return
    raw = path.read_bytes()
    kept: list[bytes] = []
    damaged = 0
    for line in raw.split(b"\n")[:-1]:  # behind the last newline stands what a crash cut off
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + b"\n")
        except (ValueError, KeyError, TypeError, RecursionError):
            damaged += 1
    if damaged:
        aside = path.with_name(f"damaged-{path.name}")
        write_atomically(aside, raw)
        output.warn(f"{path} is damaged: {damaged} lines are left out; the file as it was is kept as {aside}")
    if step and not kept:
        output.warn(f"{path} has lost its lines: those up to step {step} are missing")
    write_atomically(path, b"".join(kept))


class MetricsLog:
    """Appends to `metrics.jsonl` and to TensorBoard's event files; each line is flushed at once."""

    def __init__(self, folder: StageFolder, step: int) -> None:
        folder.path.mkdir(parents=True, exist_ok=True)
        truncate_metrics(folder.metrics_path, step)
        self._path = folder.metrics_path
        self._file = self._path.open("a")
        from torch.utils.tensorboard import SummaryWriter

        # Events after `step` belong to steps that are now done again.
        self._board = SummaryWriter(str(folder.tensorboard_path), purge_step=step + 1 if step else None)
        _leave_kept_errors_alone()

    def write(self, values: dict[str, Any]) -> None:
        """Log one line; `values` holds `step`."""
        if os.fstat(self._file.fileno()).st_nlink == 0:
            output.warn(f"{self._path} was deleted while training: its lines up to now are lost")
            self._file.close()
            self._file = self._path.open("a")
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()
        for name, value in values.items():
            if name != "step":
                self._board.add_scalar(name, value, values["step"])

    def close(self) -> None:
        self._file.close()
        self._board.close()


def _leave_kept_errors_alone() -> None:
    """Have no traceback printed of an error that its thread keeps for others to raise.

    TensorBoard writes in a thread. Where its folder is gone or the disk is full, that thread keeps the error, ends with
    it, and the next call of the writer raises it again, which is reported in a sentence.
    """
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _report


def _report(ended: threading.ExceptHookArgs) -> None:
    if getattr(ended.thread, "exception", None) is not ended.exc_value:
        threading.__excepthook__(ended)
