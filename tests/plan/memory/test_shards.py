"""What FSDP2 holds on a rank, category by category, against PyTorch's `FSDPMemTracker`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sora_spec.graph import Setting, graph_from_spec
from sora_spec.graph.passes.shard import (
    Copies,
    Held,
    Sharding,
    Unit,
    Units,
    Visit,
    messages,
    unit_of,
    units_of,
    visits,
)
from sora_spec.language.loading import load_spec

MIB = 2**20
SMALL_DIT = ["backbone.depth=12", "backbone.width=384", "backbone.heads=6"]
BASE_DIT = ["backbone.depth=12", "backbone.width=768", "backbone.heads=12"]
ODD = ["backbone.depth=3", "backbone.width=84", "backbone.heads=6", "condition.classes=7", "clip.height=48"]
Case = tuple[str, list[str]]


def traced(world: int, cases: list[Case]) -> list[list[dict[str, Any]]]:
    """Snapshots of a process that traces all cases."""
    script = Path(__file__).parents[2] / "support" / "fsdp_trace.py"
    request = json.dumps({"world": world, "cases": cases})
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), request], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def predicted(name: str, overrides: list[str], world: int) -> dict[tuple[str, str], dict[str, int]]:
    """Bytes by part of the module and state, and in them by category."""
    spec = load_spec(name, overrides)
    sharding = Sharding(ranks=world, element=2 if spec.train.precision == "bf16" else 4, reshard=spec.parallel.reshard)
    units = units_of(graph_from_spec(spec, "denoiser_step", Setting(batch=2, full=True)), sharding)
    order = sorted(units.blocks)
    everything = [units.root, *units.blocks.values()]
    shard = sum(unit.shard for unit in everything)
    same = {"SHARDED_PARAM": shard}
    found: dict[tuple[str, str], dict[str, int]] = {}
    for visit in visits(units, order, sharding):
        part = "" if visit.block is None else f"blocks.{visit.block}"
        unit = units.root if visit.block is None else units.blocks[visit.block]
        if not visit.backward:
            found.setdefault((part, "AFT_PRE_FW"), same | categories(visit.during))
            continue
        found.setdefault((part, "AFT_PRE_BW"), same | categories(visit.during))
        if visit.reducing is not None:
            whole = sum(sharding.element * part for part in wholes(unit, world))
            found[part, "BEF_POST_BW"] = same | categories(visit.during) | {"UNSHARDED_GRAD": whole}
            found[part, "AFT_POST_BW"] = same | categories(visit.reducing)
    return found


def wholes(unit: Unit, world: int) -> list[int]:
    """Elements of the whole tensors, at most the padding too many."""
    return [part * world for part in unit.parts]


def categories(held: Held) -> dict[str, int]:
    """By the tracker's names."""
    return {
        "UNSHARDED_PARAM": held.gathered,
        "ALL_GATHER": held.gathering,
        "REDUCE_SCATTER": held.reducing,
        "SHARDED_GRAD": held.gradients,
    }


def assert_agrees(case: Case, world: int, snapshots: list[dict[str, Any]]) -> None:
    expected = predicted(*case, world)
    seen = {(snapshot["part"], snapshot["state"]): snapshot["bytes"] for snapshot in snapshots}
    assert expected.keys() <= seen.keys()
    assert len(expected) >= 4 * 3
    off = [
        (key, category, nbytes, seen[key].get(category, 0))
        for key, row in expected.items()
        for category, nbytes in row.items()
        if abs(nbytes - seen[key].get(category, 0)) > 0.1 * MIB
    ]
    assert off == []


def grid(*specs: Case) -> list[Case]:
    """Each spec in both precisions, with gathered weights freed and kept."""
    return [
        (name, [*overrides, f"train.precision={precision}", f"parallel.reshard={reshard}"])
        for name, overrides in specs
        for precision in ("bf16", "fp32")
        for reshard in ("true", "false")
    ]


