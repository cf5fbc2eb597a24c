"""A number that is known to lie between two others: low, likely, high."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Interval(NamedTuple):
    """Three values of one quantity. `likely` is the planner's answer, the ends are what it would not bet beyond."""

    low: float
    likely: float
    high: float

    def plus(self, other: Interval) -> Interval:
        """Sum, end by end."""
        return Interval(self.low + other.low, self.likely + other.likely, self.high + other.high)

    def times(self, factor: float) -> Interval:
        """All three multiplied by a factor that is not negative."""
        return Interval(self.low * factor, self.likely * factor, self.high * factor)


ZERO = Interval(0, 0, 0)


def exactly(value: float) -> Interval:
    """A quantity that is known."""
    return Interval(value, value, value)


def total(intervals: Iterable[Interval]) -> Interval:
    """Sum, end by end: the ends assume that all errors point the same way."""
    low = likely = high = 0.0
    for interval in intervals:
        low += interval[0]
        likely += interval[1]
        high += interval[2]
    return Interval(low, likely, high)


def worst(intervals: Iterable[Interval]) -> Interval:
    """Largest of each end."""
    found = list(intervals)
    return Interval(max(i.low for i in found), max(i.likely for i in found), max(i.high for i in found))
