"""Whole training steps under FSDP2 as `train` makes them on one rank, against the plan, phase by phase.

bf16 with fp32 weights is FSDP2's mixed precision on one rank too, and so is a training with its states in host memory.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile, record_function

from sora_spec.builders.trace.allocator import memory_changes
from sora_spec.language.loading import load_spec
from sora_spec.plan.devices.machine import this_cpu
from sora_spec.plan.job import Question, planned_job
from sora_spec.plan.planner import make_plan
from sora_spec.train.data.digits import DigitsRecipe, write_digits
from sora_spec.train.data.loader import load_batches
from sora_spec.train.measuring import resident_bytes
from sora_spec.train.ranks import started_ranks
from sora_spec.train.start import build_task
from sora_spec.train.trainer import Trainer

PASS, UPDATE = "forward and backward", "optimizer"
CHANGES = {
    "bf16": ["train.precision=bf16"],
    "kept": ["train.precision=bf16", "parallel.reshard=false"],
    "accumulation": ["train.precision=bf16", "train.accumulation=2"],
    "recompute": ["train.precision=bf16", "train.recompute.kind=blocks"],
    "host": ["parallel.offload=true", "train.ema_device=cpu"],
    "no-average": ["parallel.offload=true", "parallel.reshard=false", "train.ema=0", "train.clip_grad=null"],
}

SELDOM = dict.fromkeys(("recompute", "no-average"), pytest.mark.slow)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Moving digits large and long enough for the specs."""
    folder = tmp_path_factory.mktemp("data") / "digits"
    write_digits(folder, DigitsRecipe(clips=20, frames=17, size=64))
    return folder


@pytest.fixture(autouse=True)
def no_scratch() -> Generator[None]:
    """oneDNN packs the operands of 16-bit matrix products into buffers that are not tensors."""
    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False
    yield
    torch.backends.mkldnn.enabled = before


def phase_peaks(trainer: Trainer, step: Callable[[], object]) -> dict[str, int]:
    """Most bytes alive before and in AdamW's update."""
    trainer.trained.optimizer.zero_grad(set_to_none=True)
    gc.collect()
    live = resident_bytes(trainer)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    session: Any = profiler.profiler
    events = session.kineto_results.events()
    (update,) = [e.start_ns() for e in events if e.name() == UPDATE]
    peaks = {PASS: 0, UPDATE: 0}
    for time, nbytes in memory_changes(profiler):
        live += nbytes
        phase = PASS if time < update else UPDATE
        peaks[phase] = max(peaks[phase], live)
    return peaks


@pytest.mark.parametrize("name", ["tiny-dit", pytest.param("tiny-latte", marks=pytest.mark.slow)])
@pytest.mark.parametrize("changes", [pytest.param(CHANGES[key], id=key, marks=SELDOM.get(key, ())) for key in CHANGES])
def test_steps_take_what_the_plan_says(
    name: str, changes: list[str], clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = ["vae={kind: identity}", "patch.space=8", "backbone.learn_sigma=false", "objective={kind: interpolant}"]
    more = ["sampler={kind: euler}", f"train.data={clips}", "train.batch=4", "train.workers=0", *changes]
    spec = load_spec(name, [*identity, *more])
    plan = make_plan(planned_job(spec, this_cpu(torch.get_num_threads()), Question(count=1)))
    with started_ranks(spec, "cpu", spec.train.precision) as ranks:
        trainer = Trainer(build_task(spec, "denoiser", None, ranks), ranks)
        optimizer = trainer.trained.optimizer
        update = optimizer.step

        def marked() -> None:
            with record_function(UPDATE):
                update()

        monkeypatch.setattr(optimizer, "step", marked)
        order = trainer.order(0)
        batches = load_batches(trainer.task.dataset, order, 0)
        trainer.step(0, batches, order)  # FSDP2 and AdamW prepare what they keep
        measured = phase_peaks(trainer, partial(trainer.step, 1, batches, order))
    planned = {phase.name: phase.allocated.likely for phase in plan.phases}
    assert measured == {phase: pytest.approx(planned[phase], rel=1e-4) for phase in (PASS, UPDATE)}
