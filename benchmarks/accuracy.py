"""Predicted against published: counts, memory, time of all runs that the language can express; writes docs/accuracy.md.

    python benchmarks/accuracy.py

`published.yaml` holds the runs: a packaged spec, the overrides that a user would give, the device, what was published,
and what the run did that the spec cannot say. Nothing is corrected for the latter: the errors are those that a reader
of the plan would meet. Nothing of memory is fitted. Times are predicted by a fit that has not seen the program, and
with the interval that the other programs' residuals make (`benchmarks/calibration.py`).
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import calibration

from sora_spec.plan import Interval, Plan, find_device
from sora_spec.plan.interval import exactly

PAGE = Path(__file__).parents[1] / "docs" / "accuracy.md"
MIB = 2**20
GIB = 2**30


def _per_second(plan: Plan) -> Interval:
    low, likely, high = plan.times.step.seconds
    return Interval(*(plan.job.micro_batch / seconds for seconds in (high, likely, low)))


def _parameters(plan: Plan) -> int:
    return plan.components["denoiser"].parameters or 0


def _vae(plan: Plan) -> int:
    """The halves hold the 1 × 1 convolutions that diffusers keeps apart."""
    return (plan.components["vae_encoder"].parameters or 0) + (plan.components["vae_decoder"].parameters or 0)


@dataclass(frozen=True)
class Quantity:
    """A kind of figure: its unit, and where a plan says it."""

    unit: str
    read: Callable[[Plan], Interval]
    kind: str
    """count, memory, time or fit."""


QUANTITIES: dict[str, Quantity] = {
    "parameters": Quantity("parameters", lambda p: exactly(_parameters(p)), "count"),
    "millions": Quantity("M parameters", lambda p: exactly(_parameters(p) / 1e6), "count"),
    "vae_parameters": Quantity("parameters", lambda p: exactly(_vae(p)), "count"),
    "giga_macs": Quantity("GMAC", lambda p: exactly((p.components["denoiser"].forward_macs or 0) / 1e9), "count"),
    "tera_flops": Quantity("TFLOP", lambda p: exactly((p.components["denoiser"].forward_flops or 0) / 1e12), "count"),
    "allocated_mib": Quantity("MiB allocated", lambda p: p.allocated.times(1 / MIB), "memory"),
    "reserved_mib": Quantity("MiB reserved", lambda p: p.reserved.times(1 / MIB), "memory"),
    "device_mib": Quantity("MiB on the device", lambda p: p.needed.times(1 / MIB), "memory"),
    "device_gib": Quantity("GiB on the device", lambda p: p.needed.times(1 / GIB), "memory"),
    "step_seconds": Quantity("s a step", lambda p: p.times.step.seconds, "time"),
    "samples_per_second": Quantity("samples/s/GPU", _per_second, "time"),
    "total_seconds": Quantity("s a clip", lambda p: p.times.total_seconds, "time"),
    "fits": Quantity("fits", lambda p: exactly(p.fits), "fit"),
}


@dataclass(frozen=True)
class Figure:
    """One published number and its prediction."""

    run: dict[str, Any]
    quantity: Quantity
    published: float
    predicted: Interval

    @property
    def with_known(self) -> float:
        """The likely value and what is known of the run's memory beside it."""
        per_unit = {"MiB": MIB, "GiB": GIB}[self.quantity.unit.partition(" ")[0]]
        return self.predicted.likely + self.run.get("known_bytes", 0) / per_unit

    @property
    def error(self) -> float:
        """Relative error of the likely value."""
        return self.predicted.likely / self.published - 1

    @property
    def inside(self) -> bool:
        """Whether the published value lies in the interval."""
        return self.predicted.low <= self.published <= self.predicted.high


def figures() -> list[Figure]:
    """Every published number of every run."""
    found: list[Figure] = []
    for run in calibration.DATA["runs"]:
        plan = calibration.plan_of(run, find_device(run["device"]))
        for name, value in run["figures"].items():
            quantity = QUANTITIES[name]
            predicted = _unseen(run, quantity) if quantity.kind == "time" else quantity.read(plan)
            found.append(Figure(run, quantity, float(value), predicted))
    return found


