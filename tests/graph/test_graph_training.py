"""Whole training steps as `train` makes them, against the plan: what the CPU's allocator says, phase by phase.

A step is Trainer.step on real clips: gradients dropped, the VAE's encoding, forward and backward passes, clipping,
AdamW, moving average. The first step finds no optimiser state, the second one does.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.profiler import ProfilerActivity, profile, record_function

from sora_spec.builders.trace.allocator import memory_changes
from sora_spec.builders.vae.from_spec import build_vae
from sora_spec.language.loading import load_spec
from sora_spec.language.schema.spec import Spec
from sora_spec.plan.devices.machine import this_cpu
from sora_spec.plan.job import Question, planned_job
from sora_spec.plan.planner import Plan, make_plan
from sora_spec.train.captions import CaptionSource
from sora_spec.train.data.digits import DigitsRecipe, write_digits
from sora_spec.train.data.loader import load_batches
from sora_spec.train.latent_source import LatentSource
from sora_spec.train.measuring import resident_bytes
from sora_spec.train.ranks import Ranks
from sora_spec.train.start import build_task
from sora_spec.train.trainer import Trainer

SPECS = Path(__file__).parents[2] / "specs"
TINY = sorted(path.stem for path in SPECS.glob("tiny-*.yaml"))
PASS, UPDATE = "forward and backward", "optimizer"
CHANGES = {
    "plain": [],
    "recompute": ["train.recompute.kind=blocks"],
    "accumulation": ["train.accumulation=2"],
    "no-average": ["train.ema=0", "train.clip_grad=null"],
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Moving digits large and long enough for every tiny spec."""
    folder = tmp_path_factory.mktemp("data") / "digits"
    write_digits(folder, DigitsRecipe(clips=20, frames=17, size=64))
    return folder


def ready(name: str, changes: list[str], clips: Path, folder: Path) -> tuple[Spec, Trainer]:
    """A trainer of the spec on the clips, with an untrained VAE where it has one."""
    changes = [f"train.data={clips}", "train.batch=4", "train.workers=0", *changes]
    spec = load_spec(SPECS / f"{name}.yaml", changes)
    if spec.condition.kind == "text":
        changes.append(f"train.data={clips / 'clips.jsonl'}")  # whose lines have captions
        spec = load_spec(SPECS / f"{name}.yaml", changes)
    if spec.vae.kind != "identity":
        save_file(build_vae(spec).state_dict(), folder / "VAE.safetensors")
        spec = load_spec(SPECS / f"{name}.yaml", [*changes, f"vae.weights={folder / 'VAE.safetensors'}"])
    ranks = Ranks(0, 1, torch.device("cpu"))
    return spec, Trainer(build_task(spec, "denoiser", None, ranks), ranks)


def marked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its time in the profile under a name."""

    def call(*arguments: Any, **keywords: Any) -> Any:
        with record_function(name):
            return function(*arguments, **keywords)

    return call


def phase_peaks(trainer: Trainer, step: Callable[[], object]) -> dict[str, int]:
    """Most bytes alive in each phase of a step: those of encoding are left out, and the rest is cut at AdamW."""
    trainer.trained.optimizer.zero_grad(set_to_none=True)
    gc.collect()
    live = resident_bytes(trainer)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    assert profiler.profiler is not None
    events: Any = profiler.profiler.kineto_results.events()
    spans = {
        name: [(e.start_ns(), e.start_ns() + e.duration_ns()) for e in events if e.name() == name] for name in MARKS
    }
    ((update, _),) = spans[UPDATE]
    peaks = {PASS: 0, UPDATE: 0}
    for time, nbytes in memory_changes(profiler):
        live += nbytes
        if not any(start <= time <= end for start, end in spans["encode"]):
            phase = PASS if time < update else UPDATE
            peaks[phase] = max(peaks[phase], live)
    return peaks


MARKS = ("encode", UPDATE)


def planned(plan: Plan) -> dict[str, float]:
    """Allocated bytes by phase."""
    return {phase.name: phase.allocated.likely for phase in plan.phases}


def features_of_captions(trainer: Trainer) -> int:
    """Bytes that are kept of captions' features."""
    captions = getattr(trainer.task, "captions", None)
    return 0 if captions is None else sum(part.nbytes for found in captions._known.values() for part in found)


def moments(plan: Plan) -> float:
    """What the optimiser keeps from its first step on."""
    phase = next(phase for phase in plan.phases if phase.name == PASS)
    return sum(term.bytes.likely for term in phase.terms if term.name in ("AdamW moments", "AdamW step counters"))


def cases() -> list[Any]:
    """Every tiny spec under every change; in the short suite each as it is and under one change, each change met."""
    found: list[Any] = []
    for place, name in enumerate(TINY):
        for turn, (change, overrides) in enumerate(CHANGES.items()):
            seldom = turn != 0 and turn != 1 + place % (len(CHANGES) - 1)
            marks = pytest.mark.slow if seldom or (turn != 0 and place >= len(CHANGES) - 1) else ()
            found.append(pytest.param(name, overrides, marks=marks, id=f"{name}-{change}"))
    return found


@pytest.mark.parametrize(("name", "changes"), cases())
def test_steps_take_what_the_plan_says(
    name: str, changes: list[str], clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, trainer = ready(name, changes, clips, tmp_path)
    monkeypatch.setattr(LatentSource, "latents", marked("encode", LatentSource.latents))
    monkeypatch.setattr(CaptionSource, "features", marked("encode", CaptionSource.features))
    optimizer = trainer.trained.optimizer
    monkeypatch.setattr(optimizer, "step", marked(UPDATE, optimizer.step))
    plan = make_plan(planned_job(spec, this_cpu(torch.get_num_threads()), Question(count=1)))
    order = trainer.order(0)
    batches = load_batches(trainer.task.dataset, order, 0)
    (first, _), (second, kept) = [
        (phase_peaks(trainer, partial(trainer.step, number, batches, order)), features_of_captions(trainer))
        for number in range(2)
    ]
    # The plan counts no features that are kept for captions seen again, up to 64 MiB; each step keeps its own here.
    expected = {phase: nbytes + kept / 2 for phase, nbytes in planned(plan).items()}
    assert second == {phase: pytest.approx(expected[phase], rel=1e-4) for phase in (PASS, UPDATE)}
    assert first[PASS] == pytest.approx(expected[PASS] - moments(plan), rel=1e-4)
    assert first[UPDATE] == pytest.approx(expected[UPDATE], rel=1e-4)
