"""How many plans a second, what they grow with, and how long `sora-spec plan` takes as a process.

    python benchmarks/plan_rate.py [--runs 9]

In process, DiT-XL/2 training on 8 devices, one core, processor time (other programs do not count): other devices, other
batches, other resolutions; a sweep; and networks of ten times the depth, which cost no more where the blocks are alike.
As a process: processor time of `plan specs/dit.yaml --gpu rtx4090`, which does not fit and so searches for fixes, and
of other verbs that plan, against `validate`, each the least of several runs that alternate.
Goals: 2,000 a second when only the machine changes, 100 when shapes change, a sweep of 2,000 rows in 10 s, a ratio of
at most 2.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sora_spec.language.changes import changed
from sora_spec.language.loading import load_spec
from sora_spec.language.source import load_document
from sora_spec.plan import Job, device_names, find_device, make_plan
from sora_spec.plan.axes.clip import sizes
from sora_spec.plan.job import Question
from sora_spec.plan.search.sweep import parse_axes, sweep

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
        return make_plan(Job(spec, devices[index % len(devices)], 8)).verdict

    def batch(index: int) -> object:
        return make_plan(Job(changed(spec, {"train.batch": 8 * (index + 3)}), devices[0], 8)).verdict

    def shape(index: int) -> object:
        values = {"clip.height": big[index][0], "clip.width": big[index][1]}
        return make_plan(Job(changed(spec, values), devices[0], 8)).verdict

    for action in (machine, batch, shape):
        action(0)
        count = {"machine": 3000, "batch": 300, "shape": 100}[action.__name__]
        print(f"{action.__name__:<14} {rate(lambda index, act=action: act(index + 1), count):8,.0f} plans/s")


def depths() -> None:
    """Networks of ever other widths, so that no graph is known: what counts is how many blocks differ."""
    spec, device = load_spec("dit"), find_device("h100")
    widths = itertools.count(16 * 72, 16)

    def plan(depth: int, every: int) -> object:
        recompute = {"kind": "blocks", "every": every} if every else {"kind": "none"}
        values = {"backbone.depth": depth, "backbone.width": next(widths), "train.recompute": recompute}
        return make_plan(Job(changed(spec, values), device, 8)).verdict

    plan(28, 0)  # the VAE's graph, which all share
    base = 0.0
    for every, words in ((0, "all alike"), (4, "one in four recomputed")):
        for depth in (28, 280):
            found = 1 / rate(lambda _, depth=depth, every=every: plan(depth, every), 20)
            base = base or found
            print(f"{f'{depth} blocks, {words}':<35} {1000 * found:5.1f} ms a plan, {found / base:.2f} × the first")


def grid() -> None:
    axes = parse_axes(["train.batch=" + ",".join(str(8 * n) for n in range(1, 101)), "train.accumulation=1,2"])
    start = time.process_time()
    rows = sweep(load_document(SPEC), Question(), device_names()[:10], [8], axes)
    seconds = time.process_time() - start
    print(f"{'sweep':<14} {len(rows) / seconds:8,.0f} rows/s, {len(rows):,} rows in {seconds:.1f} s of processor time")


def processor_seconds(command: list[str], cache: str) -> float:
    """User and system time of one run."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {"PYTHONPYCACHEPREFIX": cache}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=False, capture_output=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def as_process(runs: int) -> None:
    verbs = {
        "validate": ["validate", str(SPEC)],
        "show": ["show", str(SPEC)],
        "plan --check": ["plan", str(SPEC), "--gpu", "rtx4090", "--check"],
        "plan": ["plan", str(SPEC), "--gpu", "rtx4090"],
        "plan, one GPU": ["plan", str(SPEC), "--gpu", "rtx4090", "--count", "1"],
        "plan, it fits": ["plan", str(SPEC), "--gpu", "h100"],
        "diff": ["diff", str(SPEC), str(SPEC), "backbone.depth=14"],
    }
    best = dict.fromkeys(verbs, float("inf"))
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(runs + 1):
            for name, arguments in verbs.items():
                found = processor_seconds([sys.executable, "-m", "sora_spec", *arguments], cache)
                best[name] = min(best[name], found)
    for name, seconds in best.items():
        print(f"{name:<14} {1000 * seconds:5.0f} ms, {seconds / best['validate']:.2f} × validate")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9)
    arguments = parser.parse_args()
    in_process()
    depths()
    grid()
    as_process(arguments.runs)


if __name__ == "__main__":
    main()
