"""The screens as pictures, read by eye once and compared ever after. Their numbers are invented: see `conftest.py`.

`pytest tests/tui --snapshot-update` renews them.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from textual.binding import Binding

from sora_spec.errors import UserError
from sora_spec.plan.job import Question
from sora_spec.tui.app import SoraSpecApp
from sora_spec.tui.compare import CompareScreen
from sora_spec.tui.headless import check_key
from sora_spec.tui.planner import PlannerScreen
from sora_spec.tui.sweep import SweepScreen
from sora_spec.tui.welcome import Welcome

SIZES = ((80, 24), (120, 32), (200, 50))
THEMES = ("textual-dark", "textual-light")


def named(value: Any) -> str:
    """A size or a theme as a word."""
    return value if isinstance(value, str) else "x".join(map(str, value))


TOO_MUCH = Question(gpu="rtx4090").having("train.batch", "256")

SCENES: dict[str, tuple[str, tuple[str, ...], Question, list[str]]] = {
    "no": ("planner", ("video.yaml", "image.yaml", "wrong.yaml"), TOO_MUCH, ["t", "down", "down"]),
    "generate": ("planner", ("video.yaml", "image.yaml"), Question(mode="generate", gpu="rtx4090"), []),
    "wrong": ("spec", ("wrong.yaml",), Question(), []),
    "help": ("help", ("image.yaml",), Question(), []),
}


LOOKS = [
    (size, theme) if theme == THEMES[0] or size == SIZES[1] else pytest.param(size, theme, marks=pytest.mark.slow)
    for size in SIZES
    for theme in THEMES
]
"""A theme changes colours and a size the arrangement: the second theme at one size says the most of it."""


@pytest.mark.parametrize(("size", "theme"), LOOKS, ids=named)
@pytest.mark.parametrize("scene", SCENES)
def test_a_screen_looks_as_it_did(scene: str, size: tuple[int, int], theme: str, photograph, make_app) -> None:
    screen, specs, question, keys = SCENES[scene]
    photograph(make_app(*specs, question=question, screen=screen), size, theme, keys)


@pytest.mark.parametrize("size", [(60, 20), (240, 70)], ids=named)
def test_the_planner_at_the_ends_of_its_range(size: tuple[int, int], photograph, make_app) -> None:
    photograph(make_app("video.yaml", "image.yaml", question=TOO_MUCH), size, "textual-dark", [])


def test_a_knob_asks_for_a_value(photograph, make_app) -> None:
    photograph(make_app("video.yaml"), (80, 24), "textual-dark", [*["down"] * 5, "enter"])


def test_without_unicode(photograph, make_app) -> None:
    app = make_app("video.yaml", "wrong.yaml", question=TOO_MUCH, ascii_only=True)
    photograph(app, (80, 24), "textual-dark", [])


def test_without_colour(photograph, make_app, monkeypatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    photograph(make_app("video.yaml", "wrong.yaml", question=TOO_MUCH), (80, 24), "textual-dark", [])


def test_the_first_start_explains_itself(photograph, make_app) -> None:
    app = make_app("video.yaml")

    async def greet() -> None:
        await app.push_screen(Welcome())

    photograph(app, (80, 24), "textual-dark", [], greet)


@pytest.mark.parametrize(("name", "hint"), [("entr", "did you mean enter?"), ("strg+c", ""), ("ctrl+gibberish", "")])
def test_a_key_that_there_is_not_is_refused(name: str, hint: str) -> None:
    with pytest.raises(UserError, match=f"there is no key {re.escape(name)}") as refused:
        check_key(name)
    assert hint in (refused.value.hint or "")


def test_keys_that_bindings_name_are_known() -> None:
    owners = [PlannerScreen, SweepScreen, CompareScreen, SoraSpecApp]
    bindings = [binding for owner in owners for binding in owner.BINDINGS if isinstance(binding, Binding)]
    names = {key for binding in bindings for key in binding.key.split(",")}
    assert len(names) > 20
    for name in (*names, "?", "shift+tab", "wait:10", "slash"):
        check_key(name)
