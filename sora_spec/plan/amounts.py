"""Amounts for people, and as JSON values."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sora_spec.plan.interval import Interval

GIB = 2**30


def duration(seconds: float) -> str:
    """`41 ms`, `12.3 s`, `5.2 min`, `3.4 h`, `8.2 days`."""
    for limit, size, unit in ((1, 1e-3, "ms"), (120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 86_400:,.1f} days"


def whole(interval: Interval) -> dict[str, int]:
    """Bytes."""
    return {"low": round(interval.low), "likely": round(interval.likely), "high": round(interval.high)}
