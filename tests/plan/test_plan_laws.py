"""Laws that hold for every plan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from sora_spec.loading import check_document, dump_spec, load_spec, spec_from_values
from sora_spec.plan import Job, Plan, find_device, make_plan
from sora_spec.plan.changes import changed, overrides_between
from sora_spec.plan.fixes import find_fixes
from sora_spec.plan.job import planned_job
from sora_spec.plan.solve import solve
from sora_spec.schema.spec import Spec
from sora_spec.schema.training import BlockRecompute, NoRecompute
from sora_spec.source import parse_document
from sora_spec.span import Text

BASE = load_spec("tiny-latte")
DEVICE = find_device("rtx4090")
GENTLE = settings(max_examples=8, deadline=None, phases=(Phase.explicit, Phase.generate), database=None)


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    """Small Latte-like specs."""
    heads = draw(st.sampled_from([2, 4]))
    values: dict[str, Any] = {
        "backbone.depth": draw(st.integers(2, 7)),
        "backbone.width": heads * draw(st.sampled_from([32, 48])),
        "backbone.heads": heads,
        "clip.frames": draw(st.sampled_from([4, 8])),
        "clip.height": 16 * draw(st.integers(2, 4)),
        "train.batch": 4 * draw(st.integers(1, 6)),
        "train.precision": draw(st.sampled_from(["fp32", "bf16"])),
        "train.recompute": draw(st.sampled_from([NoRecompute(), BlockRecompute(kind="blocks")])),
        "train.sample_every": None,
    }
    return changed(BASE, values)


def _train(spec: Spec, count: int = 1) -> Plan:
    return make_plan(planned_job(spec, DEVICE, count, "train"))


def _no_less(larger: Plan, smaller: Plan) -> None:
    for measure in ("allocated", "reserved", "needed"):
        assert all(a >= b for a, b in zip(getattr(larger, measure), getattr(smaller, measure), strict=True))
    seconds = larger.times.step.seconds, smaller.times.step.seconds
    assert all(a >= b for a, b in zip(*seconds, strict=True))


@GENTLE
@given(specs(), st.sampled_from(["train.batch", "clip.frames", "clip.height"]))
def test_more_of_anything_never_costs_less(spec: Spec, path: str) -> None:
    section, field = path.split(".")
    doubled = changed(spec, {path: 2 * getattr(getattr(spec, section), field)})
    _no_less(_train(doubled), _train(spec))


@GENTLE
@given(specs())
def test_sharding_never_raises_what_a_rank_keeps(spec: Spec) -> None:
    kept = [
        sum(t.bytes.likely for t in _train(spec, count).phases[-1].terms if t.name.startswith(("AdamW m", "moving")))
        for count in (1, 2, 4)
    ]
    assert kept == sorted(kept, reverse=True)


@GENTLE
@given(specs())
def test_recomputing_never_raises_activations_and_costs_time(spec: Spec) -> None:
    without = _train(changed(spec, {"train.recompute": NoRecompute()}))
    again = _train(changed(spec, {"train.recompute": BlockRecompute(kind="blocks")}))
    assert again.allocated.likely <= without.allocated.likely
    assert again.times.step.seconds.likely >= without.times.step.seconds.likely


@GENTLE
@given(specs(), st.sampled_from(["train", "generate"]))
def test_the_peak_is_the_largest_phase(spec: Spec, mode: Any) -> None:
    plan = make_plan(planned_job(spec, DEVICE, 1, mode))
    for end in range(3):
        assert plan.needed[end] == max(phase.device[end] for phase in plan.phases)
    assert plan.needed.low <= plan.needed.likely <= plan.needed.high
    low, likely, high = plan.times.total_seconds
    assert 0 < low <= likely <= high


@GENTLE
@given(specs(), st.floats(0.3, 0.95), st.sampled_from(["train", "generate"]))
def test_a_suggested_change_applied_fits(spec: Spec, share: float, mode: Any) -> None:
    needed = make_plan(planned_job(spec, DEVICE, 1, mode)).needed.likely
    small = _with_memory(int(needed * share))
    job = planned_job(spec, small, 1, mode)
    for fix in find_fixes(job, spec):
        loaded = _loaded(spec, fix.overrides)
        assert make_plan(planned_job(loaded, small, fix.count, mode)).fits


def _with_memory(nbytes: int) -> Any:
    return replace(DEVICE, memory_bytes=nbytes)


def _loaded(spec: Spec, overrides: tuple[str, ...]) -> Spec:
    """The spec with the overrides as a user would give them, checked by every rule."""
    loaded, problems = check_document(parse_document(Text("spec", dump_spec(spec)), overrides))
    assert loaded is not None, [problem.message for problem in problems]
    return loaded


@GENTLE
@given(specs())
def test_the_largest_batch_fits_and_the_next_does_not(spec: Spec) -> None:
    small = _with_memory(int(2.5 * 2**30))
    found = solve(planned_job(spec, small, 1), "batch")
    assert found is not None
    batch = found.plan.job.spec.train.batch
    assert found.plan.fits
    assert not make_plan(planned_job(changed(spec, {"train.batch": batch + 1}), small, 1)).fits


def test_overrides_between_two_specs_make_the_second_of_the_first() -> None:
    first, second = load_spec("tiny-dit"), load_spec("tiny-sit-digits")
    renamed = changed(second, {"name": first.name})
    overrides = [text for text in overrides_between(first, renamed) if not text.startswith("clip.fps")]
    assert _loaded(first, tuple(overrides)).backbone == renamed.backbone
    assert _loaded(first, tuple(overrides)).objective == renamed.objective


def test_a_spec_from_values_has_the_same_plan() -> None:
    again = spec_from_values(BASE.model_dump(mode="json"))
    one, two = (make_plan(Job(spec, DEVICE, 1, "train")) for spec in (BASE, again))
    assert one.phases == two.phases
    assert one.times == two.times
