"""The best row of a sweep under a limit of money, time or memory, and why it is that one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sora_spec.errors import UserError
from sora_spec.plan.amounts import GIB, duration
from sora_spec.plan.interval import Interval
from sora_spec.plan.planner import Plan
from sora_spec.plan.search.sweep import Row

Kind = Literal["dollars", "hours", "memory"]
_HOURS = {"h": 1.0, "hour": 1.0, "hours": 1.0, "min": 1 / 60, "d": 24.0, "day": 24.0, "days": 24.0, "w": 168.0}
_HOURS |= {"week": 168.0, "weeks": 168.0}
_MEMORY = ("g", "gb", "gib")
_DOLLARS = ("", "$", "usd", "dollar", "dollars")
_FORM = re.compile(r"^\s*(\$?)\s*(\d[\d,_ ]*(?:\.\d+)?|\.\d+)\s*(k?)\s*([a-z$]*)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Budget:
    """A limit: dollars of the whole job, hours until it is done, or bytes on one device. No limit where None."""

    kind: Kind
    limit: float | None

    def __str__(self) -> str:
        if self.limit is None:
            return "any budget"
        if self.kind == "dollars":
            return f"${self.limit:,.2f}".removesuffix(".00")
        return duration(self.limit * 3600) if self.kind == "hours" else f"{self.limit / GIB:g} GiB"


@dataclass(frozen=True)
class Choice:
    """What was chosen."""

    row: Row | None
    """None where no row meets the budget."""
    place: int | None
    """Its place among the rows."""
    why: str


def parse_budget(text: str) -> Budget:
    """`$500`, `2k`, `72 h`, `3 days`, `24 GiB`; a bare number is dollars, nothing at all is no limit.

    Raises:
        UserError: another form.
    """
    if not text.strip():
        return Budget("dollars", None)
    match = _FORM.fullmatch(text)
    help = "give dollars ($500), hours or days (72 h, 3 days), or memory of one device (24 GiB)"
    if match is None:
        raise UserError(f"{text.strip()!r} is no budget", help)
    sign, digits, thousand, unit = match.groups()
    number = float(re.sub("[,_ ]", "", digits)) * (1000 if thousand else 1)
    unit = unit.lower()
    if sign or unit in _DOLLARS:
        if unit not in _DOLLARS:
            raise UserError(f"{text.strip()!r} is both dollars and {unit}", help)
        return Budget("dollars", number)
    if unit in _HOURS:
        return Budget("hours", number * _HOURS[unit])
    if unit in _MEMORY:
        return Budget("memory", number * GIB)
    raise UserError(f"{unit!r} is no unit of a budget", help)


def spent(plan: Plan, kind: Kind) -> Interval | None:
    """What a plan takes of a budget, in the budget's unit; None where no price is known."""
    if kind == "dollars":
        return plan.times.cost
    return plan.times.total_seconds.times(1 / 3600) if kind == "hours" else plan.needed


def best(rows: Sequence[Row], budget: Budget) -> Choice:
    """Under a limit of dollars the fastest row; under hours or memory, or no limit, the cheapest one.

    Likely values decide. Where no row that remains has a price, the fastest is taken instead of the cheapest. A CPU,
    which costs nothing and would take years, is only chosen from CPUs.
    """
    planned = [(place, row.plan) for place, row in enumerate(rows) if row.plan is not None]
    fitting = [(place, plan) for place, plan in planned if plan.fits]
    fitting = [pair for pair in fitting if not pair[1].lacks] or fitting
    fitting = [pair for pair in fitting if pair[1].device.kind != "cpu"] or fitting
    if not fitting:
        return Choice(None, None, f"none of {len(rows):,} fits" if rows else "there is nothing to choose from")
    within = [(place, plan) for place, plan in fitting if _meets(plan, budget)]
    if not within:
        return Choice(None, None, _missed(fitting, budget))
    by_time = budget.limit is not None and budget.kind == "dollars"
    priced = [(place, plan) for place, plan in within if plan.times.cost is not None]
    ranked = within if by_time or not priced else priced
    cheapest = ranked is priced and not by_time
    place, plan = min(ranked, key=lambda pair: _rank(pair[1], cheapest))
    return Choice(rows[place], place, _why(plan, budget, "cheapest" if cheapest else "fastest", within, rows))


def _meets(plan: Plan, budget: Budget) -> bool:
    if budget.limit is None:
        return True
    taken = spent(plan, budget.kind)
    return taken is not None and taken.likely <= budget.limit


def _rank(plan: Plan, cheapest: bool) -> tuple[float, float, int, float]:
    """Cost or time first, the other breaks ties, then fewer devices and less memory."""
    cost = float("inf") if plan.times.cost is None else plan.times.cost.likely
    seconds = plan.times.total_seconds.likely
    first, second = (cost, seconds) if cheapest else (seconds, cost)
    return first, second, plan.job.count, plan.needed.likely


def _missed(fitting: Sequence[tuple[int, Plan]], budget: Budget) -> str:
    known = [taken for _, plan in fitting if (taken := spent(plan, budget.kind)) is not None]
    if not known:
        return f"{len(fitting):,} fit, but none has a known price"
    least = min(taken.likely for taken in known)
    return f"none of the {len(fitting):,} that fit stays within {budget}: the least is {shown(least, budget.kind)}"


def _why(
    plan: Plan,
    budget: Budget,
    superlative: str,
    within: Sequence[tuple[int, Plan]],
    rows: Sequence[Row],
) -> str:
    limit = "" if budget.limit is None else f" and stay within {budget}"
    times, cost = plan.times, plan.times.cost
    price = "price unknown" if cost is None else shown(cost.likely, "dollars")
    words = [
        f"the {superlative} of {len(within):,} that fit{limit} ({len(rows):,} in all)",
        f"{price} in {duration(times.total_seconds.likely)} on {plan.job.count} × {plan.device.title}",
    ]
    taken = spent(plan, budget.kind)
    if budget.limit is not None and taken is not None and taken.high > budget.limit:
        words.append(f"at the upper end {shown(taken.high, budget.kind)}, over the budget")
    if plan.verdict == "tight":
        words.append("memory is tight: the upper end does not fit")
    unpriced = sum(candidate.times.cost is None for _, candidate in within)
    if superlative == "cheapest" and unpriced:
        words.append(f"{unpriced:,} without a known price left out")
    if len({candidate.job.clips_per_step for _, candidate in within}) > 1 and plan.job.mode == "train":
        words.append("rows differ in clips per step, so as many steps see different amounts of data")
    return "; ".join(words)


def shown(value: float, kind: Kind) -> str:
    """An amount of a budget for people."""
    if kind == "dollars":
        return f"${value:,.2f}"
    return duration(value * 3600) if kind == "hours" else f"{value / GIB:.1f} GiB"
