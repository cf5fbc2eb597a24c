"""Numbers for people: the same forms as in `sora-spec plan`, and shorter ones for narrow columns."""

from __future__ import annotations

from sora_spec.plan.amounts import GIB, duration
from sora_spec.plan.interval import Interval

_SCALES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def gib(nbytes: float) -> str:
    """`23.6`, two digits below ten, `<0.01` for what would be nothing: bytes in GiB without the unit."""
    value = nbytes / GIB
    if 0 < value < 0.005:
        return "<0.01"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"


def short(number: float) -> str:
    """`675 M`, `22.9 T`: three digits and a decimal prefix."""
    for size, prefix in _SCALES:
        if abs(number) >= size:
            value = number / size
            return f"{value:.0f} {prefix}" if value >= 99.95 else f"{value:.3g} {prefix}"
    return f"{number:g}"


def percent(share: float) -> str:
    """`49 %`; under one per cent `0.4 %`."""
    value = 100 * share
    return f"{value:.0f} %" if value >= 9.95 else f"{value:.1f} %" if value >= 0.05 else "0 %"


def hours(value: float) -> str:
    """GPU-hours."""
    return f"{value:,.0f} h" if value >= 99.5 else f"{value:.3g} h"


def dollars(value: float) -> str:
    """A price."""
    return f"${value:,.0f}" if value >= 99.5 else f"${value:.2f}"


def shown(value: float, unit: str) -> str:
    """A quantity of `TimeRow`."""
    return {"seconds": duration, "hours": hours, "usd": dollars}[unit](value)


def span(interval: Interval, unit: str) -> str:
    """From low to high."""
    return f"{shown(interval.low, unit)} – {shown(interval.high, unit)}"
