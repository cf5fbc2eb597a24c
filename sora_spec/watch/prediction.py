"""What was predicted for a stage beside what it really takes, from `plan.json`, `measured.json` and its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from sora_spec.plan.interval import Interval

_MET = 1e-3
"""Share by which a value may be off and still be called as predicted."""

Quantity = Literal["allocated memory", "reserved memory", "step time"]


@dataclass(frozen=True)
class Compared:
    """One quantity, in bytes or seconds, as predicted and as it is; None where it is not known."""

    quantity: Quantity
    predicted: Interval | None
    real: float | None
    note: str = ""

    @property
    def is_bytes(self) -> bool:
        """Whether it is a number of bytes rather than of seconds."""
        return self.quantity != "step time"

    @property
    def off(self) -> float | None:
        """How far the real value is from the likely one, as a share of it; None where one is missing."""
        if self.predicted is None or self.real is None or not self.predicted.likely:
            return None
        return self.real / self.predicted.likely - 1

    @property
    def standing(self) -> Literal["met", "within", "outside", "unknown"]:
        """Whether the real value is the likely one, to a thousandth, or within the range."""
        if self.off is None or self.predicted is None or self.real is None:
            return "unknown"
        if abs(self.off) < _MET:
            return "met"
        return "within" if self.predicted.low <= self.real <= self.predicted.high else "outside"

    @property
    def verdict(self) -> str:
        """The two in words."""
        if self.off is None:
            return "no prediction" if self.predicted is None else "not measured yet"
        words = {"met": "as predicted", "within": "in the range", "outside": "out of range"}
        return f"{100 * self.off:+.1f} %, {words[self.standing]}".replace("-", "−")


def compare_with_plan(
    planned: Mapping[str, Any], measured: Mapping[str, Any], seconds_per_step: float | None
) -> tuple[Compared, ...]:
    """Memory and time of a stage. `seconds_per_step`, without the wait for data, counts until training has measured.

    On a CPU training measures one step, and the prediction is that of a step; on a GPU both are of the whole run.
    """
    memory, clock = _section(measured, "memory"), _section(measured, "time")
    early = _section(planned, "memory")
    scope = f"step {memory['of_step']}" if memory.get("scope") == "step" else "whole run" if memory else ""
    found = [
        Compared(
            "allocated memory",
            _interval(memory.get("predicted_allocated_bytes") or (None if memory else early.get("allocated_bytes"))),
            _number(memory.get("allocated_bytes")),
            scope,
        )
    ]
    reserved = _number(memory.get("reserved_bytes"))
    if reserved is not None:
        found.append(Compared("reserved memory", _interval(memory.get("predicted_reserved_bytes")), reserved, scope))
    predicted = clock.get("predicted_step_seconds") or _section(planned, "time").get("step_seconds")
    real = _number(clock.get("step_seconds"))
    note = "no data wait"
    found.append(Compared("step time", _interval(predicted), seconds_per_step if real is None else real, note))
    return tuple(found)


def capacity_bytes(planned: Mapping[str, Any]) -> float | None:
    """Memory of the device that was planned for."""
    return _number(_section(planned, "memory").get("capacity_bytes"))


def _section(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = values.get(name)
    return cast("dict[str, Any]", section) if isinstance(section, dict) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _interval(value: Any) -> Interval | None:
    if not isinstance(value, dict):
        return None
    ends = [_number(cast("dict[str, Any]", value).get(name)) for name in Interval._fields]
    low, likely, high = ends
    return None if low is None or likely is None or high is None else Interval(low, likely, high)
