"""Where `efficiency` in `sora_spec/hardware.yaml` comes from: published timings, a fit, and what the fit misses.

    python benchmarks/calibration.py

A row is one published generation of a model that the language cannot say yet. Its time is that of
`sora_spec.plan.timing`: FLOPs over the rate that kernels of their class reach, and bytes over the memory's rate, added.
What single kernels reach was measured by others (`kernels` in `published.yaml`); one number is fitted per device: how
much longer whole programs take, the median over its rows, drawn towards the median of all rows as if there were one
such row more. Bytes: 43 passes over the tokens in bf16, as the model graph counts for a block of VDiT.

Three tests, none of which sees the row that it predicts: leave one row out; leave a whole family of models out; leave a
whole device out. The interval around a prediction is the spread of the other rows' residuals under the same test.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from sora_spec.plan.hardware import Device, find_device
from sora_spec.plan.timing import BANDWIDTH, message_seconds

DATA: dict[str, Any] = YAML(typ="safe").load((Path(__file__).parent / "published.yaml").read_text())
PASSES = 43
PRIOR = 1.0
"""Weight of the median of all rows, in rows."""
COVERAGE = 0.85
"""Share of the residuals that a stated interval is to hold."""


@dataclass(frozen=True)
class Generation:
    """One published generation."""

    model: str
    family: str
    device: str
    linear: float
    attention: float
    """FLOPs of one call of the network."""
    tokens: int
    width: int
    layers: int
    calls: int
    """Guidance counts as two."""
    seconds: float
    source: str
    note: str = ""
    counted: str = ""

    def by_kernels(self) -> tuple[float, float]:
        """Seconds that kernels take at their best, and seconds that memory takes."""
        device, best = find_device(self.device), DATA["kernels"][self.device]
        rate = device.rate("bf16")
        flops = self.linear / best["matrix"] + self.attention / best["attention"]
        moved = 2 * PASSES * self.tokens * self.width * self.layers
        return self.calls * flops / rate, self.calls * moved / (device.bandwidth * BANDWIDTH.likely)

    def predicted(self, slower: float) -> float:
        """Seconds if whole programs take `slower` times what kernels do."""
        kernels, memory = self.by_kernels()
        return slower * kernels + memory

    @property
    def slower(self) -> float:
        """How much longer than its kernels it took."""
        kernels, memory = self.by_kernels()
        return max(0.5, (self.seconds - memory) / kernels)


ROWS = tuple(Generation(**row) for row in DATA["generations"])
Keep = Callable[[Generation, Generation], bool]
TESTS: dict[str, Keep] = {
    "one row": lambda row, other: row is not other,
    "one family of models": lambda row, other: row.family != other.family,
    "one device": lambda row, other: row.device != other.device,
}


def fitted(rows: list[Generation], device: str) -> float:
    """How much longer than their kernels programs take on a device."""
    everywhere = statistics.median(math.log(row.slower) for row in rows)
    own = [math.log(row.slower) for row in rows if row.device == device]
    mean = (len(own) * statistics.median(own) + PRIOR * everywhere) / (len(own) + PRIOR) if own else everywhere
    return math.exp(mean)


def residuals(keep: Keep) -> list[float]:
    """Logarithm of published over predicted, each row predicted from those that the test leaves."""
    return [
        math.log(row.seconds / row.predicted(fitted([other for other in ROWS if keep(row, other)], row.device)))
        for row in ROWS
    ]


def spread(values: list[float]) -> float:
    """Half-width, as a factor, that holds the wanted share of residuals."""
    ordered = sorted(abs(value) for value in values)
    return math.exp(ordered[min(len(ordered) - 1, math.ceil(COVERAGE * len(ordered)) - 1)])


def covered(values: list[float]) -> int:
    """Rows within the interval that the other rows' residuals make."""
    return sum(
        abs(value) <= math.log(spread(values[:index] + values[index + 1 :])) for index, value in enumerate(values)
    )


def shares(name: str, kernels: str | None = None) -> dict[str, tuple[float, float, float]]:
    """`efficiency` of a device: what its kernels reach, divided by what programs take longer, with an interval."""
    rows = [row for row in ROWS if row.device == name]
    width = spread(residuals(TESTS["one row" if rows else "one device"]))
    slower = fitted(list(ROWS), name)
    best = DATA["kernels"][kernels or name]
    return {
        kind: (
            round(best[kind] / slower / width, 3),
            round(best[kind] / slower, 3),
            round(min(1.0, best[kind] / slower * width), 3),
        )
        for kind in ("matrix", "attention")
    }


def errors(values: list[float]) -> list[float]:
    """Relative errors of the predictions, sorted."""
    return sorted(abs(math.exp(-value) - 1) for value in values)


def scaled(entry: dict[str, Any], ranks: int) -> float:
    """A generation on several ranks: its work shared, queries, keys, values and results exchanged in every layer."""
    row = next(row for row in ROWS if row.model == entry["model"] and row.device == entry["device"])
    device: Device = find_device(row.device)
    one = 4 * row.tokens * row.width * 2 * row.layers * row.calls / ranks * (ranks - 1) / ranks
    return entry["seconds"][1] / ranks + message_seconds(one, device, ranks).likely


def main() -> None:
    for name in DATA["kernels"]:
        found = shares(name)
        print(f"{name:<10} programs take {fitted(list(ROWS), name):.2f} × their kernels; {found}")
    print()
    left = residuals(TESTS["one row"])
    for row, residual in zip(ROWS, left, strict=True):
        print(
            f"{row.model:<40} {row.device:<10} {row.seconds:8.1f} s, predicted {row.seconds / math.exp(residual):8.1f}"
        )
    print()
    for name, keep in TESTS.items():
        values = residuals(keep)
        found = errors(values)
        print(
            f"leave out {name:<22} median error {100 * statistics.median(found):4.1f} %, "
            f"largest {100 * found[-1]:.0f} %; "
            f"an interval of a factor {spread(values):.2f} covers {covered(values)} of {len(values)}"
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
