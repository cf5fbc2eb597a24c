"""How many plans a second, and how long `sora-spec plan` takes as a process.

    python benchmarks/plan_rate.py [--runs 9]

In process, DiT-XL/2 training on 8 devices, one core, processor time (other programs do not count): other devices, other
batches, other resolutions. As a process: processor time of `plan specs/dit.yaml --gpu rtx4090` against `validate`.
Goals: 2,000 a second when only the machine changes, 100 when shapes change, a ratio of at most 2.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sora_spec.loading import load_spec
from sora_spec.plan import Job, device_names, find_device, make_plan
from sora_spec.plan.changes import changed
from sora_spec.plan.clip_sizes import sizes
from sora_spec.plan.sweep import parse_axes, sweep
from sora_spec.source import load_document

SPEC = Path(__file__).parents[1] / "specs" / "dit.yaml"


def rate(action: Callable[[int], object], count: int) -> float:
    """Calls per second of processor time."""
    start = time.process_time()
    for index in range(count):
        action(index)
    return count / (time.process_time() - start)


def in_process() -> None:
    gc.disable()  # as the command does
    spec = load_spec("dit")
    devices = [find_device(name) for name in device_names() if name != "cpu"]
    big = sizes(spec, 12.0)[-160:]

    def machine(index: int) -> object:
        return make_plan(Job(spec, devices[index % len(devices)], 8, "train")).verdict

    def batch(index: int) -> object:
        return make_plan(Job(changed(spec, {"train.batch": 8 * (index + 3)}), devices[0], 8, "train")).verdict

    def shape(index: int) -> object:
        values = {"clip.height": big[index][0], "clip.width": big[index][1]}
        return make_plan(Job(changed(spec, values), devices[0], 8, "train")).verdict

    for action in (machine, batch, shape):
        action(0)
        count = {"machine": 3000, "batch": 300, "shape": 100}[action.__name__]
        print(f"{action.__name__:<8} {rate(lambda index, act=action: act(index + 1), count):8,.0f} plans/s")


def grid() -> None:
    axes = parse_axes(["train.batch=" + ",".join(str(8 * n) for n in range(1, 101)), "train.accumulation=1,2"])
    start = time.process_time()
    rows = sweep(load_document(SPEC), device_names()[:10], [8], "train", "denoiser", axes)
    print(f"sweep    {len(rows):,} rows in {time.process_time() - start:.1f} s of processor time")


def processor_seconds(command: list[str], runs: int, cache: str) -> float:
    """Least of several runs."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {"PYTHONPYCACHEPREFIX": cache}
    best = float("inf")
    for _ in range(runs + 1):
        before = os.times()
        subprocess.run(command, check=False, capture_output=True, env=environment)
        after = os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        best = min(best, used)
    return best


def as_process(runs: int) -> None:
    base = [sys.executable, "-m", "sora_spec"]
    commands = {
        "validate": [*base, "validate", str(SPEC)],
        "plan --check": [*base, "plan", str(SPEC), "--gpu", "rtx4090", "--check"],
        "plan": [*base, "plan", str(SPEC), "--gpu", "rtx4090"],
    }
    with tempfile.TemporaryDirectory() as cache:
        found = {name: processor_seconds(command, runs, cache) for name, command in commands.items()}
    for name, seconds in found.items():
        print(f"{name:<14} {1000 * seconds:5.0f} ms, {seconds / found['validate']:.2f} × validate")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9)
    arguments = parser.parse_args()
    in_process()
    grid()
    as_process(arguments.runs)


if __name__ == "__main__":
    main()
