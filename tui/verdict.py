"""The verdict in words, numbers and one stacked bar; time and cost; and the fixes. Snapshots in, rows out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sora_spec.plan.planner import Plan
from sora_spec.plan.search.advised import Advice, Advised
from sora_spec.plan.show.report import barrier
from sora_spec.plan.show.snapshot import Share, Snapshot
from sora_spec.plan.show.values import fastest_values, fix_values
from sora_spec.tui.numbers import gib, percent, shown, span
from sora_spec.tui.rows import Cell, Line
from sora_spec.tui.signs import SIGNS

_WORDS = {"yes": "YES, it fits", "tight": "TIGHT, it likely fits", "no": "NO, it does not fit"}
_ROLES = {"yes": "good", "tight": "tight", "no": "bad", "cannot": "bad"}


def verdict_lines(snapshot: Snapshot, width: int, plain_bar: bool, stale: bool = False) -> list[Line]:
    """Headline, numbers, bar and legend."""
    plan, needed, headroom = snapshot.plan, snapshot.needed, snapshot.headroom
    if plan is None or needed is None or headroom is None:
        return []
    sign, job = SIGNS[snapshot.standing], plan.job
    role, fitting = ("stale" if stale else _ROLES[standing] for standing in (plan.standing, plan.verdict))
    said = barrier(job.verb) if plan.lacks else _WORDS[plan.verdict]
    words = f"{sign.mark} {said}" + (" (last good plan)" if stale else "")
    machine = f"{job.count} × {job.device.title.removeprefix('NVIDIA ').removeprefix('GeForce ')}"
    free = headroom.likely
    rest = f"{gib(free)} GiB free" if free >= 0 else f"{gib(-free)} GiB too many"
    numbers = f"{gib(needed.likely)} of {gib(snapshot.capacity)} GiB"
    spread = f"{'range ' if width >= 56 else ''}{gib(needed.low)} – {gib(needed.high)}"
    if width < 42:
        machine = ""
    if len(numbers) + len(rest) + len(spread) + 4 > width:
        spread = ""
    lines = [
        Line((Cell(words, role),), (Cell(machine, "dim"),)),
        *(Line((Cell(f"{lack.why} ({lack.path})", role),)) for lack in plan.lacks[:1]),
        Line((Cell(numbers, "strong"), Cell(f"  {rest}", fitting)), (Cell(spread, "dim"),)),
        Line(tuple(_bar(snapshot, width, plain_bar))),
    ]
    return [*lines, *_legend(snapshot.bar, width)]


def _bar(snapshot: Snapshot, width: int, plain: bool) -> Iterator[Cell]:
    """Stretches in whole cells, largest remainders first; what is free is dotted, the device's end is marked."""
    needed = snapshot.needed.likely if snapshot.needed else 0.0
    whole = max(needed, snapshot.capacity)
    cells = _apportion([share.bytes / whole for share in snapshot.bar], width)
    end = round(width * snapshot.capacity / whole)
    text, roles = "", list[str]()
    for share, count in zip(snapshot.bar, cells, strict=True):
        letter = share.stretch.letter
        text += letter * count if plain else (letter + " " * (count - 1) if count > 1 else " " * count)
        roles += [share.stretch.name] * count
    text += "·" * (width - len(text))
    roles += ["free"] * (width - len(roles))
    if end < width:
        text, roles[end] = text[:end] + "┃" + text[end + 1 :], "bad"
    start = 0
    for index in range(1, width + 1):
        if index == width or roles[index] != roles[start]:
            yield Cell(text[start:index], roles[start])
            start = index


def _apportion(shares: Sequence[float], width: int) -> list[int]:
    exact = [share * width for share in shares]
    cells = [int(value) for value in exact]
    missing = min(round(sum(exact)), width) - sum(cells)
    for index in sorted(range(len(exact)), key=lambda i: cells[i] - exact[i])[:missing]:
        cells[index] += 1
    return cells


