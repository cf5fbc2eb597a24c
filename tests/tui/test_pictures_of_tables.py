"""The Runs, Sweep and Compare screens as pictures; see `test_pictures.py`."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from sora_spec.tui.runs import RunsScreen

RECORDED = Path(__file__).with_name("recorded") / "digits"
NOW = 1_800_000_000.0
SIZES = ((80, 24), (120, 32), (190, 50))  # at 200 plotext draws a last tick or leaves it out, as it likes
THEMES = ("textual-dark", "textual-light")
SCENES: dict[str, tuple[tuple[str, ...], list[str]]] = {
    "runs": (("image.yaml",), []),
    "sweep": (("video.yaml",), ["b", *"30", "space", *"days", "enter"]),
    "compare": (("video.yaml", "image.yaml"), []),
}


@pytest.fixture(autouse=True)
def runs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run that has ended and one that still writes, at a time that stands still."""
    for name, moment in (("digits", NOW - 4), ("digits-older", NOW - 9000)):
        run = shutil.copytree(RECORDED, home / "runs" / name)
        if name == "digits":
            shutil.rmtree(run / "denoiser/checkpoints/step-00000080")
        for path in [*run.rglob("*"), run]:
            back = 60 if "vae" in path.parts else 0
            os.utime(path, (moment - back, moment - back))
    monkeypatch.setattr(RunsScreen, "now", lambda _: NOW)


async def looked(app: Any) -> None:
    """What follows files has been read too."""
    if isinstance(app.screen, RunsScreen):
        until = monotonic() + 120
        while app.screen.view.run is None:
            assert monotonic() < until, "no run was read"
            await asyncio.sleep(0.01)


@pytest.fixture
def compare(photograph) -> Callable[..., None]:
    def compared(app: Any, size: tuple[int, int], theme: str, keys: list[str]) -> None:
        photograph(app, size, theme, keys, partial(looked, app))

    return compared


LOOKS = [
    (size, theme) if theme == THEMES[0] or size == SIZES[1] else pytest.param(size, theme, marks=pytest.mark.slow)
    for size in SIZES
    for theme in THEMES
]


def named(value: Any) -> str:
    """A size or a theme as a word."""
    return value if isinstance(value, str) else "x".join(map(str, value))


@pytest.mark.parametrize(("size", "theme"), LOOKS, ids=named)
@pytest.mark.parametrize("scene", SCENES)
def test_a_screen_looks_as_it_did(scene: str, size: tuple[int, int], theme: str, compare, make_app) -> None:
    specs, keys = SCENES[scene]
    compare(make_app(*specs, screen=scene), size, theme, keys)


@pytest.mark.parametrize("scene", SCENES)
def test_without_unicode(scene: str, compare, make_app) -> None:
    specs, keys = SCENES[scene]
    compare(make_app(*specs, screen=scene, ascii_only=True), (80, 24), "textual-dark", keys)


def test_runs_without_colour(compare, make_app, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    compare(make_app("image.yaml", screen="runs"), (80, 24), "textual-dark", [])


@pytest.mark.parametrize("scene", SCENES)
def test_at_the_ends_of_the_range(scene: str, compare, make_app) -> None:
    specs, keys = SCENES[scene]
    compare(make_app(*specs, screen=scene), (60, 20), "textual-dark", keys)
