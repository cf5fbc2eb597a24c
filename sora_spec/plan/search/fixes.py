"""What would make a job fit: the smallest sets of changes, each with its price in time.

Axes offer settings from mild to strong. Sets of one, two and three axes are tried, cheap ones first; a set is left out
when a part of it does the job. In a set the mildest settings that fit are taken.
"""

from __future__ import annotations

from itertools import combinations, product
from typing import TYPE_CHECKING, NamedTuple

from sora_spec.errors import UserError
from sora_spec.plan.axes.all_axes import AXES
from sora_spec.plan.axes.axis import Change
from sora_spec.plan.planner import Plan, make_plan
from sora_spec.plan.search.advised import Advised, advised

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec
    from sora_spec.plan.job import Job

ENOUGH = 3
"""Fixes after which none is sought that asks for other clips or more devices."""
_DISTURBING = 3.0


class _Offer(NamedTuple):
    """What an axis can do about it."""

    place: int
    weight: float
    settings: tuple[tuple[str, Change], ...]


def find_fixes(job: Job, original: Spec | None = None, limit: int = 6) -> list[Advised]:
    """Smallest sets of changes that make the job fit, least disturbing first. Overrides start from `original`."""
    eases = [ease for axis in AXES.values() if (ease := axis.ease(job)) is not None]
    offers = [_Offer(*ease[:2], tuple(ease.settings)) for ease in sorted(eases, key=lambda ease: ease.place)]
    offers = [offer for offer in offers if offer.settings]
    found: list[tuple[frozenset[int], float, Advised]] = []
    for size in (1, 2, 3):
        for chosen in sorted(combinations(offers, size), key=lambda group: sum(offer.weight for offer in group)):
            places = frozenset(offer.place for offer in chosen)
            enough = limit if all(offer.weight < _DISTURBING for offer in chosen) else ENOUGH
            if len(found) < enough and not any(smaller <= places for smaller, _, _ in found):
                fix = _mildest(job, chosen, original)
                if fix is not None:
                    found.append((places, sum(offer.weight for offer in chosen), fix))
    found.sort(key=lambda entry: (entry[1], entry[2].plan.times.total_seconds.likely))
    return [fix for _, _, fix in found]


def _mildest(job: Job, offers: tuple[_Offer, ...], original: Spec | None) -> Advised | None:
    """The first combination of settings that fits. Where the strongest does not, nothing else is tried."""
    ranges = [range(len(offer.settings)) for offer in offers]
    order = sorted(product(*ranges), key=lambda places: (sum(places), places))
    sets = [[offer.settings[place] for offer, place in zip(offers, places, strict=True)] for places in order]
    first = _planned(job, sets[0])
    if first is None or not first[1].fits:
        strongest = next((found for each in reversed(sets[1:]) if (found := _planned(job, each))), None)
        if strongest is None or not strongest[1].fits:
            return None
        first = next(found for each in sets[1:] if (found := _planned(job, each)) and found[1].fits)
    return advised(job, original, first[1], first[0])


def _planned(job: Job, settings: list[tuple[str, Change]]) -> tuple[tuple[str, ...], Plan] | None:
    """Words and plan of these settings, or None if there can be none."""
    try:
        for _, change in settings:
            job = change.at(job)
        return tuple(words for words, _ in settings), make_plan(job)
    except UserError:
        return None
