"""Before a stage is trained: what its plan says about the machine that it really runs on."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sora_spec import output
from sora_spec.disk.run_folder import RunFolder, StageFolder, StageName, write_atomically
from sora_spec.errors import UserError
from sora_spec.language.schema.spec import Spec
from sora_spec.language.source import load_document
from sora_spec.plan.amounts import GIB, duration
from sora_spec.plan.devices.hardware import Device
from sora_spec.plan.devices.machine import this_cpu, this_gpu
from sora_spec.plan.interval import Interval, worst
from sora_spec.plan.job import Question, planned_job
from sora_spec.plan.memory.train_phases import LATENTS
from sora_spec.plan.planner import Plan, make_plan
from sora_spec.plan.search.advised import Advice
from sora_spec.plan.search.fixes import find_fixes
from sora_spec.plan.search.solve import solve
from sora_spec.plan.show.report import headline
from sora_spec.plan.show.values import plan_values
from sora_spec.train.ranks import Ranks

_FIXES = 3
"""Fixes that a refusal names."""


@dataclass(frozen=True)
class Preflight:
    """What is known before the first step."""

    device: Device
    """The machine as an entry of the table."""
    plan: Plan | None
    """None where the spec has parts that cannot be planned."""

    @property
    def step_allocated(self) -> Interval | None:
        """Predicted peak of one step; its sample grid, and what comes after the last one, left out."""
        if self.plan is None:
            return None
        return worst(
            phase.allocated for phase in self.plan.phases if not phase.name.startswith(("sample grid", LATENTS))
        )


def preflight(spec: Spec, stage: StageName, ranks: Ranks, force: bool, hardware: Path | None = None) -> Preflight:
    """Plan the stage on this machine and print it; on every rank alike.

    Raises UserError with exit code 1 when the likely need does not fit on one rank's device and `force` is not given.
    Ranks other than the first then exit without a word.
    """
    device, recognised = device_of(ranks.device, hardware)
    if not recognised:
        output.note(f"{device.title}: `sora-spec probe --out FILE` measures it, `train --hardware FILE` uses that")
    try:
        plan = make_plan(planned_job(spec, device, Question(count=max(ranks.world, spec.parallel.ranks), stage=stage)))
    except UserError as error:
        output.note(f"no plan is made: {error.message}")
        ranks.any(False)  # the others may have one to talk about
        return Preflight(device, None)
    output.note("\n".join(plan_lines(plan)))
    if ranks.any(not plan.fits):
        if force:
            output.warn("starting all the same, as --force says")
        elif not ranks.is_main:
            raise SystemExit(1)
        else:
            raise UserError(*refusal(plan, spec), exit_code=1)
    return Preflight(device, plan)


def device_of(device: torch.device, hardware: Path | None = None) -> tuple[Device, bool]:
    """The device of the table that this process runs on, with its real memory; and whether it was recognised."""
    if device.type == "cpu":
        sharers = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return this_cpu(torch.get_num_threads(), sharers, hardware), True
    properties: Any = torch.cuda.get_device_properties(device)
    capability = properties.major + properties.minor / 10
    return this_gpu(torch.cuda.get_device_name(device), properties.total_memory, capability, hardware)


def write_plan(folder: StageFolder, found: Preflight) -> None:
    """Record the plan in a stage's folder, with the lines of the run's own spec."""
    if found.plan is None:
        folder.plan_path.unlink(missing_ok=True)  # an earlier spec's
        return
    plan, spec_path = found.plan, RunFolder(folder.path.parent).spec_path
    fixes = () if plan.fits else tuple(find_fixes(plan.job))
    advice = Advice(fixes, solve(plan.job, "batch") if plan.fits else None)
    values = plan_values(plan, advice, load_document(str(spec_path)))
    write_atomically(folder.plan_path, json.dumps(values, indent=2) + "\n")


def plan_lines(plan: Plan) -> list[str]:
    """Verdict, peak and time in three lines."""
    job, peak, times = plan.job, plan.peak, plan.times
    what = "the VAE" if job.stage == "vae" else "the denoiser"
    steps = job.vae_training.steps if job.stage == "vae" else job.spec.train.steps
    step, whole = times.step.seconds, times.total_seconds
    return [
        f"plan of {what} on {job.count} × {plan.device.title}: {headline(plan)}",
        f"  peak: {peak.name}, {peak.allocated.likely / GIB:.3g} GiB allocated, "
        f"{peak.reserved.likely / GIB:.3g} reserved",
        f"  time: {duration(step.likely)} a step ({duration(step.low)}-{duration(step.high)}), "
        f"{steps:,} steps {duration(whole.likely)}",
    ]


def refusal(plan: Plan, spec: Spec) -> tuple[str, str]:
    """Message and hint for a plan that says no."""
    fixes = find_fixes(plan.job, spec, limit=_FIXES)[:_FIXES]
    lines = [f"{spec.name}: {headline(plan)}"]
    for fix in fixes:
        factor = fix.plan.times.total_seconds.likely / max(plan.times.total_seconds.likely, 1e-12)
        count = fix.plan.job.count
        arguments = " ".join(fix.overrides) + (f" on {count} devices" if count != plan.job.count else "")
        lines.append(f"  {arguments}  ({fix.plan.needed.likely / GIB:.1f} GiB, time × {factor:.2f})")
    if fixes:
        lines.insert(1, "it would fit with")
    return "\n".join(lines), "take one of these, or start all the same: --force" if fixes else "--force starts anyway"
