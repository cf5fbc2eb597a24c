"""Every knob and every key of the Planner screen: what is asked, and that the numbers are those of `plan --json`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from sora_spec.language.source import load_document
from sora_spec.plan.axes.all_axes import AXES
from sora_spec.plan.job import Question
from sora_spec.plan.question import answer_values, command_line
from sora_spec.tui.headless import settled
from sora_spec.tui.numbers import gib
from sora_spec.tui.planner import KnobRows, PlannerScreen
from sora_spec.tui.rows import Lines, RowList
from sora_spec.tui.tree import Breakdown

QUESTIONS = {"train": Question(), "generate": Question(mode="generate"), "VAE": Question(stage="vae")}


def texts(rows: RowList) -> list[str]:
    return ["".join(cell.text for cell in (*line.left, *line.right)) for line in rows.lines]


async def to_knob(pilot: Any, key: str) -> bool:
    """Move the cursor to a knob with the arrow keys; False where it is not shown."""
    rows = pilot.app.screen.query_one(KnobRows)
    keys = [line.value.key for line in rows.lines]
    if key not in keys:
        return False
    rows.focus()
    await pilot.press("home", *["down"] * keys.index(key))
    assert rows.knob is not None
    assert rows.knob.key == key
    return True


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_knob_asks_what_the_command_line_prints(question: str, make_app, drive, printed) -> None:
    app = make_app("video.yaml", question=QUESTIONS[question])
    turned: list[str] = []

    async def turn(pilot: Any, key: str) -> None:
        before = app.spec.question
        await pilot.press("right_square_bracket")
        if app.spec.question == before:
            await pilot.press("left_square_bracket")
        assert app.spec.question != before
        await settled(app)
        verdict = texts(app.screen.query_one("#verdict", Lines))
        if app.spec.answer.plan is None:
            assert "NO PLAN" in verdict[0]
        else:
            asked = printed(command_line("video.yaml", app.spec.question))
            assert answer_values(app.spec.answer, app.spec.advice) == asked
            memory = asked["memory"]
            numbers = f"{gib(memory['device_bytes']['likely'])} of {gib(memory['capacity_bytes'])} GiB"
            assert numbers in verdict[2 if app.spec.answer.plan.lacks else 1]
            turned.append(key)
        await pilot.press("u")
        await settled(app)
        assert app.spec.question == before

    async def scene(pilot: Any) -> None:
        for knob in AXES.values():
            if await to_knob(pilot, knob.key):
                await turn(pilot, knob.key)
            else:
                assert not knob.applies(app.spec.good_answer.job)

    drive(app, scene)
    assert {"job", "gpu", "gpus", "batch", "resolution", "frames", "precision"} <= set(turned)


def test_arrows_clicks_and_typed_values_turn_a_knob(make_app, drive) -> None:
    app = make_app("video.yaml")

    async def scene(pilot: Any) -> None:
        assert await to_knob(pilot, "batch")
        await pilot.press("right")
        await settled(app)
        assert app.spec.question.given("train.batch") == "48"
        await pilot.press("left")
        await settled(app)
        assert app.spec.question.given("train.batch") == "32"
        rows = app.screen.query_one(KnobRows)
        y = rows.cursor + 1 - rows.scroll_offset.y
        await pilot.click(rows, offset=(rows.size.width - 2, y))
        await settled(app)
        assert app.spec.question.given("train.batch") == "48"
        await pilot.press("enter")
        await pilot.pause()
        await pilot.press("home", *["delete"] * 4, *"256", "enter")
        await settled(app)
        assert app.spec.question.given("train.batch") == "256"

    drive(app, scene)


@pytest.mark.parametrize(
    ("key", "typed", "expected"),
    [
        ("frames", "5s", {"clip.frames": "81"}),
        ("frames", "33", {"clip.frames": "33"}),
        ("resolution", "480p", {"clip.height": "480", "clip.width": "480"}),
        ("resolution", "480x848", {"clip.height": "480", "clip.width": "848"}),
        ("fps", "24", {"clip.fps": "24"}),
    ],
)
def test_the_clip_is_typed_as_people_say_it(key, typed, expected, make_app, drive) -> None:
    app = make_app("video.yaml")

    async def scene(pilot: Any) -> None:
        assert await to_knob(pilot, key)
        await pilot.press("enter")
        await pilot.pause()
        await pilot.press("home", *["delete"] * 10, *typed, "enter")
        await settled(app)
        assert {path: app.spec.question.given(path) for path in expected} == expected
        assert app.spec.answer.plan is not None

    drive(app, scene)


def test_a_wrong_value_is_told_and_changes_nothing(make_app, drive) -> None:
    app = make_app("video.yaml")

    async def scene(pilot: Any) -> None:
        await to_knob(pilot, "batch")
        await pilot.press("enter")
        await pilot.pause()
        await pilot.press("home", *["delete"] * 4, *"many", "enter")
        await pilot.pause()
        assert app.spec.question == Question()
        assert any("many" in str(note.title) for note in app._notifications)

    drive(app, scene)


def test_a_fix_applied_fits_and_is_the_plan_it_promised(make_app, drive, printed) -> None:
    app = make_app("video.yaml", question=Question(gpu="rtx4090").having("train.batch", "256"))

    async def scene(pilot: Any) -> None:
        assert app.spec.standing == "no"
        fix = app.spec.advice.fixes[0]
        await pilot.press("f", "enter")
        await settled(app)
        assert app.spec.standing in ("yes", "tight")
        assert app.spec.answer.plan.needed == fix.plan.needed
        values = printed(command_line("video.yaml", app.spec.question))
        assert values["fits"]
        assert values["memory"]["device_bytes"]["likely"] == round(fix.plan.needed.likely)
        await pilot.press("u")
        await settled(app)
        assert app.spec.standing == "no"
        await pilot.press("ctrl+r")
        await settled(app)
        assert app.spec.standing in ("yes", "tight")
        await pilot.press("r")
        await settled(app)
        assert app.spec.question == Question(gpu="rtx4090").having("train.batch", "256")

    drive(app, scene)


def test_the_list_of_specs_says_how_each_stands(make_app, drive) -> None:
    app = make_app()

    async def scene(pilot: Any) -> None:
        rows = texts(app.screen.query_one("#specs", RowList))
        for row, word in zip(rows, ("", "", "has errors"), strict=True):
            assert re.search(word or "fits|tight|does not fit", row)
        await pilot.press("n")
        assert app.spec.name == "image"
        await pilot.press("n")
        await settled(app)
        assert app.spec.name == "wrong"
        problems = " ".join(texts(app.screen.query_one("#verdict", Lines)))
        assert "3 errors" in problems
        await pilot.press("N")
        assert app.spec.name == "image"
        await pilot.press("s", "up")
        assert app.spec.name == "video"

    drive(app, scene)


def test_the_tree_opens_down_to_ops_and_names_lines_and_formulas(make_app, drive) -> None:
    app = make_app("video.yaml")

    async def scene(pilot: Any) -> None:
        await pilot.press("t", "home")
        tree, detail = app.screen.query_one(Breakdown), app.screen.query_one("#detail", Lines)
        assert "denoiser" in texts(tree)[0]
        names = [line.value[1].name for line in tree.lines]
        await pilot.press(*["down"] * names.index("MLP"))
        spec_line = 1 + [row.partition(":")[0] for row in Path("video.yaml").read_text().splitlines()].index("backbone")
        assert f"line {spec_line}" in " ".join(texts(detail))
        await pilot.press("right")
        ops = next(i for i, line in enumerate(tree.lines) if line.value[0].endswith("/ops"))
        await pilot.press(*["down"] * (ops - tree.cursor), "enter")
        assert any("addmm" in row for row in texts(tree))
        await pilot.press("down")
        assert "2·M·K·N" in " ".join(texts(detail))
        await pilot.press("left", "left")
        assert not any("addmm" in row for row in texts(tree))

    drive(app, scene)


def test_the_tree_adds_up_to_the_verdict_in_every_phase(make_app, drive) -> None:
    app = make_app("video.yaml")

    async def scene(pilot: Any) -> None:
        plan = app.spec.good.plan
        tree = app.screen.query_one(Breakdown)
        for phase in (plan.peak, *plan.phases):
            top = [line.value[1] for line in tree.lines if line.value[2] == 0]
            assert sum(row.bytes.likely for row in top) == pytest.approx(phase.device.likely, rel=1e-9)
            await pilot.press("p")

    drive(app, scene)


def test_flops_and_parameters_of_the_tree_are_those_of_the_plan(make_app, drive) -> None:
    app = make_app("video.yaml", question=Question(count=1).having("parallel.shard", "1").having("train.batch", "1"))

    async def scene(_: Any) -> None:
        values = answer_values(app.spec.answer, app.spec.advice)
        rows = {row.key: row for row in app.spec.good.rows}
        assert rows["network"].parameters == values["components"]["denoiser"]["parameters"]
        assert sum(row.parameters or 0 for row in rows["network"].children) == rows["network"].parameters
        assert sum(row.flops or 0 for row in rows["network"].children) == rows["network"].flops
        forward = values["components"]["denoiser"]["forward_flops"]
        assert 2.9 * forward < rows["network"].flops < 4.1 * forward  # backward is about twice forward

    drive(app, scene)


def test_the_command_is_shown_and_put_on_the_clipboard(make_app, drive) -> None:
    app = make_app(
        "video.yaml", question=Question(gpu="h100", count=4).having("train.recompute", "{kind: blocks, every: 2}")
    )

    async def scene(pilot: Any) -> None:
        await pilot.press("c")
        await pilot.pause()
        line = "sora-spec plan video.yaml 'train.recompute={kind: blocks, every: 2}' --gpu h100 --count 4"
        assert app.clipboard == line
        assert app.screen.shown == line
        await pilot.press("escape")

    drive(app, scene)


@pytest.mark.parametrize("form", ["json", "csv", "md", "svg"])
def test_the_plan_is_exported(form: str, make_app, drive, home, printed) -> None:
    app = make_app("video.yaml")

    async def scene(pilot: Any) -> None:
        await pilot.press("x")
        await pilot.pause()
        await pilot.press(*["down"] * ["json", "csv", "md", "svg"].index(form), "enter")
        await settled(app)
        await pilot.pause()

    drive(app, scene)
    content = (home / f"video-plan.{form}").read_text()
    values = printed("sora-spec plan video.yaml")
    if form == "json":
        assert json.loads(content) == values
    elif form == "csv":
        assert content.count("\n") == 1 + len(values["memory"]["terms"])
        assert str(max(term["bytes"] for term in values["memory"]["terms"])) in content
    elif form == "md":
        assert gib(values["memory"]["device_bytes"]["likely"]) in content
        assert "sora-spec plan video.yaml" in content
    else:
        assert content.startswith("<svg")


def test_the_whatif_is_written_with_comments_kept(make_app, drive, home, printed) -> None:
    app = make_app("video.yaml", question=Question(gpu="h100", count=4).having("train.batch", "64"))
    before = (home / "video.yaml").read_text()

    async def scene(pilot: Any) -> None:
        needed = app.spec.answer.plan.needed
        await pilot.press("ctrl+s")
        await pilot.pause()
        await pilot.press("enter")
        await settled(app)
        assert app.spec.question == Question()
        assert app.spec.answer.plan.needed == needed

    drive(app, scene)
    after = (home / "video.yaml").read_text()
    assert [row.partition("#")[2] for row in before.splitlines() if "#" in row] == [
        row.partition("#")[2] for row in after.splitlines() if "#" in row
    ]
    values = printed("sora-spec plan video.yaml")
    assert (values["gpu"], values["count"]) == ("h100", 4)
    assert load_document("video.yaml").values()["train"]["batch"] == 64


def test_a_packaged_spec_is_never_written_over(make_app, drive, home) -> None:
    app = make_app("tiny-dit", question=Question().having("train.batch", "4"))

    async def scene(pilot: Any) -> None:
        await pilot.press("ctrl+s")
        await pilot.pause()
        await pilot.press("enter")
        await settled(app)
        assert app.spec.path == "tiny-dit.yaml"

    from sora_spec.language.packaged import packaged_path

    before = packaged_path("tiny-dit").read_text()
    drive(app, scene)
    assert packaged_path("tiny-dit").read_text() == before
    assert load_document(home / "tiny-dit.yaml").values()["train"]["batch"] == 4


def test_screens_by_key_and_by_mouse(make_app, drive) -> None:
    app = make_app()

    async def scene(pilot: Any) -> None:
        assert isinstance(app.screen, PlannerScreen)
        await pilot.press("question_mark")
        await pilot.pause()
        assert app.current_mode == "help"
        await pilot.press("escape")
        await pilot.pause()
        assert app.current_mode == "planner"
        await pilot.click("Masthead", offset=(len(" 1 Planner  2 Compare  3 Sweep  4 S"), 0))
        await pilot.pause()
        assert app.current_mode == "spec"
        await pilot.press("escape", "1")
        await pilot.pause()
        assert app.current_mode == "planner"

    drive(app, scene)


def test_tab_walks_through_the_panels(make_app, drive) -> None:
    app = make_app("video.yaml")

    async def scene(pilot: Any) -> None:
        seen = []
        for _ in range(4):
            seen.append(app.focused.id)
            await pilot.press("tab")
        assert set(seen) == {"knobs", "tree", "fixes", "specs"}
        await pilot.press("w")
        assert app.focused.id == "knobs"

    drive(app, scene)
