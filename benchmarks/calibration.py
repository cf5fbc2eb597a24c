"""Where `efficiency` in `sora_spec/hardware.yaml` comes from: published times, a fit of two numbers, what it misses.

    python benchmarks/calibration.py

The time of a run is that of `sora_spec.plan.time.timing`: FLOPs over the rate of their class, and bytes over the
memory's rate, added. What single kernels reach others measured (`kernels` in `published.yaml`). Two numbers are fitted,
the same for all devices: how much longer whole programs take than their kernels, and how many times the bytes they move
that the model graph counts. For runs that a spec can say, the graph counts FLOPs and bytes. For other models the FLOPs
of the released classes stand in, and 43 passes over the tokens in bf16, as the graph counts for a block of VDiT.

The fit takes the least sum of absolute logarithms of published over predicted, which single outliers hardly move. Runs
of one program on one device at several sizes are one observation. Three tests, none of which sees what it predicts:
leave one program out, leave a family of models out, leave a chip out. An interval is the spread of the other programs'
residuals under the same test.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from sora_spec.language.loading import load_spec
from sora_spec.plan import Device, Interval, Job, Plan, find_device, make_plan
from sora_spec.plan.interval import exactly
from sora_spec.plan.time.timing import message_seconds

DATA: dict[str, Any] = YAML(typ="safe").load((Path(__file__).parent / "published.yaml").read_text())
PASSES = 43
COPY = 0.8
"""Share of the memory's rate that one pointwise kernel reaches."""
COVERAGE = 0.85
"""Share of the observations that a stated interval is to hold."""
SAME_CHIP = {"a100-40gb": "a100-80gb", "a800": "a100-80gb", "h200": "h100", "h800": "h100"}
STEPS = {"step_seconds", "samples_per_second", "total_seconds"}
_NEVER = 1e9


class Slower(NamedTuple):
    """The fit: whole programs against their kernels, and bytes moved against bytes counted."""

    kernels: float
    bytes: float


@dataclass(frozen=True)
class Row:
    """One published time, taken apart."""

    name: str
    program: tuple[str, str]
    family: str
    device: str
    kernels: float
    """Seconds of its matrix products and attention at what kernels reach."""
    memory: float
    """Seconds of the bytes that are counted at what copies reach."""
    rest: float
    """Seconds that the fit does not touch: the optimiser, starts of kernels, products outside the tensor cores."""
    seconds: float
    source: str

    def predicted(self, slower: Slower) -> float:
        """Seconds at a fit."""
        return slower.kernels * self.kernels + slower.bytes * self.memory + self.rest


def kernels_of(name: str) -> dict[str, Any]:
    """What kernels reach on a device, by class."""
    return DATA["kernels"][SAME_CHIP.get(name, name)]


def device_at(name: str, slower: Slower, matrix: float | None = None, memory: float | None = None) -> Device:
    """A device with the efficiency of a fit."""
    best = kernels_of(name)
    return replace(
        find_device(name),
        efficiency=exactly(matrix or best["matrix"] / slower.kernels),
        attention_efficiency=exactly(matrix or best["attention"] / slower.kernels),
        memory_efficiency=exactly(memory or COPY / slower.bytes),
    )


def plan_of(run: dict[str, Any], device: Device) -> Plan:
    """A run of `published.yaml` on a device."""
    # Whether a program let matrices be multiplied in TF32 is its own matter, and stands among its settings.
    spec = load_spec(run["spec"], ["train.tf32=false", *run["set"]])
    return make_plan(Job(spec, device, 1, mode=run["mode"], **run.get("settings", {})))


def _seconds(plan: Plan) -> float:
    return plan.times.step.seconds.likely if plan.job.mode == "train" else plan.times.total_seconds.likely


def _run_row(run: dict[str, Any]) -> Row | None:
    """Of a run with a published time: its parts are what vanishes where a rate has no end."""
    timed = STEPS & set(run["figures"])
    if not timed:
        return None
    name, one = run["device"], Slower(1, 1)
    whole, no_kernels, no_memory = (
        _seconds(plan_of(run, device_at(name, one, *rates))) for rates in ((), (_NEVER,), (None, _NEVER))
    )
    figure = timed.pop()
    value = run["figures"][figure]
    if figure == "samples_per_second":
        value = plan_of(run, find_device(name)).job.micro_batch / value
    kernels, memory = whole - no_kernels, whole - no_memory
    program = (run.get("program", run["name"]), name)
    rest = whole - kernels - memory
    return Row(run["name"], program, run["family"], name, kernels, memory, rest, value, run["source"])


def _generation_row(entry: dict[str, Any]) -> Row:
    device, best = find_device(entry["device"]), kernels_of(entry["device"])
    flops = entry["linear"] / best["matrix"] + entry["attention"] / best["attention"]
    moved = 2 * PASSES * entry["tokens"] * entry["width"] * entry["layers"]
    return Row(
        entry["model"],
        (entry.get("program", entry["model"]), entry["device"]),
        entry["family"],
        entry["device"],
        entry["calls"] * flops / device.rate("bf16"),
        entry["calls"] * moved / (device.bandwidth * COPY),
        0.0,
        entry["seconds"],
        entry["source"],
    )


@cache
def rows() -> tuple[Row, ...]:
    """Every published time."""
    runs = (_run_row(run) for run in DATA["runs"])
    return (*(row for row in runs if row is not None), *(_generation_row(entry) for entry in DATA["generations"]))


