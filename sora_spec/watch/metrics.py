"""`metrics.jsonl` as it grows: read a piece at a time, whatever state a crash, a copy or a resumed run left it in."""

from __future__ import annotations

import json
import math
from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, TypeGuard, cast

_TAIL = 128
"""Bytes before the place read up to that must be unchanged for the file to count as the same one, grown."""
_PIECE = 1 << 20
_NAN = math.nan


@dataclass(frozen=True)
class Curve:
    """One field over the steps, thinned for drawing."""

    steps: tuple[int, ...] = ()
    values: tuple[float, ...] = ()
    smoothed: tuple[float, ...] = ()
    """Exponential moving average over all lines, at the same steps."""


class Metrics:
    """The lines read so far, as columns. A line that lacks a field holds NaN there."""

    def __init__(self) -> None:
        self.steps: array[int] = array("q")
        self.columns: dict[str, array[float]] = {}
        self.skipped = 0
        """Lines that are no JSON object with a step: what a crash left behind."""

    def __len__(self) -> int:
        return len(self.steps)

    def add(self, line: bytes) -> None:
        """One line of the file. A step that was passed before begins again there: the lines after it are void."""
        values = _object(line)
        step = values.get("step")
        if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step < 2**62:
            self.skipped += 1
            return
        if self.steps and step <= self.steps[-1]:
            self._cut(bisect_left(self.steps, step))
        for name, value in values.items():
            if name != "step" and _is_number(value) and name not in self.columns:
                self.columns[name] = array("d", [_NAN] * len(self.steps))
        self.steps.append(step)
        for name, column in self.columns.items():
            value = values.get(name)
            column.append(float(value) if _is_number(value) else _NAN)

    def _cut(self, length: int) -> None:
        del self.steps[length:]
        for column in self.columns.values():
            del column[length:]

    def latest(self) -> Mapping[str, float]:
        """Fields of the last line."""
        found = {name: column[-1] for name, column in self.columns.items() if column and not math.isnan(column[-1])}
        return MappingProxyType(found)

    def recent(self, name: str, count: int) -> list[float]:
        """The last `count` finite values of a field."""
        return [value for value in self.columns.get(name, ())[-count:] if math.isfinite(value)]

    def curve(self, name: str, points: int, weight: float) -> Curve:
        """A field in at most `2 × points` points: the least and the largest of each stretch, so that no spike is lost.

        Values that are not finite are left out. `weight` is what the moving average keeps of its past.
        """
        column = self.columns.get(name)
        if column is None:
            return Curve()
        pairs = [(step, value) for step, value in zip(self.steps, column, strict=True) if math.isfinite(value)]
        average = smoothed([value for _, value in pairs], weight)
        kept = _extremes([value for _, value in pairs], points)
        return Curve(
            tuple(pairs[i][0] for i in kept), tuple(pairs[i][1] for i in kept), tuple(average[i] for i in kept)
        )


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def smoothed(values: Sequence[float], weight: float) -> list[float]:
    """Exponential moving average without the bias of its start, as Adam corrects it (arXiv 1412.6980 §3)."""
    found: list[float] = []
    total = mass = 0.0
    for value in values:
        total = weight * total + (1 - weight) * value
        mass = weight * mass + (1 - weight)
        found.append(total / mass)
    return found


def _extremes(values: Sequence[float], stretches: int) -> list[int]:
    """Places of the least and the largest value of each of `stretches` stretches, ascending, with first and last."""
    count = len(values)
    if count <= 2 * stretches:
        return list(range(count))
    kept = {0, count - 1}
    for number in range(stretches):
        places = range(number * count // stretches, (number + 1) * count // stretches)
        kept.add(min(places, key=values.__getitem__))
        kept.add(max(places, key=values.__getitem__))
    return sorted(kept)


@dataclass
class MetricsReader:
    """Follows one file. `read` takes what is new; a file that was replaced or cut is read from its start."""

    path: Path
    metrics: Metrics = field(default_factory=Metrics)
    _place: int = 0
    _tail: bytes = b""
    _inode: int = -1

    def read(self) -> bool:
        """Take in what was added since the last call; True where anything changed. A missing file holds no lines."""
        try:
            with self.path.open("rb") as file:
                return self._read(file)
        except OSError:
            changed = len(self.metrics) > 0
            self._forget()
            return changed

    def _read(self, file: BinaryIO) -> bool:
        forgot = not self._is_same(file)
        if forgot:
            forgot = len(self.metrics) > 0
            self._forget()
        self._inode = _inode(file)
        file.seek(self._place)
        before = self._place
        rest = b""
        while piece := file.read(_PIECE):
            # What follows the last newline is still being written: it is read again next time.
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                self._place += len(line) + 1
                if line.strip():
                    self.metrics.add(line)
            if lines:
                self._tail = (self._tail + b"\n".join(lines) + b"\n")[-_TAIL:]
        return forgot or self._place > before

    def _is_same(self, file: BinaryIO) -> bool:
        """Whether the file begins with what was read: resuming replaces it, a copy may overwrite it in place."""
        if _inode(file) != self._inode:
            return False
        file.seek(self._place - len(self._tail))
        return file.read(len(self._tail)) == self._tail

    def _forget(self) -> None:
        self.metrics, self._place, self._tail, self._inode = Metrics(), 0, b"", -1


def _inode(file: BinaryIO) -> int:
    import os

    return os.fstat(file.fileno()).st_ino
