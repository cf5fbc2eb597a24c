"""A real forward and backward pass under FSDP2: what the allocator says equals what the plan says, to the byte."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from sora_spec.builders.denoiser import build_denoiser
from sora_spec.builders.diffusion.losses import build_loss
from sora_spec.builders.trace.allocator import watched
from sora_spec.graph import Setting, graph_from_spec
from sora_spec.graph.passes.shard import Sharding, units_of
from sora_spec.language.loading import load_spec
from sora_spec.language.schema.spec import Spec
from sora_spec.language.shapes import derive_shapes
from sora_spec.plan.memory.schedule import schedule_of
from sora_spec.plan.memory.sharded import ShardedPeak, sharded_peak
from sora_spec.train import ranks as ranks_module
from sora_spec.train.ranks import Cut, Ranks, apply_ranks
from sora_spec.train.recompute import recompute_blocks

CPU = torch.device("cpu")
BATCH = 2


@contextmanager
def group(world: int) -> Generator[None]:
    """The first of `world` ranks; the others are not there, and nothing waits for them."""
    alone: Any = dist
    if world == 1:
        dist.init_process_group("gloo", rank=0, world_size=1, store=alone.HashStore())
    else:
        dist.init_process_group("fake", rank=0, world_size=world, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()


def real_peak(spec: Spec, world: int, monkeypatch: pytest.MonkeyPatch, passes: int = 1) -> int:
    """Of the last of `passes` passes whose gradients add up."""
    network = build_denoiser(spec)
    recompute_blocks(network.blocks, spec.train.recompute)
    # One rank in fp32 needs no FSDP2, but can have it.
    monkeypatch.setattr(ranks_module, "uses_fsdp", lambda *_: True)
    apply_ranks(network, spec, spec.train.precision, Ranks(0, world, CPU), Cut(parts=tuple(network.blocks)))
    objective, latent = build_loss(spec), derive_shapes(spec).latent
    latents, noise, time = torch.randn(BATCH, *latent), torch.randn(BATCH, *latent), torch.rand(BATCH)
    labels = torch.zeros(BATCH, dtype=torch.int64) if spec.condition.kind == "class" else None

    def step() -> None:
        def denoise(noisy: Tensor, at: Tensor) -> Tensor:
            return network(noisy, at, labels)

        torch.autograd.backward(objective(denoise, latents, time, noise).mean())

    step()  # FSDP2 and the loss prepare what they keep
    network.zero_grad(set_to_none=True)
    for _ in range(passes - 1):
        step()
    gc.collect()
    return watched(step).most


def predicted_peak(spec: Spec, world: int, accumulates: bool = False) -> ShardedPeak:
    threads = torch.get_num_threads()
    setting = Setting(batch=BATCH, precision=spec.train.precision, attention="cpu", threads=threads)
    element = 2 if spec.train.precision == "bf16" else 4
    sharding = Sharding(world, element=element, reshard=spec.parallel.reshard, accumulates=accumulates, on_cpu=True)
    return sharded_peak(schedule_of(spec, "denoiser_step", setting), BATCH, sharding)


def height(peak: ShardedPeak) -> int:
    return peak.activation_bytes + peak.whole_gradient_bytes + peak.held.total


def ranked(name: str, world: int, *overrides: str) -> Spec:
    return load_spec(name, [*overrides, f"parallel.shard={world}", f"train.batch={BATCH * world * 2}"])


@pytest.fixture(autouse=True)
def no_scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN packs the operands of 16-bit matrix products into buffers that are not tensors."""
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False, raising=False)


ODD = ["backbone.depth=3", "backbone.width=84", "backbone.heads=6", "condition.classes=7", "clip.height=48"]
CASES = [
    ("tiny-latte", 1, ["train.precision=bf16"]),
    ("tiny-dit", 1, ["train.precision=bf16", "parallel.reshard=false"]),
    ("tiny-dit", 2, ["train.precision=bf16", "train.recompute.kind=blocks"]),
    ("tiny-sit-digits", 8, ["parallel.reshard=false"]),
]
MORE = [
    ("tiny-dit", 1, []),
    ("tiny-dit", 8, ["train.precision=bf16", "parallel.reshard=false", *ODD]),
    ("tiny-dit", 8, ["train.precision=fp32", *ODD]),
    *[
        (name, world, [f"train.precision={precision}", f"parallel.reshard={reshard}", *more])
        for name in ("tiny-dit", "tiny-latte", "tiny-sit-digits")
        for world in (1, 2, 8)
        for precision in ("bf16", "fp32")
        for reshard in ("true", "false")
        for more in ([], ["train.recompute.kind=blocks", "train.recompute.every=2"], ["temporal.kind=joint"])
    ],
]


@pytest.mark.parametrize(
    ("name", "world", "overrides"), [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE)], ids=str
)
def test_a_step_peaks_where_the_plan_says(name: str, world: int, overrides: list[str], monkeypatch) -> None:
    spec = ranked(name, world, *overrides)
    with group(world):
        real = real_peak(spec, world, monkeypatch)
    assert height(predicted_peak(spec, world)) == pytest.approx(real, rel=1e-4)


@pytest.mark.parametrize(("world", "precision"), [(1, "bf16"), (2, "fp32")])
def test_gradients_that_add_up(world: int, precision: str, monkeypatch) -> None:
    """The reduced gradients of the first pass are there when the second begins."""
    spec = ranked("tiny-sit-digits", world, f"train.precision={precision}", "train.accumulation=2")
    with group(world):
        real = real_peak(spec, world, monkeypatch, passes=2)
    units = units_of(graph_from_spec(spec, "denoiser_step", Setting(full=True)), Sharding(world))
    there = units.root.reduce_output + sum(unit.reduce_output for unit in units.blocks.values())
    assert height(predicted_peak(spec, world, accumulates=True)) - there == pytest.approx(real, rel=1e-4)


@pytest.mark.parametrize(("shard", "replicate"), [(1, 4), (2, 2)])
def test_replicas_sum_gradients_in_place(shard: int, replicate: int, monkeypatch) -> None:
    """An all-reduce writes where it reads; shards of one rank are plain data parallelism."""
    shared = f"parallel.replicate={replicate}", f"train.batch={BATCH * shard * replicate}"
    spec = load_spec("tiny-dit", [*shared, f"parallel.shard={shard}"])
    with group(shard * replicate):
        real = real_peak(spec, shard * replicate, monkeypatch)
    assert height(predicted_peak(spec, shard)) == pytest.approx(real, rel=1e-4)


def test_what_is_alive_adds_up_to_the_peak() -> None:
    for name, world, overrides in MORE:
        found = predicted_peak(ranked(name, world, *overrides), world)
        assert sum(nbytes for _, nbytes in found.by_path) == found.activation_bytes


def test_repeated_blocks_count_as_if_they_were_spelled_out() -> None:
    for world, reshard in ((1, "true"), (4, "false"), (8, "true")):
        spec = ranked("tiny-latte", world, "backbone.depth=16", f"parallel.reshard={reshard}")
        setting = Setting(batch=BATCH, attention="cpu")
        sharding = Sharding(world, reshard=spec.parallel.reshard)
        short, full = (
            sharded_peak(schedule_of(spec, "denoiser_step", which), BATCH, sharding)
            for which in (setting, Setting(batch=BATCH, attention="cpu", full=True))
        )
        assert short == full
