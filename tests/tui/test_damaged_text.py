"""Random damage to a text, and to the text that is edited: there is always an answer."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from sora_spec.plan.question import plan_of
from sora_spec.tui.headless import settled
from sora_spec.tui.session import document_of
from sora_spec.tui.spec import Editor

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
    from sora_spec.plan.job import Question

    return Question(mode=chance.choice(("train", "generate")), stage=chance.choice(("denoiser", "vae")))


def edit(app: Any, drive: Any, until: Any, count: int, seed: int) -> None:
    chance = random.Random(seed)
    original = Path("video.yaml").read_text()

    async def scene(pilot: Any) -> None:
        editor = app.screen.query_one(Editor)
        for number in range(count):
            editor.text = damaged(original if number % 3 else editor.text, chance)
            if chance.random() < 0.3:
                await pilot.press(*chance.sample(["a", "enter", "backspace", "tab", "colon", "ctrl+g", "down"], 3))
            await asyncio.sleep(chance.choice((0, 0.01, 0.1)))
        await settled(app)
        assert app.spec.good is not None  # the last good plan is still there
        editor.text = original
        await until(pilot, lambda: app.spec.fresh and not app.spec.stale and app.spec.content == original)
        await settled(app)
        assert app.spec.answer.plan is not None

    drive(app, scene)


def test_the_open_text_is_damaged(make_app, drive, until) -> None:
    edit(make_app("video.yaml", screen="spec"), drive, until, 40, seed=3)


@pytest.mark.slow
def test_the_open_text_is_damaged_two_hundred_times(make_app, drive, until) -> None:
    edit(make_app("video.yaml", screen="spec"), drive, until, 200, seed=4)