Keep = Callable[[Row, Row], bool]
TESTS: dict[str, Keep] = {
    "one program": lambda row, other: row.program != other.program,
    "one family of models": lambda row, other: row.family != other.family,
    "one chip": lambda row, other: SAME_CHIP.get(row.device, row.device) != SAME_CHIP.get(other.device, other.device),
}


@cache
def weights() -> dict[tuple[str, str], float]:
    """One vote for every program on a device."""
    return {program: 1 / count for program, count in Counter(row.program for row in rows()).items()}


def fitted(kept: list[Row]) -> Slower:
    """The two numbers, to a twentieth and a tenth."""
    parts = [(weights()[row.program], row.kernels, row.memory, row.rest, row.seconds) for row in kept]

    def cost(slower: Slower) -> float:
        a, b = slower
        return sum(vote * abs(math.log(time / (a * k + b * m + rest))) for vote, k, m, rest, time in parts)

    return min((Slower(a / 20, b / 10) for a in range(16, 33) for b in range(8, 61)), key=cost)


@cache
def residuals(test: str) -> tuple[float, ...]:
    """Logarithm of published over predicted, each row predicted from those that the test leaves."""
    keep = TESTS[test]
    fits: dict[tuple[Row, ...], Slower] = {}
    found: list[float] = []
    for row in rows():
        kept = tuple(other for other in rows() if keep(row, other))
        if kept not in fits:
            fits[kept] = fitted(list(kept))
        found.append(math.log(row.seconds / row.predicted(fits[kept])))
    return tuple(found)


def without(program: tuple[str, str]) -> Slower:
    """The fit that has not seen a program."""
    return fitted([row for row in rows() if row.program != program])


def quantile(values: list[tuple[float, float]], share: float) -> float:
    """Of weighted values."""
    wanted, reached = share * sum(weight for _, weight in values), 0.0
    for value, weight in sorted(values):
        reached += weight
        if reached >= wanted - 1e-9:
            return value
    return values[-1][0]


def spread(test: str, unseen: tuple[str, str] | None = None) -> float:
    """Half-width, as a factor, that holds the wanted share of observations."""
    sizes = [
        (abs(value), weights()[row.program])
        for row, value in zip(rows(), residuals(test), strict=True)
        if row.program != unseen
    ]
    return math.exp(quantile(sizes, COVERAGE))


def covered(test: str) -> tuple[float, int]:
    """Observations within the interval that the others' residuals make, of how many."""
    inside = sum(
        weights()[row.program] * (abs(value) <= math.log(spread(test, row.program)))
        for row, value in zip(rows(), residuals(test), strict=True)
    )
    return inside, len(weights())


def errors(test: str) -> list[tuple[float, float]]:
    """Relative errors of the predictions with their weights."""
    return [
        (abs(math.exp(-value) - 1), weights()[row.program]) for row, value in zip(rows(), residuals(test), strict=True)
    ]


def shares(name: str) -> dict[str, Interval]:
    """`efficiency` of a device: what its kernels reach, divided by the fit, with the interval of a program left out."""
    slower, width, best = fitted(list(rows())), spread("one program"), kernels_of(name)
    likely = {
        "matrix": best["matrix"] / slower.kernels,
        "attention": best["attention"] / slower.kernels,
        "memory": COPY / slower.bytes,
    }
    return {
        kind: Interval(round(value / width, 3), round(value, 3), round(min(1.0, value * width), 3))
        for kind, value in likely.items()
    }


def scaled(entry: dict[str, Any], ranks: int) -> float:
    """A generation on several ranks: its work shared, queries, keys, values and results exchanged in every layer."""
    volume = entry["tokens"] * entry["width"] * entry["layers"] * entry["calls"]
    nbytes = 4 * 2 * volume / ranks * (ranks - 1) / ranks
    return entry["seconds"][1] / ranks + message_seconds(nbytes, find_device(entry["device"]), ranks).likely


def main() -> None:
    slower = fitted(list(rows()))
    print(f"programs take {slower.kernels:.2f} × their kernels and move {slower.bytes:.1f} × the bytes counted\n")
    for name in DATA["kernels"]:
        print(f"{name:<10} " + ", ".join(f"{kind}: {list(share)}" for kind, share in shares(name).items()))
    print()
    for row, residual in zip(rows(), residuals("one program"), strict=True):
        guess = row.seconds / math.exp(residual)
        error = 100 * (guess / row.seconds - 1)
        print(f"{row.name:<42} {row.device:<10} {row.seconds:9.3f} s, predicted {guess:9.3f} ({error:+.0f} %)")
    print()
    for name in TESTS:
        found, (inside, count) = errors(name), covered(name)
        each = [error for error, _ in found]
        print(
            f"leave out {name:<22} median error {100 * quantile(found, 0.5):4.1f} % of {count} programs, "
            f"{100 * statistics.median(each):.1f} % of {len(each)} rows, largest {100 * max(found)[0]:.0f} %; "
            f"an interval of a factor {spread(name):.2f} covers {inside:.1f}"
        )
    print()
    for entry in DATA["scaling"]:
        for ranks, seconds in entry["seconds"].items():
            if ranks > 1:
                guess = scaled(entry, ranks)
                print(
                    f"{entry['model']:<20} {ranks} × {entry['device']:<10} {seconds:8.1f} s, predicted {guess:8.1f} "
                    f"({100 * (guess / seconds - 1):+.0f} %)"
                )


if __name__ == "__main__":
    main()
