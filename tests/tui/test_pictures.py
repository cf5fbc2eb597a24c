"""The screens as pictures, read by eye once and compared ever after.

`pytest tests/tui --snapshot-update` renews them.
"""

from __future__ import annotations

from typing import Any

import pytest

from sora_spec.plan.whatif import WhatIf
from sora_spec.tui.headless import settled
from sora_spec.tui.welcome import Welcome

SIZES = ((80, 24), (120, 32), (200, 50))
THEMES = ("textual-dark", "textual-light")
TOO_MUCH = WhatIf(gpu="rtx4090").having("train.batch", "256")

SCENES: dict[str, tuple[str, tuple[str, ...], WhatIf, list[str]]] = {
    "no": ("planner", ("video.yaml", "image.yaml", "wrong.yaml"), TOO_MUCH, ["t", "down", "down"]),
    "generate": ("planner", ("video.yaml", "image.yaml"), WhatIf(mode="generate", gpu="rtx4090"), []),
    "wrong": ("spec", ("wrong.yaml",), WhatIf(), []),
    "help": ("help", ("image.yaml",), WhatIf(), []),
}


def compare(snap_compare: Any, app: Any, size: tuple[int, int], theme: str, keys: list[str]) -> None:
    async def ready(pilot: Any) -> None:
        app.theme = theme
        await settled(app)
        for key in keys:
            await pilot.press(key)
        await settled(app)
        await pilot.pause()

    assert snap_compare(app, terminal_size=size, run_before=ready)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("scene", SCENES)
def test_a_screen_looks_as_it_did(scene: str, size: tuple[int, int], theme: str, snap_compare, make_app) -> None:
    screen, specs, whatif, keys = SCENES[scene]
    compare(snap_compare, make_app(*specs, whatif=whatif, screen=screen), size, theme, keys)


@pytest.mark.parametrize("size", [(60, 20), (240, 70)], ids=lambda size: "x".join(map(str, size)))
def test_the_planner_at_the_ends_of_its_range(size: tuple[int, int], snap_compare, make_app) -> None:
    compare(snap_compare, make_app("video.yaml", "image.yaml", whatif=TOO_MUCH), size, "textual-dark", [])


def test_a_knob_asks_for_a_value(snap_compare, make_app) -> None:
    compare(snap_compare, make_app("video.yaml"), (80, 24), "textual-dark", [*["down"] * 5, "enter"])


def test_without_unicode(snap_compare, make_app) -> None:
    compare(
        snap_compare,
        make_app("video.yaml", "wrong.yaml", whatif=TOO_MUCH, ascii_only=True),
        (80, 24),
        "textual-dark",
        [],
    )


def test_without_colour(snap_compare, make_app, monkeypatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    compare(snap_compare, make_app("video.yaml", "wrong.yaml", whatif=TOO_MUCH), (80, 24), "textual-dark", [])


def test_the_first_start_explains_itself(snap_compare, make_app) -> None:
    app = make_app("video.yaml")

    async def ready(pilot: Any) -> None:
        await settled(app)
        await app.push_screen(Welcome())
        await pilot.pause()

    assert snap_compare(app, terminal_size=(80, 24), run_before=ready)
