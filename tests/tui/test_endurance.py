"""Random keys, clicks and sizes, and random damage to the open text: no exception, no worker that hangs."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from sora_spec.plan.whatif import plan_of
from sora_spec.tui.headless import settled
from sora_spec.tui.session import document_of
from sora_spec.tui.spec import Editor

KEYS = (
    *("up", "down", "left", "right", "home", "end", "pageup", "pagedown", "tab", "shift+tab", "space", "backspace"),
    *("left_square_bracket", "right_square_bracket", "u", "ctrl+r", "r", "n", "N", "p", "f", "w", "t", "s", "c"),
    *("1", "2", "3", "4", "5", "question_mark", "escape", "escape", "minus", "plus", "i", "ctrl+g", "g", "m", "ctrl+p"),
    *("a", "b", "colon", "comma", "left_curly_bracket", "delete", "ctrl+z", "ctrl+y", "ctrl+k", "ctrl+u", "enter"),
)
"""All that a user presses but what leaves the app or writes files (q, ctrl+q, ctrl+s, x, e)."""


def wander(app: Any, drive: Any, steps: int, seed: int) -> None:
    chance = random.Random(seed)

    async def scene(pilot: Any) -> None:
        for step in range(steps):
            if chance.random() < 0.08:
                await pilot.resize_terminal(chance.randint(60, 240), chance.randint(20, 70))
            elif chance.random() < 0.08:
                size = app.screen.size
                await pilot.click(offset=(chance.randrange(size.width), chance.randrange(1, max(2, size.height - 1))))
            else:
                app.simulate_key(chance.choice(KEYS))
                await asyncio.sleep(0.002)
            if step % 50 == 49:
                await settled(app, 20)
        for _ in range(3):
            await pilot.press("escape")
        await settled(app, 30)
        assert not app._busy
        assert all(spec.fresh for spec in app.session.specs)

    drive(app, scene)


def test_hundreds_of_random_keys(make_app, drive) -> None:
    wander(make_app(), drive, 250, seed=1)


@pytest.mark.slow
def test_a_thousand_random_keys_and_sizes(make_app, drive) -> None:
    wander(make_app("video.yaml", "image.yaml", "wrong.yaml", "dit"), drive, 1000, seed=2)


SLIPS = (
    *("", "", " ", "\n", "\t", ":", ": ", "- ", "{", "}", "[", "]", "&a ", "*a", "<<: *a", "!!int ", "'", '"', "#"),
    *("-1", "0", "1e999", "99999999999999999999", ".nan", "null", "yes", "kind: none", "ü", "漢", "\u200b", "\x00"),
)


def damaged(text: str, chance: random.Random) -> str:
    """A text with one to four slips of the keyboard, or worse."""
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(text) + 1)
        width = chance.choice((1, 1, 1, 3, 20, 200))
        piece = chance.choice((*SLIPS, text[place : place + width]))
        text = text[:place] + piece + text[place + (width if chance.random() < 0.5 else 0) :]
    return text


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_text_has_an_answer(seed: int) -> None:
    chance = random.Random(seed)
    for name in ("video", "image"):
        text = Path(f"{name}.yaml").read_text()
        answer = plan_of(document_of("spec", damaged(text, chance)), make_whatif(chance))
        assert answer.plan is not None or answer.diagnostics or answer.problem


def make_whatif(chance: random.Random) -> Any:
    from sora_spec.plan.whatif import WhatIf

    return WhatIf(mode=chance.choice(("train", "generate")), stage=chance.choice(("denoiser", "vae")))


def edit(app: Any, drive: Any, count: int, seed: int) -> None:
    chance = random.Random(seed)
    original = Path("video.yaml").read_text()

    async def scene(pilot: Any) -> None:
        editor = app.screen.query_one(Editor)
        for number in range(count):
            editor.text = damaged(original if number % 3 else editor.text, chance)
            if chance.random() < 0.3:
                await pilot.press(*chance.sample(["a", "enter", "backspace", "tab", "colon", "ctrl+g", "down"], 3))
            await asyncio.sleep(chance.choice((0, 0.01, 0.1)))
        await settled(app, 30)
        assert app.spec.good is not None  # the last good plan is still there
        editor.text = original
        await asyncio.sleep(0.2)
        await settled(app, 30)
        assert app.spec.answer.plan is not None
        assert not app.spec.stale

    drive(app, scene)


def test_the_open_text_is_damaged(make_app, drive) -> None:
    edit(make_app("video.yaml", screen="spec"), drive, 40, seed=3)


@pytest.mark.slow
def test_the_open_text_is_damaged_two_hundred_times(make_app, drive) -> None:
    edit(make_app("video.yaml", screen="spec"), drive, 200, seed=4)