def test_a_medium_latte_on_eight_ranks() -> None:
    latte = ("tiny-latte", ["backbone.depth=4", "backbone.width=384", "backbone.heads=6"])
    cases = [
        (latte[0], [*latte[1], "train.precision=bf16"]),
        (latte[0], [*latte[1], "train.precision=fp32", "parallel.reshard=false", "train.recompute.kind=blocks"]),
    ]
    for case, snapshots in zip(cases, traced(8, cases), strict=True):
        assert_agrees(case, 8, snapshots)


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 8])
def test_every_category_of_every_block(world: int) -> None:
    cases = grid(("dit", SMALL_DIT), ("dit", BASE_DIT), ("tiny-latte", []), ("tiny-dit", ODD))
    for case, snapshots in zip(cases, traced(world, cases), strict=True):
        assert_agrees(case, world, snapshots)


shapes = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple), min_size=1, max_size=5)


@settings(max_examples=50, deadline=None)
@given(shapes, shapes, st.integers(1, 4), st.sampled_from([2, 4]), st.booleans())
def test_more_ranks_never_hold_more_state(root, block, depth: int, element: int, reshard: bool) -> None:
    """Parts are padded, so that doubling the ranks cannot enlarge one."""
    parts = []
    for ranks in (1, 2, 4, 8):
        sharding = Sharding(ranks=ranks, element=element, reshard=reshard)
        parts.append(unit_of(root, sharding).shard + depth * unit_of(block, sharding).shard)
    assert parts == sorted(parts, reverse=True)


@settings(max_examples=50, deadline=None)
@given(shapes, shapes, st.integers(1, 4), st.sampled_from([1, 2, 8]), st.sampled_from([2, 4]), st.booleans())
def test_a_step_ends_with_reduced_gradients_alone(root, block, depth, ranks, element, reshard) -> None:
    sharding = Sharding(ranks=ranks, element=element, reshard=reshard)
    units = Units(unit_of(root, sharding), {0: unit_of(block, sharding)})
    seen = list(visits(units, [0] * depth, sharding))
    assert len(seen) == 2 * depth + 4
    last = seen[-1].reducing
    assert last is not None
    everything = units.root.reduce_output + depth * units.blocks[0].reduce_output
    assert last == Held(0, 0, units.root.reduce_input, everything)
    assert all(min(held) >= 0 for visit in seen for held in moments(visit))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(shapes, min_size=4, max_size=4),
    st.integers(1, 5),
    st.builds(
        Sharding,
        ranks=st.sampled_from([1, 2, 8]),
        element=st.sampled_from([2, 4]),
        reshard=st.booleans(),
        offload=st.booleans(),
        accumulates=st.booleans(),
    ),
)
def test_copies_that_are_passed_over_count_as_if_they_were_visited(four, times: int, sharding: Sharding) -> None:
    """A first block, two that alternate, and a last one, as in a video model."""
    root = unit_of([(5, 3)], sharding)
    units = Units(root, {block: unit_of(own, sharding) for block, own in enumerate(four)})
    short = [0, 1, 2, Copies((1, 2), times), 1, 2, 3]
    full = [0, *[1, 2] * (times + 2), 3]
    assert messages(units, short, sharding) == messages(units, full, sharding)
    spelled = list(visits(units, full, sharding))
    half, before, after = len(spelled) // 2, 4, 4 + 2 * times  # the root, a block of the ends and one copy; then those
    forward, backward = spelled[:half], spelled[half:]
    expected = forward[:before] + forward[after:] + backward[:before] + backward[after:]
    assert list(visits(units, short, sharding)) == expected


def moments(visit: Visit) -> list[Held]:
    return [held for held in (*visit.entering, visit.during, visit.copying, visit.reducing) if held is not None]


def test_keeping_weights_holds_more_and_sends_less() -> None:
    found = []
    for reshard in (True, False):
        sharding = Sharding(ranks=4, element=2, reshard=reshard)
        units = Units(unit_of([(8, 8)], sharding), {0: unit_of([(64, 64)], sharding)})
        order = [0] * 6
        peak = max(held.gathered for visit in visits(units, order, sharding) for held in moments(visit))
        found.append((peak, messages(units, order, sharding)))
    (freed, twice), (kept, once) = found
    root, block = 2 * 64, 2 * 64 * 64
    assert (freed, kept) == (root + block, root + 6 * block)
    # A ring of four passes three quarters of everything through each rank.
    assert twice.gathers == 3 * (root + 2 * 6 * block) // 4
    assert once.gathers == 3 * (root + 6 * block) // 4
    assert twice.reductions == once.reductions == 3 * 2 * (root + 6 * block) // 4
