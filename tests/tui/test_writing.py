"""Values written into a spec's text: what is asked for stands there, and every comment is still where it was."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from sora_spec.errors import UserError
from sora_spec.language.packaged import packaged_names, packaged_path
from sora_spec.language.source import parse_document
from sora_spec.language.span import Text
from sora_spec.plan.job import Question
from sora_spec.tui.headless import settled
from sora_spec.tui.spec import Editor
from sora_spec.tui.writing import with_values

VALUES = (
    ("train.batch", "64"),
    ("train.recompute", "{kind: blocks, every: 2}"),
    ("clip.height", "128"),
    ("parallel.shard", "4"),
    ("hardware.gpu", "rtx4090"),
    ("export.batch", "[1, 2]"),
)


def comments(text: str) -> list[str]:
    return [row.partition("#")[2] for row in text.splitlines() if "#" in row]


@pytest.mark.parametrize("name", packaged_names())
def test_every_packaged_spec_takes_values_and_keeps_its_comments(name: str) -> None:
    path = packaged_path(name)
    assert path is not None
    before = path.read_text()
    after = with_values(before, VALUES)
    found = parse_document(Text("spec", after)).values()
    wanted = parse_document(Text("spec", before), [f"{key}={value}" for key, value in VALUES]).values()
    assert found == wanted
    assert comments(after) == comments(before)


@pytest.mark.parametrize(
    ("before", "path", "value", "after"),
    [
        ("a: {b: 1}  # why\n", "a.b", "2", "a: {b: 2}  # why\n"),
        ("a: {b: 1}\n", "a.c", "2", "a: {b: 1, c: 2}\n"),
        ("a:\n  b: 1  # why\nd: 3\n", "a.c", "2", "a:\n  b: 1  # why\n  c: 2\nd: 3\n"),
        ("a: 1", "b.c", "2", "a: 1\nb: {c: 2}"),
        ("a: {}\n", "a.b", "2", "a: {b: 2}\n"),
        ("a:\nb: 1\n", "a.c", "2", "a: {c: 2}\nb: 1\n"),
        ("a: {kind: x, n: 1}\n", "a", "{kind: y}", "a: {kind: y}\n"),
        ("a: 1\r\nb: 2\r\n", "b", "3", "a: 1\r\nb: 3\r\n"),
    ],
)
def test_only_the_characters_of_the_value_change(before: str, path: str, value: str, after: str) -> None:
    assert with_values(before, [(path, value)]) == after


def test_an_anchored_value_changes_where_it_is_used_alone() -> None:
    before = "a: &shared {n: 1}  # kept\nb: *shared\n"
    after = with_values(before, [("b.n", "2")]) if _can(before) else before
    assert parse_document(Text("spec", after)).values()["a"] == {"n": 1}


def _can(text: str) -> bool:
    try:
        with_values(text, [("b.n", "2")])
    except UserError:
        return False
    return True


def test_typing_plans_anew_and_saves(make_app, drive, until, home: Path) -> None:
    app = make_app("video.yaml", screen="spec")

    async def scene(pilot: Any) -> None:
        editor = app.screen.query_one(Editor)
        row = next(i for i, line in enumerate(editor.text.splitlines()) if line.startswith("  depth: 28"))
        editor.cursor_location = (row, len("  depth: 28"))
        await pilot.press("backspace", "backspace", *"x8")
        await until(pilot, lambda: app.spec.stale)
        await settled(app)
        assert editor.marks[row] == "error"
        assert app.spec.good.components["denoiser"].parameters
        await pilot.press("backspace", "backspace", *"14")
        await until(pilot, lambda: not app.spec.stale and app.spec.answer.spec.backbone.depth == 14)
        await settled(app)
        assert app.spec.unsaved
        await pilot.press("ctrl+s")
        await pilot.pause()
        assert not app.spec.unsaved

    drive(app, scene)
    assert "  depth: 14\n" in (home / "video.yaml").read_text()
    assert comments((home / "video.yaml").read_text())


def test_a_file_changed_elsewhere_is_read_and_never_lost(make_app, drive, until, home: Path) -> None:
    app = make_app("video.yaml", screen="spec", question=Question())
    file = home / "video.yaml"

    def elsewhere(batch: int) -> None:
        file.write_text(
            file.read_text().replace("batch: 32", f"batch: {batch}").replace("batch: 64", f"batch: {batch}")
        )
        os.utime(file, (1e9 + batch, 1e9 + batch))

    async def scene(pilot: Any) -> None:
        elsewhere(64)
        app._look_at_files()
        await settled(app)
        assert app.spec.answer.spec.train.batch == 64
        before = app.spec.content
        await pilot.press("end", "space")
        await until(pilot, lambda: app.spec.content != before)
        typed = app.spec.content
        elsewhere(96)
        app._look_at_files()
        await pilot.pause()
        assert app.screen.heading.endswith("changed on disk")
        await pilot.press("enter")
        await settled(app)
        assert app.spec.content == typed
        assert "batch: 96" in file.read_text()

    drive(app, scene)
