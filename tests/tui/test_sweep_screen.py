"""The Sweep screen: every key, and rows equal to `sora-spec plan --sweep`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from textual.widgets import DataTable, Input, Static

from sora_spec.errors import UserError
from sora_spec.language.packaged import find_spec_file, packaged_names
from sora_spec.language.source import load_document
from sora_spec.plan.job import Question
from sora_spec.plan.question import command_line, plan_of, question_from
from sora_spec.plan.search.budget import best, parse_budget
from sora_spec.plan.search.listing import listed_counts
from sora_spec.plan.search.sweep import parse_axes, row_values, sweep_rows, swept_devices
from sora_spec.tui.ask_box import AskBox
from sora_spec.tui.headless import settled
from sora_spec.tui.sweep import SweepScreen
from sora_spec.tui.sweep_table import first_axes, first_counts, split_axes


def printed_rows(*arguments: str, form: str = "json") -> str:
    command = [sys.executable, "-m", "sora_spec", "plan", *arguments, "--sweep", "--format", form]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode in (0, 1), run.stderr
    return run.stdout


async def swept(pilot: Any) -> SweepScreen:
    """On the screen, with every row there."""
    if pilot.app.current_mode != "sweep":
        await pilot.press("3")
    await pilot.pause()
    screen = pilot.app.screen
    assert isinstance(screen, SweepScreen)
    await ended(pilot, screen)
    return screen


async def ended(pilot: Any, screen: SweepScreen) -> None:
    for _ in range(6_000):
        await pilot.pause(0.01)
        if screen.ended and (screen.rows or screen.problem):
            return
    raise AssertionError("the sweep did not end")


async def type_axes(pilot: Any, screen: SweepScreen, **axes: str) -> None:
    for name, text in axes.items():
        screen.query_one(f"#{name}", Input).value = text
    screen.query_one("#over", Input).focus()
    await pilot.press("enter")
    await ended(pilot, screen)


def column(screen: SweepScreen, key: str) -> list[str]:
    table = screen.query_one(DataTable)
    return [str(cell) for cell in table.get_column(key)]


def order(screen: SweepScreen) -> list[int]:
    return [int(row.key.value) for row in screen.query_one(DataTable).ordered_rows]


def words(screen: SweepScreen, id: str) -> str:
    return str(screen.query_one(id, Static).render())


def test_the_first_sweep_is_what_the_command_prints(make_app, drive) -> None:
    async def scene(pilot: Any) -> None:
        screen = await swept(pilot)
        assert screen.query_one("#over", Input).value == "train.batch=16,32,64"
        over = ["--over", "train.batch=16,32,64"]
        printed = json.loads(printed_rows("video.yaml", "--gpu", "all", "--count", "1,8", *over))
        assert [row_values(row) for row in screen.rows] == printed
        assert column(screen, "gpu") == [f"  {row['gpu']}" for row in printed]
        marks = {"yes": "✔ fits", "tight": "≈ tight", "no": "✘ does not fit", None: "! no plan"}
        assert column(screen, "verdict") == [marks[row.get("verdict")] for row in printed]
        fitting = sum(bool(row["fits"]) for row in printed)
        assert f"{fitting} of {len(printed)} fit" in words(screen, "#state")

    drive(make_app("video.yaml"), scene)


def test_axes_are_edited_and_take_any_key(make_app, drive) -> None:
    async def scene(pilot: Any) -> None:
        screen = await swept(pilot)
        await pilot.press("e")
        assert screen.focused is screen.query_one("#over", Input)
        over = "clip.frames=9,17 train.recompute={kind: none},{kind: blocks}"
        await type_axes(pilot, screen, gpus="h100, rtx4090", counts="", over=over)
        assert isinstance(screen.focused, DataTable)
        arguments = ["--gpu", "h100,rtx4090", "--over", "clip.frames=9,17"]
        arguments += ["--over", "train.recompute={kind: none},{kind: blocks}"]
        assert [row_values(row) for row in screen.rows] == json.loads(printed_rows("video.yaml", *arguments))
        headings = [str(c.label).strip() for c in screen.query_one(DataTable).ordered_columns]
        assert headings[:4] == ["GPU", "n", "frames", "recompute"]

    drive(make_app("video.yaml"), scene)


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ({"gpus": "h101"}, "there is no device 'h101'"),
        ({"counts": "1,many"}, "count many is not a number from 1 to 4096"),
        ({"counts": "1,,8"}, "count 1,,8 has nothing between two commas"),
        ({"gpus": "h100,,h200"}, "GPUs h100,,h200 has nothing between two commas"),
        ({"over": "train.batch=8,,16"}, "--over train.batch 8,,16 has nothing between two commas"),
        ({"over": "train.batch"}, "is not KEY=A,B"),
        ({"over": "train.steps=" + ",".join(map(str, range(1, 1500)))}, "are more than 20,000"),
    ],
)
def test_wrong_axes_are_told_and_the_screen_stays(axes: dict[str, str], said: str, make_app, drive) -> None:
    async def scene(pilot: Any) -> None:
        screen = await swept(pilot)
        await type_axes(pilot, screen, **axes)
        assert said in words(screen, "#state")
        await type_axes(pilot, screen, gpus="h100", counts="1", over="train.batch=8")
        assert len(screen.rows) == 1

    drive(make_app("video.yaml"), scene)


def test_settings_without_a_plan_are_rows_too(make_app, drive) -> None:
    async def scene(pilot: Any) -> None:
        screen = await swept(pilot)
        await type_axes(pilot, screen, gpus="h100", counts="8", over="train.batch=8,12 backbone.heads=16,7")
        assert column(screen, "verdict").count("! no plan") == 3
        await pilot.press("down", "down", "down")
        place = screen.place
        assert place is not None
        assert screen.rows[place].problem in words(screen, "#words").replace("\n", " ")
        await pilot.press("s", "s", "s", "s", "s", "s", "s", "s")
        assert order(screen)[-3:] == sorted(order(screen)[-3:])

    drive(make_app("video.yaml"), scene)


SORTED = ("device_bytes", "cost", "count")
SORTED_SELDOM = ("step_seconds", "total_seconds", "gpu_hours")


@pytest.mark.parametrize("key", [*SORTED, *(pytest.param(key, marks=pytest.mark.slow) for key in SORTED_SELDOM)])
def test_sorting_by_a_column_orders_the_command_s_numbers(key: str, make_app, drive) -> None:
    async def scene(pilot: Any) -> None:
        screen = await swept(pilot)
        table = screen.query_one(DataTable)
        keys = [str(c.key.value) for c in table.ordered_columns]
        for _ in range(keys.index(key) + 1):
            await pilot.press("s")

        def values(places: list[int]) -> list[Any]:
            found = [row_values(screen.rows[place]).get(key) for place in places]
            return [value["likely"] if isinstance(value, dict) else value for value in found]

        shown = values(order(screen))
        known = [value for value in shown if value is not None]
        assert known == sorted(known)
        assert shown == known + [None] * (len(shown) - len(known))
        assert table.cursor_row == 0
        await pilot.press("S")
        known = [value for value in values(order(screen)) if value is not None]
        assert known == sorted(known, reverse=True)
        assert values(order(screen))[: len(known)] == known

    drive(make_app("video.yaml"), scene)


def test_a_click_on_a_heading_sorts(make_app, drive) -> None:
    async def scene(pilot: Any) -> None:
        screen = await swept(pilot)
        table = screen.query_one(DataTable)
        await pilot.click(DataTable, offset=(2, 1))
        assert screen.sorted_by == "gpu"
        names = [cell.strip() for cell in column(screen, "gpu")]
        assert [names[i] for i in range(len(names))] == names
        shown = [screen.rows[place].device for place in order(screen)]
        assert shown == sorted(shown)
        assert "▴" in str(table.ordered_columns[0].label)

    drive(make_app("video.yaml"), scene)


@pytest.mark.parametrize("budget", ["$2000", "30 days", "40 GiB", "", "$1"])
def test_b_finds_the_best_under_a_budget(budget: str, make_app, drive) -> None:
    async def scene(pilot: Any) -> None:
        screen = await swept(pilot)
        await pilot.press("b")
        assert isinstance(pilot.app.screen, AskBox)
        await pilot.press(*["space" if c == " " else "dollar_sign" if c == "$" else c for c in budget])
        await pilot.press("enter")
        await pilot.pause()
        expected = best(screen.rows, parse_budget(budget))
        assert screen.choice == expected
        assert expected.why.split(";")[0] in words(screen, "#state").replace("\n", " ")
        if expected.place is not None:
            assert screen.place == expected.place
            marked = [cell for cell in column(screen, "gpu") if cell.startswith("▸")]
            assert marked == [f"▸ {screen.rows[expected.place].device}"]

    drive(make_app("video.yaml"), scene, (160, 40))


def test_a_budget_that_is_none_is_told_in_the_box(make_app, drive) -> None:
    async def scene(pilot: Any) -> None:
        screen = await swept(pilot)
        await pilot.press("b", *"cheap", "enter")
        box = pilot.app.screen
        assert isinstance(box, AskBox)
        assert "'cheap' is no budget" in str(box.query_one("#answer").render())
        await pilot.press("escape")
        assert pilot.app.screen is screen
        assert screen.choice is None

    drive(make_app("video.yaml"), scene)


def test_f_shows_only_what_fits(make_app, drive) -> None:
    async def scene(pilot: Any) -> None:
        screen = await swept(pilot)
        await pilot.press("f")
        fitting = [i for i, row in enumerate(screen.rows) if row.plan is not None and row.plan.fits]
        assert order(screen) == fitting
        await pilot.press("f")
        assert order(screen) == list(range(len(screen.rows)))

    drive(make_app("video.yaml"), scene)


def test_enter_asks_the_planner_for_the_row(make_app, drive, printed) -> None:
    question = Question(attention="efficient", overrides=(("train.steps", "1000"), ("train.batch", "24")))
    app = make_app("video.yaml", question=question)

    async def scene(pilot: Any) -> None:
        screen = await swept(pilot)
        await type_axes(pilot, screen, gpus="h100,rtx4090", counts="4", over="train.batch=8,16")
        await pilot.press("down", "down", "down")
        row = screen.rows[3]
        await pilot.press("enter")
        assert app.current_mode == "planner"
        await settled(app)
        assert app.spec.question.gpu == row.device == "rtx4090"
        assert app.spec.question.overrides == (("train.steps", "1000"), ("train.batch", "16"))
        values = row_values(row)
        asked = printed(command_line("video.yaml", app.spec.question))
        assert asked["memory"]["device_bytes"] == values["device_bytes"]
        assert asked["time"]["total_seconds"] == values["total_seconds"]
        assert app.spec.answer.plan.needed == row.plan.needed

    drive(app, scene)


@pytest.mark.parametrize("form", ["csv", "json"])
def test_x_writes_what_the_command_prints(form: str, make_app, drive, home: Path) -> None:
    async def scene(pilot: Any) -> None:
        screen = await swept(pilot)
        await type_axes(pilot, screen, gpus="h100,a6000", counts="8", over="train.batch=8,16")
        await pilot.press("x")
        box = pilot.app.screen
        box.query_one(Input).value = "out.txt"
        await pilot.press("enter")
        assert pilot.app.screen is box
        box.query_one(Input).value = f"out.{form}"
        await pilot.press("enter")
        for _ in range(6_000):
            await pilot.pause(0.01)
            if (home / f"out.{form}").is_file() and (home / f"out.{form}").read_text():
                break

    drive(make_app("video.yaml"), scene)
    arguments = ["--gpu", "h100,a6000", "--count", "8", "--over", "train.batch=8,16"]
    assert (home / f"out.{form}").read_text() == printed_rows("video.yaml", *arguments, form=form)


def test_a_file_that_cannot_be_written_is_told(make_app, drive) -> None:
    app = make_app("video.yaml")

    async def scene(pilot: Any) -> None:
        await swept(pilot)
        await pilot.press("x")
        app.screen.query_one(Input).value = "nowhere/out.csv"
        await pilot.press("enter")
        for _ in range(6_000):
            await pilot.pause(0.01)
            if any("cannot be written" in note.message for note in app._notifications):
                return
        raise AssertionError("nothing was said")

    drive(app, scene)


def test_escape_stops_a_long_sweep_and_keeps_what_is_there(make_app, drive) -> None:
    async def scene(pilot: Any) -> None:
        screen = await swept(pilot)
        values = ",".join(str(steps) for steps in range(1000, 2300))
        screen.query_one("#over", Input).value = f"train.steps={values}"
        screen.query_one("#counts", Input).value = "8"
        screen.query_one("#over", Input).focus()
        await pilot.press("enter")
        for _ in range(6_000):
            await pilot.pause(0.01)
            if screen.rows:
                break
        assert "planned; escape stops" in words(screen, "#state")
        assert not screen.ended
        await pilot.press("escape")
        assert screen.ended
        kept = len(screen.rows)
        assert 0 < kept < screen.size_asked
        await pilot.pause(0.3)
        assert len(screen.rows) == kept == screen.query_one(DataTable).row_count
        assert not any(worker.group == "sweep" and worker.is_running for worker in pilot.app.workers)

    drive(make_app("video.yaml"), scene)


def test_another_question_sweeps_anew(make_app, drive) -> None:
    app = make_app("video.yaml")

    async def scene(pilot: Any) -> None:
        screen = await swept(pilot)
        await type_axes(pilot, screen, gpus="h100", counts="8", over="train.batch=8,16")
        before = [row_values(row) for row in screen.rows]
        await pilot.press("1")
        app.ask(app.spec.question.having("train.steps", "1000"))
        await settled(app)
        await pilot.press("3")
        await swept(pilot)
        await settled(app)
        after = [row_values(row) for row in screen.rows]
        assert len(after) == len(before)
        assert after[0]["total_seconds"]["likely"] == pytest.approx(before[0]["total_seconds"]["likely"] / 200)

    drive(app, scene)


def test_generation_sweeps_devices(make_app, drive) -> None:
    async def scene(pilot: Any) -> None:
        screen = await swept(pilot)
        printed = json.loads(printed_rows("video.yaml", "--mode", "generate", "--gpu", "all", "--count", "1"))
        assert [row_values(row) for row in screen.rows] == printed

    drive(make_app("video.yaml", question=Question(mode="generate")), scene)


def test_a_wrong_spec_has_rows_that_say_why(make_app, drive) -> None:
    async def scene(pilot: Any) -> None:
        screen = await swept(pilot)
        assert screen.problem or all(row.plan is None for row in screen.rows)
        for key in ("b", "enter", "s", "f", "f", "x", "escape", "enter"):
            await pilot.press(key)
            await pilot.pause()

    drive(make_app("wrong.yaml"), scene)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a=1,2", ["a=1,2"]),
        ("a=1, 2  b=3", ["a=1, 2", "b=3"]),
        ("a={k: 1, l: 2},{k: 3} b=[1, 2]", ["a={k: 1, l: 2},{k: 3}", "b=[1, 2]"]),
        ("", []),
    ],
)
def test_axes_stand_apart_by_spaces(text: str, parts: list[str]) -> None:
    assert split_axes(text) == parts


def test_counts() -> None:
    assert listed_counts("count", " 1, 8 ,1") == [1, 8]
    assert listed_counts("count", "") == [None]
    for text in ("0", "4097", "x", "1.5", "-1", "1,,8", "8,", " "):
        with pytest.raises(UserError, match=r"^count "):
            listed_counts("count", text)


@pytest.mark.parametrize("name", packaged_names())
@pytest.mark.parametrize("changes", [[], ["train.batch=6"], ["train.batch=1"]])
def test_a_sweep_begins_with_rows_that_can_be_planned(name: str, changes: list[str]) -> None:
    """As many devices and such batches as share evenly; the first ones asked for are the spec's own."""
    asked = question_from(changes, gpu="h100", count=1 if changes else None)
    answer = plan_of(load_document(find_spec_file(name)), asked)
    assert answer.job is not None, answer.problem
    spec: Any = SimpleNamespace(answer=answer)
    counts = first_counts(spec)
    assert answer.job.count in counts
    axes = parse_axes(split_axes(first_axes(spec, counts)))
    assert str(answer.job.spec.train.batch) in axes[0].values
    rows = list(sweep_rows(answer.document, Question(), swept_devices(["h100"]), list(counts), axes))
    assert all(row.plan is not None for row in rows), [row.problem for row in rows if row.plan is None]