def _legend(bar: tuple[Share, ...], width: int) -> list[Line]:
    """Largest first, as many to a row as there is room for, two rows."""
    rows: list[list[Cell]] = [[]]
    used = 0
    for share in sorted(bar, key=lambda share: -share.bytes):
        words = f" {share.stretch.title} {gib(share.bytes)}"
        size = len(words) + 3
        if used and used + size > width + 2:
            rows.append([])
            used = 0
        rows[-1] += [Cell(share.stretch.letter, share.stretch.name), Cell(f"{words}  ")]
        used += size
    return [Line((*row[:-1], Cell(row[-1].text.rstrip()))) for row in rows[:2] if row]


def problem_lines(snapshot: Snapshot, width: int) -> list[Line]:
    """Why there is no plan."""
    sign = SIGNS["errors"]
    errors = [item for item in snapshot.diagnostics if item.severity == "error"]
    if not errors:
        lines = [Line((Cell(f"{sign.mark} NO PLAN", "bad"),))]
        return lines + _wrapped(snapshot.problem, width, "plain") + _wrapped(snapshot.hint, width, "dim")
    count = f"{len(errors)} error" + ("s" if len(errors) > 1 else "")
    lines = [Line((Cell(f"{sign.mark} {count}", "bad"),), (Cell("4 shows them in the spec", "dim"),))]
    for item in errors:
        lines += _wrapped(f"{item.code} {item.where()}: {item.message}", width, "plain")
        lines += _wrapped(item.help or "", width, "dim")
    return lines


def _wrapped(text: str, width: int, role: str) -> list[Line]:
    from textwrap import wrap

    return [Line((Cell(row, role),)) for row in wrap(text, max(width, 10), subsequent_indent="  ")]


def time_lines(snapshot: Snapshot, width: int, stale: bool = False) -> list[Line]:
    """Step, whole, GPU-hours, price: the likely value and the range."""
    lines = list[Line]()
    for row in snapshot.times:
        if row.value is None:
            lines.append(Line((Cell(row.name),), (Cell("no price known", "dim"),)))
            continue
        likely = f"{shown(row.value.likely, row.unit):>9}"
        right = Cell(f"{span(row.value, row.unit):>21}" if width >= 44 else "", "dim")
        lines.append(Line((Cell(row.name),), (Cell(likely, "stale" if stale else "strong"), Cell(" "), right)))
    if len(snapshot.spends) > 1:
        words = " · ".join(f"{name} {percent(share)}" for name, share in snapshot.spends)
        lines += _wrapped(f"a step: {words}", width, "dim")
    return lines


def fix_lines(snapshot: Snapshot, advice: Advice | None) -> list[Line]:
    """One row a fix: what to change, what it then needs, and what it costs in time."""
    plan = snapshot.plan
    if plan is None:
        return []
    if advice is None:
        return [Line((Cell("searching …" if not plan.fits else "", "dim"),))]
    if plan.fits:
        return _more(advice, plan)
    if not advice.fixes:
        return [Line((Cell("nothing that the planner can change makes it fit", "dim"),))]
    return [_fix_line(number, fix, fix_values(fix, plan)) for number, fix in enumerate(advice.fixes, 1)]


def _fix_line(number: int, fix: Advised, values: dict[str, object]) -> Line:
    price = f"{gib(fix.plan.needed.likely):>5}  ×{values['time_factor']:>5.2f}"
    return Line((Cell(f"{number} ", "accent"), Cell(", ".join(fix.words))), (Cell(price, "dim"),), fix)


def _more(advice: Advice, plan: Plan) -> list[Line]:
    """The most and the fastest that fits."""
    lines = list[Line]()
    if advice.fastest is not None:
        values = fastest_values(advice.fastest, plan)
        changes = " ".join((*advice.fastest.overrides, *advice.fastest.options))
        words = f"fastest: {changes}" if changes else "this is the fastest setting that fits"
        lines.append(_advised(words, advice.fastest, values["time_factor"]))
    if advice.largest is not None:
        lines.append(_advised(f"largest batch: {advice.largest.words[0]}", advice.largest, None))
    return lines or [Line((Cell("it fits; no change is needed", "dim"),))]


def _advised(words: str, advised: Advised, factor: float | None) -> Line:
    price = f"{gib(advised.plan.needed.likely):>5}  " + (f"×{factor:>5.2f}" if factor is not None else " " * 6)
    return Line((Cell(words),), (Cell(price, "dim"),), advised)
