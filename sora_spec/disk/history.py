"""`history.jsonl` of a run folder: a line for every start, so that a run tells under which settings it came about.

```
{"date": "2026-01-31T12:00:00+00:00", "stage": "denoiser", "step": 400, "event": "changed",
 "changed": {"train.batch": [8, 16]}, "ranks": 1, "host": "node7", "versions": {"sora-spec": "0.1.0", "torch": …}}
```

`event`: "started", "resumed", or "changed" where something that decides the weights is other from `step` on. `changed`
gives the value before and after; under the names "data", "vae" and "text" stand digests of the data set, the VAE and
the text encoder. `damaged` names newer checkpoints that could not be used, each with the reason.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

from sora_spec.disk.atomic import this_host

DATA, VAE, TEXT = "data", "vae", "text"
"""Names of a change of the data set's content, and of the VAE and the text encoder that a denoiser learns with."""


@dataclass(frozen=True)
class Change:
    """A field with the value before and the one now."""

    path: str
    before: Any
    after: Any


Event = Literal["started", "resumed", "changed"]


def append_history(
    path: Path, stage: str, step: int, event: Event, changes: Sequence[Change], facts: Mapping[str, Any]
) -> None:
    """Add a line. Raises OSError."""
    line: dict[str, Any] = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "stage": stage, "step": step}
    line["event"] = event
    if changes:
        line["changed"] = {change.path: [change.before, change.after] for change in changes}
    line |= {"host": this_host(), **facts}
    with path.open("ab+") as file:
        torn = file.tell() > 0 and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n"
        file.write(b"\n" * torn + json.dumps(line).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_history(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of the file, oldest first; those that cannot be read are left out."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return
    for text in lines:
        try:
            line: Any = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and isinstance(cast("dict[str, Any]", line).get("step"), int):
            yield cast("dict[str, Any]", line)


def accepted(path: Path, stage: str, step: int, change: Change) -> bool:
    """Whether a change was allowed before, at `step` or later, and training ended before a checkpoint held it."""
    after = json.loads(json.dumps(change.after))
    for line in read_history(path):
        changed: Any = line.get("changed")
        if line.get("stage") != stage or line["step"] < step or not isinstance(changed, dict):
            continue
        pair: Any = cast("dict[str, Any]", changed).get(change.path)
        if isinstance(pair, list) and cast("list[Any]", pair)[1:] == [after]:
            return True
    return False
