"""A plan for people: 80 columns, readable without colour."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sora_spec.language.abilities import WORDS, Verb
from sora_spec.plan.amounts import GIB, duration
from sora_spec.plan.interval import Interval
from sora_spec.plan.memory.components import Part
from sora_spec.plan.memory.terms import Phase, Term
from sora_spec.plan.planner import Plan
from sora_spec.plan.search.advised import NO_ADVICE, Advice, Advised
from sora_spec.plan.search.fastest import seconds_per_clip
from sora_spec.plan.show.values import line_of
from sora_spec.recipe.parts import PartName

if TYPE_CHECKING:
    from sora_spec.language.source import Document

WIDTH = 80
_SMALL = 0.005  # share of the peak below which terms are gathered
_VERDICTS = {"yes": "YES, it fits", "tight": "TIGHT: it likely fits", "no": "NO, it does not fit"}
_WOULD = {"yes": "it would fit", "tight": "it would likely fit", "no": "nor would it fit"}


def report(plan: Plan, advice: Advice = NO_ADVICE, document: Document | None = None) -> str:
    """The whole plan."""
    blocks = [_head(plan, document), _phases(plan), _terms(plan, document), _parts(plan), _time(plan)]
    if advice.largest is not None:
        blocks.append(_largest(advice.largest))
    if advice.fastest is not None:
        blocks.append(_fastest(plan, advice.fastest))
    if not plan.fits:
        blocks.append(_fixes(plan, advice.fixes))
    blocks.append(_list("assumed", plan.assumptions))
    blocks.append(_list("not counted", plan.not_counted))
    return "\n\n".join("\n".join(block) for block in blocks if block)


def headline(plan: Plan) -> str:
    """The verdict in one line: what cannot be done first, whether it fits next."""
    needed, there = plan.needed, plan.device.memory_bytes
    free = (there - needed.likely) / GIB
    rest = f"{free:.1f} GiB free" if free >= 0 else f"{-free:.1f} GiB too many"
    barred = f"{barrier(plan.job.verb)}; {_WOULD[plan.verdict]}" if plan.lacks else ""
    return (
        f"{barred or _VERDICTS[plan.verdict]}: {needed.likely / GIB:.1f} GiB of {there / GIB:.1f} "
        f"({needed.low / GIB:.1f}-{needed.high / GIB:.1f}), {rest}"
    )


def _head(plan: Plan, document: Document | None) -> list[str]:
    job = plan.job
    what = "generate" if job.mode == "generate" else f"train the {'VAE' if job.stage == 'vae' else 'denoiser'}"
    title = f"{job.spec.name}: {what} on {job.count} × {job.device.title}"
    return [title, *_wrapped(headline(plan), "", "  "), *lack_lines(plan, document)]


def barrier(verb: Verb) -> str:
    """`CANNOT BE TRAINED`."""
    return f"cannot {WORDS[verb]}".upper()


def lack_lines(plan: Plan, document: Document | None = None) -> list[str]:
    """Why the job cannot be done, and what to do without."""
    lines = list[str]()
    for lack in plan.lacks:
        line = line_of(lack.path, document)
        place = lack.path + (f":{line}" if line else "")
        lines += [*_wrapped(f"{lack.why} ({place})", "  ", "    "), *_wrapped(lack.help, "  ", "    ")]
    return lines


def _phases(plan: Plan) -> list[str]:
    lines = [f"{'phase, GiB (likely)':<30}{'allocated':>12}{'reserved':>12}{'device':>12}"]
    peak = plan.peak
    for phase in plan.phases:
        mark = "  ← peak" if phase is peak else ""
        lines.append(f"  {phase.name:<28}" + "".join(f"{_gib(x):>12}" for x in _three(phase)) + mark)
    if plan.host.likely:
        lines.append(f"  {'in host memory, for each rank':<28}{_gib(plan.host):>11}")
    return lines


def _three(phase: Phase) -> tuple[Interval, Interval, Interval]:
    return phase.allocated, phase.reserved, phase.device


def _gib(interval: Interval) -> str:
    return f"{interval.likely / GIB:.2f}"


def _terms(plan: Plan, document: Document | None) -> list[str]:
    peak = plan.peak
    terms = sorted(peak.terms, key=lambda term: -term.bytes.likely)
    floor = _SMALL * peak.device.likely
    shown = [term for term in terms if term.bytes.likely >= floor]
    lines = [f"{'at the peak':<34}{'GiB':>7}  {'certainty':<11}from line"]
    lines += [_term_line(term, document) for term in shown]
    rest = sum(term.bytes.likely for term in terms if term.bytes.likely < floor)
    if rest:
        lines.append(f"  {f'{len(terms) - len(shown)} smaller ones':<32}{rest / GIB:>7.2f}")
    return lines


def _term_line(term: Term, document: Document | None) -> str:
    line = line_of(term.path, document)
    place = term.path + (f":{line}" if line else "")
    name = term.name.removeprefix("denoiser ")
    return f"  {name[:32]:<32}{term.bytes.likely / GIB:>7.2f}  {term.tag:<11}{place}".rstrip()


def _parts(plan: Plan) -> list[str]:
    lines = [f"{'one sample, forward':<20}{'parameters':>16}{'GFLOP':>14}{'GMAC':>14}"]
    return lines + [_part_line(name, part) for name, part in plan.components.items() if part.parameters != 0]


def _part_line(part_name: PartName, part: Part) -> str:
    name = part_name.replace("vae", "VAE").replace("_", " ")
    if part.parameters is None or part.forward_flops is None:
        return f"  {name:<18}{'unknown':>16}"
    return f"  {name:<18}{part.parameters:>16,}{part.forward_flops / 1e9:>14,.2f}{part.forward_flops / 2e9:>14,.2f}"


def _time(plan: Plan) -> list[str]:
    times, job = plan.times, plan.job
    unit = "step of the sampler" if job.mode == "generate" else "step"
    steps = job.vae_training.steps if job.stage == "vae" else job.spec.train.steps
    clips = "one clip" if job.generated == 1 else f"{job.generated} clips"
    clips += " each" if job.count > 1 else ""
    whole = clips if job.mode == "generate" else f"{steps:,} steps"
    shares = [
        f"{name} {100 * part.likely / max(times.step.seconds.likely, 1e-12):.0f} %"
        for name, part in times.step.parts.items()
        if part.likely > 0.005 * times.step.seconds.likely
    ]
    cost = "no price known" if times.cost is None else f"${times.cost.likely:,.2f}" + _between(times.cost, "${:,.2f}")
    lines = [
        "time (likely, from-to)",
        f"  {unit:<20} {duration(times.step.seconds.likely)}{_span(times.step.seconds)}",
        f"  {whole:<20} {duration(times.total_seconds.likely)}{_span(times.total_seconds)}",
        f"  {'GPU-hours':<20} {times.gpu_hours.likely:,.4g}{_between(times.gpu_hours, '{:,.4g}')}",
        f"  {'cost':<20} {cost}",
    ]
    return lines + (_wrapped(", ".join(shares), f"  {'a step spends':<20} ", " " * 23) if len(shares) > 1 else [])


def _span(seconds: Interval) -> str:
    return f" ({duration(seconds.low)}-{duration(seconds.high)})"


def _between(interval: Interval, form: str) -> str:
    return f" ({form.format(interval.low)}-{form.format(interval.high)})"


def _largest(solution: Advised) -> list[str]:
    needed, clip = solution.plan.needed.likely / GIB, solution.plan.job.spec.clip
    of = f"of {clip.frames}x{clip.height}x{clip.width}"
    lines = _wrapped(f"largest batch {of} that fits: {solution.words[0]} ({needed:.1f} GiB)", "", "  ")
    return [*lines, *arguments(solution.overrides, solution.options, "  ")]


def _fastest(plan: Plan, fastest: Advised) -> list[str]:
    if not fastest.overrides and not fastest.options:
        return ["fastest setting that fits: this one"]
    before, after = seconds_per_clip(plan).likely, seconds_per_clip(fastest.plan).likely
    price = f"{fastest.plan.needed.likely / GIB:.1f} GiB, time × {after / max(before, 1e-12):.2f}"
    lines = _wrapped(f"fastest setting that fits: {duration(after)} a clip, {price}", "", "  ")
    return [*lines, *arguments(fastest.overrides, fastest.options, "  ")]


def unsolved(field: str, least: tuple[str, Plan] | None, plan: Plan, fixes: Sequence[Advised]) -> str:
    """Why no value of a field makes a job fit, and what does."""
    lines = _wrapped(unsolved_reason(field, least, plan), "", "  ")
    return "\n".join([*lines, "", *_fixes(plan, fixes)])


def unsolved_reason(field: str, least: tuple[str, Plan] | None, plan: Plan) -> str:
    """The least that any value of the field needs, and what most of it is."""
    if least is None:
        return f"no value of {field} makes it fit: none can be planned"
    value, smallest = least
    term = max(smallest.peak.terms, key=lambda term: term.bytes.likely)
    needed, there, most = (n / GIB for n in (smallest.needed.likely, plan.device.memory_bytes, term.bytes.likely))
    return (
        f"no value of {field} makes it fit: even {value} needs {needed:.1f} GiB of {there:.1f} "
        f"({smallest.peak.name}), {most:.1f} of them {term.name}"
    )


def arguments(overrides: Sequence[str], options: Sequence[str], indent: str) -> list[str]:
    """What is to be added to the command, quoted for a shell."""
    return _wrapped(" ".join([*map(shlex.quote, overrides), *options]), indent, indent)


def _fixes(plan: Plan, fixes: Sequence[Advised]) -> list[str]:
    if not fixes:
        return ["nothing that the planner can change makes it fit"]
    lines = ["what would make it fit"]
    for number, fix in enumerate(fixes, 1):
        factor = fix.plan.times.total_seconds.likely / max(plan.times.total_seconds.likely, 1e-12)
        price = f"{fix.plan.needed.likely / GIB:.1f} GiB, time × {factor:.2f}"
        lines += _wrapped(f"{number}. {', '.join(fix.words)}: {price}", "  ", "     ")
        lines += arguments(fix.overrides, fix.options, "     ")
    return lines


def _list(title: str, entries: Sequence[str]) -> list[str]:
    return [title, *(line for entry in entries for line in _wrapped(entry, "  - ", "    "))]


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False, break_long_words=False
    )
