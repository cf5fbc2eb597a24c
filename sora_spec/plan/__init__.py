"""What a spec needs and whether it fits, before anything is launched. Torch-free.

    from sora_spec.plan import Job, find_device, make_plan

    plan = make_plan(Job(spec, find_device("rtx4090"), count=1, mode="train"))
    plan.verdict                     # "yes", "tight" or "no"
    plan.allocated, plan.reserved    # bytes: low, likely, high
    plan.times.total_seconds

Tensor bytes come from the model graph (`sora_spec.graph`), which is proven against PyTorch; what no graph holds is
added as documented or estimated terms. `sora_spec.plan.search.fixes` finds what would make a job fit,
`sora_spec.plan.show.values` gives the stable JSON form.
"""

from __future__ import annotations

from sora_spec.plan.devices.hardware import Device, device_names, find_device
from sora_spec.plan.interval import Interval
from sora_spec.plan.job import Job, with_count
from sora_spec.plan.planner import Plan, make_plan

__all__ = ["Device", "Interval", "Job", "Plan", "device_names", "find_device", "make_plan", "with_count"]
