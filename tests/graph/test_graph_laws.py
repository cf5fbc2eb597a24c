"""Laws that hold for every spec, checked without PyTorch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sora_spec.errors import UserError
from sora_spec.graph import Memory, Setting, count, graph_from_spec, memory, saved_for_backward, verify
from sora_spec.language.loading import spec_from_values
from sora_spec.language.schema.backbone import Inserted
from sora_spec.language.schema.spec import Spec


def small_spec(depth: int = 4, **changes: Any) -> Spec:
    values: dict[str, Any] = {
        "version": 1,
        "name": "small",
        "clip": {"frames": 4, "height": 16, "width": 16},
        "vae": {"kind": "identity"},
        "patch": {"time": 1, "space": 4},
        "backbone": {"kind": "transformer", "depth": depth, "width": 32, "heads": 2, "qk_norm": True},
        "condition": {"kind": "class", "classes": 10},
        "objective": {"kind": "ddpm", "steps": 30},
        "sampler": {"kind": "ddpm", "steps": 5},
    }
    return spec_from_values(values | changes)


def run_settings() -> st.SearchStrategy[Setting]:
    return st.builds(
        Setting,
        batch=st.integers(1, 4),
        precision=st.sampled_from(("fp32", "bf16")),
        attention=st.sampled_from(("flash", "efficient", "math", "cpu")),
        recompute=st.sampled_from(("spec", "none", "blocks", "selective")),
        fused_rms_norm=st.booleans(),
        rounding=st.sampled_from((1, 512)),
        observed=st.booleans(),
        threads=st.sampled_from((0, 2)),
    )


def without_terms(found: Memory) -> Memory:
    return replace(found, terms=())


@settings(deadline=None, max_examples=60)
@given(
    run_settings(),
    st.integers(1, 14),
    st.sampled_from(("none", "joint", "alternating")),
    st.sampled_from(("sincos", "rope", "none")),
    st.integers(1, 3),
)
def test_repeated_blocks_give_what_all_blocks_give(
    setting: Setting, depth: int, temporal: str, position: str, every: int
) -> None:
    backbone = {"kind": "transformer", "depth": depth, "width": 32, "heads": 2, "position": {"kind": position}}
    recompute = {"recompute": {"kind": "blocks", "every": every}}
    spec = small_spec(backbone=backbone, temporal={"kind": temporal}, train=recompute)
    short = graph_from_spec(spec, "denoiser_step", setting)
    full = graph_from_spec(spec, "denoiser_step", replace(setting, full=True))
    verify(short)
    verify(full)
    assert count(short) == count(full)
    assert without_terms(memory(short)) == without_terms(memory(full))
    assert set(memory(short).terms) == set(memory(full).terms)
    assert set(saved_for_backward(short)) == set(saved_for_backward(full))


@settings(deadline=None, max_examples=25)
@given(run_settings(), st.integers(1, 9))
def test_terms_sum_up(setting: Setting, depth: int) -> None:
    graph = graph_from_spec(small_spec(depth), "denoiser_step", setting)
    found = memory(graph)
    assert sum(term.nbytes for term in found.terms) == found.peak_bytes
    assert sum(term.nbytes for term in saved_for_backward(graph)) == found.forward_live_bytes
    assert all(term.yaml for term in found.terms if term.region)


@settings(deadline=None, max_examples=15)
@given(run_settings())
def test_memory_never_falls_when_the_batch_or_the_clip_grows(setting: Setting) -> None:
    def peak(spec: Spec, batch: int) -> int:
        return memory(graph_from_spec(spec, "denoiser_step", replace(setting, batch=batch))).peak_bytes

    longer = small_spec(clip={"frames": 5, "height": 16, "width": 16})
    wider = small_spec(clip={"frames": 4, "height": 16, "width": 20})
    base = peak(small_spec(), setting.batch)
    assert base <= peak(small_spec(), setting.batch + 1)
    assert base <= peak(longer, setting.batch)
    assert base <= peak(wider, setting.batch)


def test_recomputation_never_keeps_more() -> None:
    kept = {
        recompute: memory(graph_from_spec(small_spec(), "denoiser_step", Setting(recompute=recompute)))
        for recompute in ("none", "selective", "blocks")
    }
    assert kept["blocks"].forward_live_bytes < kept["selective"].forward_live_bytes < kept["none"].forward_live_bytes


def test_the_number_of_ops_does_not_grow_with_depth() -> None:
    ops = {depth: len(graph_from_spec(small_spec(depth), "denoiser_step").ops) for depth in (4, 28, 1000)}
    assert len(set(ops.values())) == 1


def test_labels_name_the_blocks_that_are_repeated() -> None:
    graph = graph_from_spec(small_spec(28), "denoiser_step")
    labels = {graph.label(region) for region in range(len(graph.regions))}
    assert {"backbone.blocks[0].mlp", "backbone.blocks[1..26].mlp", "backbone.blocks[27].mlp"} <= labels


def test_what_cannot_be_lowered_is_refused() -> None:
    spec = small_spec().model_copy(update={"temporal": Inserted(kind="inserted")})
    with pytest.raises(UserError, match=r"temporal: {kind: inserted}"):
        graph_from_spec(spec, "denoiser")