def _unseen(run: dict[str, Any], quantity: Quantity) -> Interval:
    """A time by a fit, and with an interval, to which the program did not contribute."""
    program = (run.get("program", run["name"]), run["device"])
    plan = calibration.plan_of(run, calibration.device_at(run["device"], calibration.without(program)))
    likely = quantity.read(plan).likely
    factor = calibration.spread("one program", program)
    return Interval(likely / factor, likely, likely * factor)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _counts(rows: list[Figure]) -> list[str]:
    lines = ["| model | unit | published | predicted | error | source |", "|---|---|---|---|---|---|"]
    for row in rows:
        cells = (
            row.run["name"],
            row.quantity.unit,
            _number(row.published),
            _number(row.predicted.likely),
            f"{100 * row.error:+.2f} %",
            row.run["source"],
        )
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _estimates(rows: list[Figure]) -> list[str]:
    lines = [
        "| run | device | unit | published | predicted | from | to | error | inside |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, likely, high = row.predicted
        cells = (
            row.run["name"],
            row.run["device"],
            row.quantity.unit,
            *(_number(value) for value in (row.published, likely, low, high)),
            f"{100 * row.error:+.0f} %",
            "yes" if row.inside else "no",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _distribution(rows: list[Figure], within: float) -> str:
    errors = sorted(abs(row.error) for row in rows)
    return (
        f"{len(rows)} figures: median error {100 * statistics.median(errors):.0f} %, "
        f"{sum(error <= within for error in errors)} within {100 * within:.0f} %, largest {100 * errors[-1]:.0f} %; "
        f"the interval holds {sum(row.inside for row in rows)}."
    )


def _met(rows: list[Figure]) -> str:
    """Whether three quarters of the figures are within a tenth."""
    share = sum(abs(row.error) <= 0.10 for row in rows) / len(rows)
    return f"met with {100 * share:.0f} %" if share >= 0.75 else f"missed with {100 * share:.0f} %"


def _memory(rows: list[Figure]) -> list[str]:
    lines = [
        "| run | device | unit | published | predicted | from | to | error | inside | with what is known | error |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row, line in zip(rows, _estimates(rows)[2:], strict=True):
        known = row.with_known
        lines.append(f"{line} {_number(known)} | {100 * (known / row.published - 1):+.0f} % |")
    return lines


def _verdicts(rows: list[Figure]) -> list[str]:
    lines = ["| run | device | published | predicted |", "|---|---|---|---|"]
    words = {0.0: "does not fit", 1.0: "fits"}
    return lines + [
        f"| {row.run['name']} | {row.run['device']} | {words[row.published]} | {words[float(row.predicted.likely)]} |"
        for row in rows
    ]


def _remarks(rows: list[Figure]) -> list[str]:
    told: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        run = f"{row.run['name']}, {row.run['device']}"
        names = told.setdefault((row.run["source"], row.run.get("differs", "")), [])
        if run not in names:
            names.append(run)
    return [
        f"- {'; '.join(names)}: {source}." + (f" What the plan does not know: {differs}." if differs else "")
        for (source, differs), names in told.items()
    ]


def _fit() -> list[str]:
    lines = [
        "| left out | median error by program | by row | largest | an interval of a factor | covers |",
        "|---|---|---|---|---|---|",
    ]
    for name in calibration.TESTS:
        errors, (inside, count) = calibration.errors(name), calibration.covered(name)
        each = [error for error, _ in errors]
        lines.append(
            f"| {name} | {100 * calibration.quantile(errors, 0.5):.1f} % | {100 * statistics.median(each):.1f} % | "
            f"{100 * max(each):.0f} % | {calibration.spread(name):.2f} | {inside:.1f} of {count} programs |"
        )
    return lines


def _generations() -> list[str]:
    lines = ["| model | device | published, s | predicted, s | error | source |", "|---|---|---|---|---|---|"]
    unsayable = {(entry["model"], entry["device"]) for entry in calibration.DATA["generations"]}
    for row, residual in zip(calibration.rows(), calibration.residuals("one program"), strict=True):
        if (row.name, row.device) in unsayable:
            guess = row.seconds / math.exp(residual)
            lines.append(
                f"| {row.name} | {row.device} | {_number(row.seconds)} | {_number(guess)} | "
                f"{100 * (guess / row.seconds - 1):+.0f} % | {row.source} |"
            )
    return lines


def _identities() -> list[str]:
    lines = ["| what | published, GiB | parameters × bytes, GiB | error | source |", "|---|---|---|---|---|"]
    for entry in calibration.DATA["identities"]:
        guess = sum(count * width for count, width in entry["terms"]) / 2**30
        error = 100 * (guess / entry["gib"] - 1)
        lines.append(f"| {entry['what']} | {entry['gib']} | {guess:.2f} | {error:+.1f} % | {entry['source']} |")
    return lines


def _scaling() -> list[str]:
    lines = ["| model | devices | published, s | predicted, s | error |", "|---|---|---|---|---|"]
    for entry in calibration.DATA["scaling"]:
        for ranks, seconds in entry["seconds"].items():
            if ranks > 1:
                guess = calibration.scaled(entry, ranks)
                lines.append(
                    f"| {entry['model']} | {ranks} × {entry['device']} | {_number(seconds)} | {_number(guess)} | "
                    f"{100 * (guess / seconds - 1):+.0f} % |"
                )
    return lines


def page() -> str:
    """The page as text."""
    rows = figures()
    of = {kind: [row for row in rows if row.quantity.kind == kind] for kind in ("count", "memory", "time", "fit")}
    trained = [row for row in of["time"] if row.run["mode"] == "train"]
    generated = [row for row in of["time"] if row.run["mode"] == "generate"]
    slower = calibration.fitted(list(calibration.rows()))
    known = [abs(row.with_known / row.published - 1) for row in of["memory"]]
    lines = [
        "# How far off the planner is",
        "",
        "Written by `python benchmarks/accuracy.py` from `benchmarks/published.yaml`. Parameters, FLOPs and tensor",
        "bytes are compared with PyTorch itself by `sora-spec plan SPEC --verify`; here stand figures that others",
        "published, and what the planner says of the same runs. What a run did that a spec cannot say is told and not",
        "corrected for.",
        "",
        "## Counts",
        "",
        *_counts(of["count"]),
        "",
        "GMAC: the papers count a multiply-accumulate as one; DiT's counter adds the norms, Latte's users count the",
        "modulation once for every frame.",
        "",
        "## Memory",
        "",
        _distribution(of["memory"], 0.10),
        f"With DDP's buckets, which are known of one run by their size: median error "
        f"{100 * statistics.median(known):.0f} %, {sum(error <= 0.10 for error in known)} within 10 %.",
        "",
        *_memory(of["memory"]),
        "",
        f"The aim, within 10 % for three quarters, is {_met(of['memory'])}. No number of memory is fitted to these",
        "runs, but which kernel's scratch convolutions take was settled with them in sight.",
        "Frames of a decoding pass, kernels and the text encoder's precision are those of the programs' sources; the",
        "scratch is explained in planner.md. fast-DiT's third run is far off: it trains under autocast,",
        "which keeps residuals and norms in fp32 beside half-precision copies, and perhaps with written-out attention;",
        "its source leaves that to the version of a library. Open-Sora's G are read as 1024³ bytes, as its code counts",
        "(`GIGABYTE` in opensora/utils/misc.py).",
        "",
        "## Time",
        "",
        f"Two numbers are fitted to all published times: programs take {slower.kernels:.2f} times as long as their",
        f"kernels at their best, and move {slower.bytes:.1f} times the bytes that the model graph counts. Every time",
        "below is predicted by a fit, and with an interval, that have not seen its program. Runs of one program on one",
        "device at several sizes are one observation in the fit and in this table:",
        "",
        *_fit(),
        "",
        "### Training",
        "",
        _distribution(trained, 0.15),
        "",
        *_estimates(trained),
        "",
        "### Generation",
        "",
        _distribution(generated, 0.15),
        "",
        *_estimates(generated),
        "",
        "Open-Sora 1.2 writes out its RMS norm and, across frames, its attention in fp32; planned with fused kernels",
        "its times came out at half. Published times of single images are whole seconds. Open-Sora-Plan 1.2 attends",
        "under masks, which rule flash kernels out; how much slower the others are on H100 is not published.",
        "",
        "## Whether it fits",
        "",
        *_verdicts(of["fit"]),
        "",
        "## What the runs were",
        "",
        *_remarks([row for row in rows if row.quantity.kind != "count"]),
        "",
        "## Models that the language cannot say",
        "",
        "Joint streams of text and video, or parts of their own. Their FLOPs were counted on the released classes;",
        "only the formula for time is tested here.",
        "",
        *_generations(),
        "",
        "On several devices, with the messages of sequence parallelism and nothing for what is not shared, decoding",
        "above all:",
        "",
        *_scaling(),
        "",
        "Memory that follows from the sizes of parts alone:",
        "",
        *_identities(),
        "",
        "## Rows that are neither",
        "",
        *(f"- {entry['what']}: {entry['why']}." for entry in calibration.DATA["left_out"]),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")
    print(page())


if __name__ == "__main__":
    main()
