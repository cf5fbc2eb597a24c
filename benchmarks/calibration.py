"""Where `efficiency` in `sora_spec/hardware.yaml` comes from: published timings, a fit, and what the fit misses.

    python benchmarks/calibration.py

A row is one published generation: device, FLOPs of a call of the network, calls, seconds. Its time is modelled as
calls · (FLOPs / (rate · efficiency) + bytes / (0.8 · bandwidth)), the bytes being 40 passes over the tokens in bf16
(counted: 20 for a DiT block; these models also rotate, cross-attend and keep norms in fp32). The efficiency of a device
is the geometric mean over its rows. Leave-one-out: each row predicted from the others of its device.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from sora_spec.plan.hardware import find_device

PASSES, BANDWIDTH_SHARE = 40, 0.8


@dataclass(frozen=True)
class Timing:
    """One published generation."""

    model: str
    device: str
    teraflops: float
    """Of one call of the network."""
    calls: int
    """Guidance counts as two."""
    seconds: float
    volume: int
    """Tokens × width × layers."""
    source: str


# FLOPs: counted on the released classes, or 2·weights·tokens + 4·tokens²·width·layers where the shape was not counted.
WAN_14B_720P, WAN_5B_720P, HUNYUAN_720P = 6526.31, 516.50, 12068.59
COGX, WAN, HUNYUAN = "CogVideo README", "Wan2.x assets/comp_effic.png", "HunyuanVideo README and diffusers para_attn"
ROWS = (
    Timing("CogVideoX-2b", "a100-80gb", 120.0, 100, 90, 17_776 * 1920 * 30, COGX),
    Timing("CogVideoX-2b", "h100", 120.0, 100, 45, 17_776 * 1920 * 30, COGX),
    Timing("CogVideoX-5b", "a100-80gb", 332.0, 100, 180, 17_776 * 3072 * 42, COGX),
    Timing("CogVideoX-5b", "h100", 332.0, 100, 90, 17_776 * 3072 * 42, COGX),
    Timing("Wan2.1-1.3B 480p", "rtx4090", 283.0, 100, 261.4, 32_760 * 1536 * 30, WAN),
    Timing("Wan2.1-1.3B 480p", "a100-80gb", 283.0, 100, 259.7, 32_760 * 1536 * 30, "FastVideo optimizations.md"),
    Timing("Wan2.1-14B 720p", "a100-80gb", WAN_14B_720P, 100, 3342.6, 75_600 * 5120 * 40, WAN),
    Timing("Wan2.1-14B 720p", "h20", WAN_14B_720P, 100, 6935.5, 75_600 * 5120 * 40, WAN),
    Timing("Wan2.2-5B 720p", "rtx4090", WAN_5B_720P, 100, 534.7, 27_280 * 3072 * 30, WAN),
    Timing("HunyuanVideo 720p", "h20", HUNYUAN_720P, 50, 6639.17, 119_056 * 3072 * 60, HUNYUAN),
    Timing("HunyuanVideo 720p", "l20", HUNYUAN_720P, 50, 6043.88, 119_056 * 3072 * 60, HUNYUAN),
    Timing("HunyuanVideo 720p, 30 steps", "l20", HUNYUAN_720P, 30, 3675.71, 119_056 * 3072 * 60, HUNYUAN),
    Timing("HunyuanVideo 720p", "h100", HUNYUAN_720P, 50, 1904, 119_056 * 3072 * 60, HUNYUAN),
    Timing("HunyuanVideo 720p, other run", "h100", HUNYUAN_720P, 50, 1735, 119_056 * 3072 * 60, HUNYUAN),
)


def memory_seconds(row: Timing) -> float:
    """Of one call."""
    return PASSES * row.volume * 2 / (BANDWIDTH_SHARE * find_device(row.device).bandwidth)


def efficiency(row: Timing) -> float:
    """What one row implies."""
    rate = find_device(row.device).rate("bf16")
    return row.teraflops * 1e12 / (rate * (row.seconds / row.calls - memory_seconds(row)))


def predicted(row: Timing, share: float) -> float:
    """Seconds of a row at an efficiency."""
    rate = find_device(row.device).rate("bf16")
    return row.calls * (row.teraflops * 1e12 / (rate * share) + memory_seconds(row))


def fitted(rows: list[Timing]) -> float:
    """Geometric mean."""
    return math.exp(statistics.fmean(math.log(efficiency(row)) for row in rows))


def leave_one_out() -> list[tuple[Timing, float]]:
    """Every row with its prediction from the others of its device."""
    found: list[tuple[Timing, float]] = []
    for index, row in enumerate(ROWS):
        others = [other for place, other in enumerate(ROWS) if place != index and other.device == row.device]
        found.append((row, predicted(row, fitted(others))))
    return found


def main() -> None:
    for device in dict.fromkeys(row.device for row in ROWS):
        share = fitted([row for row in ROWS if row.device == device])
        print(f"{device:<10} efficiency {share:.3f}, in the table {find_device(device).efficiency.likely}")
    errors, covered = list[float](), 0
    for row, seconds in leave_one_out():
        errors.append(abs(seconds / row.seconds - 1))
        interval = find_device(row.device).efficiency
        inside = interval.low / interval.likely <= row.seconds / seconds <= interval.high / interval.likely
        covered += inside
        mark = "" if inside else "  outside the interval"
        print(f"{row.model:<30} {row.device:<10} {row.seconds:8.1f} s, predicted {seconds:8.1f} s{mark}")
    print(f"median error {100 * statistics.median(errors):.1f} %, largest {100 * max(errors):.1f} %")
    print(f"the interval covers {covered} of {len(ROWS)}")


if __name__ == "__main__":
    main()
