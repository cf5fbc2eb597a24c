"""What is measured of a VAE once it is trained: the statistics of its latents, clip by clip, kept on disk meanwhile.

A few hundred whole clips take minutes, so that the sums so far are written to `vae/latents.json` every few seconds: an
interrupted measurement goes on where it stood and ends with the same bits.

```
{"step": 2000, "data": "…", "clips": 256, "done": 40, "sums": [[…], […], […]]}     see LatentStatistics.sums
```
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sora_spec import output
from sora_spec.builders.vae.statistics import LatentStatistics
from sora_spec.disk.run_folder import write_atomically

_KEPT_SECONDS = 5.0
"""Between two writes of the sums."""
_NOTE_SECONDS = 30.0
"""Between two lines where there is no terminal for a bar."""


@dataclass(frozen=True)
class Measuring:
    """One measurement: whose latents, of how many clips, and where its sums are kept."""

    path: Path
    step: int
    """Updates behind the VAE."""
    data: str
    """Fingerprint of the clips."""
    clips: int
    alone: bool = True
    """Whether one process measures; several begin anew, so that they stay together."""
    writes: bool = True
    """Whether this process keeps the sums."""

    def run(
        self,
        statistics: LatentStatistics,
        moments: Callable[[int], tuple[Tensor, Tensor]],
        stopping: Callable[[], bool],
    ) -> bool:
        """Add what `moments` of every clip says; True when all are counted, False when asked to stop before.

        Raises UserError when the disk fails.
        """
        done = self._begin(statistics)
        label = f"measuring the latents of {self.clips} clips" + (f", {done} of them known" if done else "")
        kept = noted = time.monotonic()
        with output.progress(label, self.clips) as advance:
            advance(done)
            for number in range(done, self.clips):
                if stopping():
                    self._keep(number, statistics)
                    output.note(f"the latents of {number} of {self.clips} clips are measured and kept")
                    return False
                statistics.add(*moments(number))
                advance(1)
                if time.monotonic() - kept > _KEPT_SECONDS:
                    self._keep(number + 1, statistics)
                    kept = time.monotonic()
                if not output.is_terminal(sys.stderr) and time.monotonic() - noted > _NOTE_SECONDS:
                    output.note(f"latents of {number + 1} of {self.clips} clips measured")
                    noted = time.monotonic()
        self._keep(self.clips, statistics)
        return True

    def _begin(self, statistics: LatentStatistics) -> int:
        """Take the sums of an earlier measurement of the same clips and weights; how many clips they hold."""
        try:
            values = json.loads(self.path.read_bytes()) if self.alone else {}
            same = all(values.get(key) == getattr(self, key) for key in ("step", "data", "clips"))
            sums = torch.tensor(values["sums"], dtype=torch.float64)
            done = int(values["done"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return 0
        if not same or sums.shape != statistics.sums.shape or not 0 <= done <= self.clips or not sums.isfinite().all():
            return 0
        statistics.sums.copy_(sums)
        return done

    def _keep(self, done: int, statistics: LatentStatistics) -> None:
        if self.writes:
            values = {"step": self.step, "data": self.data, "clips": self.clips, "done": done}
            write_atomically(self.path, json.dumps(values | {"sums": statistics.sums.tolist()}) + "\n")
