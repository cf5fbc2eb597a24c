"""The Compare screen: columns, differences and plots, with the numbers of `diff` and `plan --json`."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from textual.widgets import DataTable

from sora_spec.plan.job import Question
from sora_spec.plan.question import command_line
from sora_spec.tui.charts import Chart
from sora_spec.tui.compare import DRAWINGS, CompareScreen
from sora_spec.tui.headless import settled
from sora_spec.tui.pins import MOST, columns_of
from sora_spec.tui.rows import RowList


async def compared(pilot: Any, columns: int) -> CompareScreen:
    """On the screen, with every curve drawn."""
    if pilot.app.current_mode != "compare":
        await pilot.press("2")
    for _ in range(6_000):
        await pilot.pause(0.01)
        screen = pilot.app.screen
        working = any(worker.group == "compare" and worker.is_running for worker in pilot.app.workers)
        if isinstance(screen, CompareScreen) and len(screen.columns) == columns and not working:
            await pilot.pause()
            return screen
    raise AssertionError("nothing was compared")


def lines(screen: CompareScreen) -> dict[str, list[str]]:
    table = screen.query_one("#lines", DataTable)
    rows = [[str(cell) for cell in table.get_row(row.key)] for row in table.ordered_rows]
    return {row[0].strip(" •"): row[1:] for row in rows}


def printed_diff(*arguments: str) -> dict[str, Any]:
    run = subprocess.run([sys.executable, "-m", "sora_spec", "diff", *arguments, "--json"], capture_output=True)
    return json.loads(run.stdout)


def test_two_specs_differ_as_the_command_says(make_app, drive) -> None:
    async def scene(pilot: Any) -> None:
        screen = await compared(pilot, 2)
        printed = printed_diff("video.yaml", "image.yaml", "--gpu", "rtx4090")
        found = {line.name: list(line.values) for line in screen.lines if line.differs and line.group != "asked"}
        assert {name: found[name] for name in printed["fields"]} == printed["fields"]
        for name, values in printed["costs"].items():
            if values[0] != values[1]:
                assert found[name] == values
        shown = lines(screen)
        assert set(printed["fields"]) <= set(shown)
        assert shown["train.batch"] == printed["fields"]["train.batch"]

    drive(make_app("video.yaml", "image.yaml", question=Question(gpu="rtx4090")), scene)


def test_d_shows_every_line_and_marks_those_that_differ(make_app, drive) -> None:
    async def scene(pilot: Any) -> None:
        screen = await compared(pilot, 2)
        few = lines(screen)
        assert "version" not in few
        await pilot.press("d")
        every = lines(screen)
        assert "version" in every
        assert set(few) < set(every)
        table = screen.query_one("#lines", DataTable)
        names = [str(table.get_row(row.key)[0]) for row in table.ordered_rows]
        marked = {name.removeprefix("• ") for name in names if name.startswith("• ")}
        assert {line.name for line in screen.lines if line.differs and line.group == "field"} <= marked
        await pilot.press("d")
        assert lines(screen) == few

    drive(make_app("video.yaml", "image.yaml"), scene)


def test_one_spec_with_a_question_stands_beside_itself(make_app, drive) -> None:
    app = make_app("video.yaml")

    async def scene(pilot: Any) -> None:
        screen = await compared(pilot, 1)
        assert screen.query_one("#note").display
        app.ask(app.spec.question.having("train.batch", "64"))
        await settled(app)
        screen = await compared(pilot, 2)
        assert not screen.query_one("#note").display
        assert lines(screen)["train.batch"] == ["32", "64"]

    drive(app, scene)


def test_m_pins_what_the_planner_asks_and_delete_takes_it_back(make_app, drive, printed) -> None:
    app = make_app("video.yaml")

    async def scene(pilot: Any) -> None:
        for batch in ("64", "128"):
            await pilot.press("1")
            app.ask(app.spec.question.having("train.batch", batch))
            await settled(app)
            await pilot.press("m")
        app.ask(app.spec.question.having("train.batch", "16"))
        await settled(app)
        screen = await compared(pilot, 3)
        assert lines(screen)["train.batch"] == ["64", "128", "16"]
        rows = ["".join(c.text for c in row.left) for row in screen.query_one(RowList).lines]
        assert rows == ["A video batch=64 (pinned)", "B video batch=128 (pinned)", "C video batch=16"]
        found = {line.name: line.values for line in screen.lines}
        for number, column in enumerate(screen.columns):
            asked = printed(command_line("video.yaml", column.answer.question))
            assert found["device_bytes"][number] == asked["memory"]["device_bytes"]["likely"]
            assert found["total_seconds"][number] == asked["time"]["total_seconds"]["likely"]
        screen.query_one(RowList).focus()
        for key in ("home", "delete"):
            await settled(app)
            await pilot.press(key)
        screen = await compared(pilot, 2)
        assert lines(screen)["train.batch"] == ["128", "16"]
        await pilot.press("delete")
        await settled(app)
        assert not app.session.pins

    drive(app, scene)


def test_plots_hold_the_planner_s_numbers_and_c_turns_them(make_app, drive, printed) -> None:
    app = make_app("video.yaml", "image.yaml")

    async def scene(pilot: Any) -> None:
        screen = await compared(pilot, 2)
        chart = screen.query_one("#plot-0", Chart)
        frames = {trace.name: trace for trace in chart.plot.traces}
        assert list(frames) == ["video"]
        points = dict(zip(frames["video"].xs, frames["video"].ys, strict=True))
        for count in (min(points), 17, max(points)):
            asked = printed(f"sora-spec plan video.yaml clip.frames={count:g}")
            assert round(points[count]) == asked["memory"]["device_bytes"]["likely"]
        capacity = printed("sora-spec plan video.yaml")["memory"]["capacity_bytes"]
        assert [level.y for level in chart.plot.levels] == [capacity]
        titles = []
        for _ in DRAWINGS:
            titles.append(str(chart.border_title).partition("   ")[0])
            await pilot.press("c")
        assert titles == [drawing.title for drawing in DRAWINGS]
        await pilot.press("c")
        time = {trace.name: trace for trace in chart.plot.traces}
        seconds = dict(zip(time["video"].xs, time["video"].ys, strict=True))
        asked = printed("sora-spec plan video.yaml --count 16")
        assert seconds[16] == asked["time"]["total_seconds"]["likely"]
        assert set(time) == {"video", "image"}

    drive(app, scene)


def test_a_wrong_spec_has_a_column_that_says_so(make_app, drive) -> None:
    async def scene(pilot: Any) -> None:
        screen = await compared(pilot, 3)
        assert lines(screen)["verdict"][2] == "no plan"
        assert lines(screen)["problem"][2] != "-"

    drive(make_app(), scene)


def test_z_shows_the_plots_alone_even_in_a_small_terminal(make_app, drive) -> None:
    async def scene(pilot: Any) -> None:
        screen = await compared(pilot, 2)
        assert not screen.query_one("#plots").region
        await pilot.press("z")
        await pilot.pause()
        assert screen.query_one("#plot-0").region.width == 60
        assert not screen.query_one("#table").region
        await pilot.press("z")
        await pilot.pause()
        assert screen.query_one("#table").region

    drive(make_app("video.yaml", "image.yaml"), scene, (60, 20))


def test_with_many_specs_open_the_one_in_front_and_the_pins_are_compared(make_app, drive) -> None:
    app = make_app(*["video.yaml"] * (MOST + 1), "image.yaml")

    async def scene(pilot: Any) -> None:
        assert [column.name for column in columns_of(app.session.specs, MOST + 1, [])] == ["image"]
        await pilot.press("m")
        assert len(columns_of(app.session.specs, MOST + 1, app.session.pins)) == 2

    drive(app, scene)
