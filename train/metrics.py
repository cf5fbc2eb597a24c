"""Metrics: one JSON object a line, and the same numbers for TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sora_spec.run_folder import StageFolder, write_atomically

TIMING = frozenset({"step_seconds", "data_seconds"})
"""Fields that differ between two runs of the same spec; all others are equal to the last bit."""


def truncate_metrics(path: Path, step: int) -> None:
    """Drop the lines after `step`, and a half-written last one: the file as it was when the checkpoint was made."""
    if not path.is_file():
        return
    kept: list[str] = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    write_atomically(path, "".join(kept))


class MetricsLog:
    """Appends to `metrics.jsonl` and to TensorBoard's event files; each line is flushed at once."""

    def __init__(self, folder: StageFolder, step: int) -> None:
        folder.path.mkdir(parents=True, exist_ok=True)
        truncate_metrics(folder.metrics_path, step)
        self._file = folder.metrics_path.open("a")
        from torch.utils.tensorboard import SummaryWriter

        # Events after `step` belong to steps that are now done again.
        self._board = SummaryWriter(str(folder.tensorboard_path), purge_step=step + 1 if step else None)

    def write(self, values: dict[str, Any]) -> None:
        """Log one line; `values` holds `step`."""
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()
        for name, value in values.items():
            if name != "step":
                self._board.add_scalar(name, value, values["step"])

    def close(self) -> None:
        """Flush and close both."""
        self._file.close()
        self._board.close()
