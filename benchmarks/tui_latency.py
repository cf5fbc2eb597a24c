"""From a key press to redrawn numbers, in the real app under a pilot, on the XL specs.

    python benchmarks/tui_latency.py [--presses 12]

For every knob that changes the plan the key is pressed again and again, each time for a setting not asked before where
there is one; the clock runs from the key's event to the end of the refresh that shows the answer. Goal: a median under
50 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time

from sora_spec.plan.job import Question
from sora_spec.tui.app import Planned, SoraSpecApp
from sora_spec.tui.headless import settled
from sora_spec.tui.planner import KnobRows
from sora_spec.tui.session import open_session

SPECS = ("dit", "sit", "latte", "opendit-video")
KNOBS = ("gpu", "batch", "size", "length", "precision", "recompute", "shard", "ema")


class Timed(SoraSpecApp):
    """Says when an answer has been drawn."""

    def __init__(self, spec: str) -> None:
        super().__init__(open_session([spec], Question(gpu="a100-80gb")))
        self.drawn = asyncio.Event()

    def on_planned(self, message: Planned) -> None:
        super().on_planned(message)
        if message.spec.fresh:
            self.call_after_refresh(self.drawn.set)


async def presses(spec: str, count: int) -> tuple[dict[str, list[float]], list[float]]:
    """Seconds of every press by knob, and processor seconds of all."""
    app = Timed(spec)
    found: dict[str, list[float]] = {}
    spent = list[float]()
    async with app.run_test(size=(120, 32)) as pilot:
        await settled(app)
        rows = app.screen.query_one(KnobRows)
        for name in KNOBS:
            place = next((i for i, line in enumerate(rows.lines) if line.value.key == name), None)
            if place is None:
                continue
            rows.cursor = place
            await pilot.pause()
            key = "right_square_bracket"
            for _ in range(count):
                asked = app.spec.asked
                app.drawn.clear()
                start, used = time.perf_counter(), time.process_time()
                app.simulate_key(key)
                while app.spec.asked == asked and time.perf_counter() - start < 0.1:
                    await asyncio.sleep(0)
                if app.spec.asked == asked:  # the end of the scale
                    key = "left_square_bracket"
                    continue
                await asyncio.wait_for(app.drawn.wait(), 10)
                found.setdefault(name, []).append(time.perf_counter() - start)
                spent.append(time.process_time() - used)
            await settled(app)
            app.ask(app.spec.beginning)
            await settled(app)
    return found, spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presses", type=int, default=12)
    arguments = parser.parse_args()
    everything = list[float]()
    print(f"{'spec':<16}{'presses':>8}{'median ms':>11}{'slowest':>9}{'processor':>11}   by knob")
    for spec in SPECS:
        found, spent = asyncio.run(presses(spec, arguments.presses))
        times = [value for values in found.values() for value in values]
        everything += times
        knobs = "  ".join(f"{name} {1000 * statistics.median(values):.0f}" for name, values in found.items())
        numbers = (
            f"{1000 * statistics.median(times):>11.1f}{1000 * max(times):>9.0f}{1000 * statistics.median(spent):>11.1f}"
        )
        print(f"{spec:<16}{len(times):>8}{numbers}   {knobs}")
    print(f"{'all':<16}{len(everything):>8}{1000 * statistics.median(everything):>11.1f}   goal: under 50")


if __name__ == "__main__":
    main()
