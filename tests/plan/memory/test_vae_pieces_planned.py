"""Plans of VAEs in pieces and of offloaded generation, against what really runs on the CPU and against each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sora_spec.builders.vae.from_spec import build_vae
from sora_spec.language.loading import load_spec
from sora_spec.language.tiles import cut_of
from sora_spec.plan import find_device, make_plan
from sora_spec.plan.job import Question, planned_job
from sora_spec.plan.memory.generate_phases import decode_calls, decode_work
from sora_spec.plan.planner import Plan
from sora_spec.plan.search.fixes import find_fixes

SPECS = Path(__file__).parents[3] / "specs"
GPU = find_device("rtx4090")
LONG = ["clip.frames=65", "export.frames=[9,65]", "clip.height=256", "clip.width=384", "vae.width=64"]
STREAMED, TILED = "vae.streaming=true", "vae.tiling={kind: spatial, tile: 128, overlap: 32}"


def plan(changes: list[str], device: Any = GPU, **job: Any) -> Plan:
    return make_plan(planned_job(load_spec(SPECS / "tiny-causal3d.yaml", changes), device, Question(count=1, **job)))


def phase(found: Plan, name: str) -> Any:
    return next(each for each in found.phases if each.name == name)


@pytest.mark.parametrize("changes", [[STREAMED], [TILED], [STREAMED, TILED]], ids=str)
@pytest.mark.parametrize(
    ("job", "name"),
    [({"mode": "generate"}, "decode"), ({"mode": "train"}, "encode"), ({"mode": "train"}, "sample grid: decode")],
    ids=str,
)
def test_pieces_lower_the_vaes_phases_and_no_other(changes: list[str], job: dict[str, Any], name: str) -> None:
    whole, pieces = plan(LONG, **job), plan([*LONG, *changes], **job)
    assert phase(pieces, name).allocated.likely < 0.6 * phase(whole, name).allocated.likely
    other = "denoise" if job["mode"] == "generate" else "forward and backward"
    assert phase(pieces, other).allocated == phase(whole, other).allocated


def test_streaming_takes_the_time_of_the_whole_and_tiles_take_theirs() -> None:
    """By rooflines: the same FLOPs in smaller kernels; tiles as many more as they overlap."""
    whole, streamed, tiled = (plan([*LONG, *more], mode="generate").job for more in ([], [STREAMED], [TILED]))
    flops = [decode_calls(job) * work.forward_flops for job in (whole, streamed, tiled) if (work := decode_work(job))]
    cut = cut_of(tiled.spec)
    assert cut is not None
    assert cut.tiles == 12
    assert flops[1] == flops[0]
    assert flops[2] == flops[0] * 12 * 16 * 16 / (32 * 48)


def test_one_part_at_a_time_is_the_largest_part() -> None:
    resident, alone = plan(LONG, mode="generate"), plan(LONG, mode="generate", placement="sequential")
    same = plan([*LONG, "export.offload=true"], mode="generate")
    assert [each.allocated for each in same.phases] == [each.allocated for each in alone.phases]
    terms = {each.name: {term.name for term in each.terms} for each in alone.phases}
    assert "VAE weights" not in terms["denoise"]
    assert not any(name.startswith("denoiser weights") for name in terms["decode"])
    assert alone.needed.likely < resident.needed.likely
    assert alone.times.total_seconds.likely > resident.times.total_seconds.likely, "weights travel"
    assert "one part on the device at a time" in " ".join(alone.assumptions)


def test_where_the_cpu_is_the_device_offloading_saves_nothing() -> None:
    resident, alone = (plan([], find_device("cpu"), mode="generate", placement=p) for p in ("resident", "sequential"))
    assert alone.needed == resident.needed
    assert any("saves nothing" in line for line in alone.assumptions)


@pytest.mark.parametrize("mode", ["train", "generate"])
def test_where_the_vae_does_not_fit_it_is_cut_and_then_fits(mode: Any) -> None:
    found = plan(LONG, mode=mode)
    others = [each for each in found.phases if each.name not in ("encode", "decode", "sample grid: decode")]
    room = int(1.1 * max(each.device.likely for each in others))
    assert room < found.needed.likely, "it must be the VAE that does not fit"
    spec, small = load_spec(SPECS / "tiny-causal3d.yaml", LONG), replace(GPU, memory_bytes=room)
    fixes = find_fixes(planned_job(spec, small, Question(count=1, mode=mode)), spec)
    assert fixes
    pieces = [fix for fix in fixes if any("vae.tiling" in each or "vae.streaming" in each for each in fix.overrides)]
    assert pieces
    for fix in fixes:
        applied = load_spec(SPECS / "tiny-causal3d.yaml", [*LONG, *fix.overrides])
        assert make_plan(planned_job(applied, small, Question(count=fix.plan.job.count, mode=mode))).fits


def test_pieces_and_frames_of_a_clip_are_what_generate_decodes() -> None:
    """One call of the decoder, and how many, as the pipeline makes them."""
    job = plan([*LONG, TILED], mode="generate").job
    work = decode_work(job)
    assert work is not None
    with torch.device("meta"):
        result = build_vae(load_spec(SPECS / "tiny-causal3d.yaml", LONG)).decode(torch.zeros(1, 16, 17, 16, 16))
    assert work.schedule.graph.output[0] == tuple(result.shape)
    assert decode_calls(job) == 12 * job.generated
