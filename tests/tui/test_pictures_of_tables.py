"""The Runs, Sweep and Compare screens as pictures; see `test_pictures.py`."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from sora_spec.tui.headless import settled
from sora_spec.tui.runs import RunsScreen

RECORDED = Path(__file__).with_name("recorded") / "digits"
NOW = 1_800_000_000.0
SIZES = ((80, 24), (120, 32), (200, 50))
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
        for _ in range(500):
            await asyncio.sleep(0.01)
            if app.screen.view.run is not None:
                return


def compare(snap_compare: Any, app: Any, size: tuple[int, int], theme: str, keys: list[str]) -> None:
    async def ready(pilot: Any) -> None:
        app.theme = theme
        await settled(app)
        await looked(app)
        await pilot.pause(0.2)
        for key in keys:
            await pilot.press(key)
        await settled(app)
        await pilot.pause(0.1)

    assert snap_compare(app, terminal_size=size, run_before=ready)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("scene", SCENES)
def test_a_screen_looks_as_it_did(scene: str, size: tuple[int, int], theme: str, snap_compare, make_app) -> None:
    specs, keys = SCENES[scene]
    compare(snap_compare, make_app(*specs, screen=scene), size, theme, keys)


@pytest.mark.parametrize("scene", SCENES)
def test_without_unicode(scene: str, snap_compare, make_app) -> None:
    specs, keys = SCENES[scene]
    compare(snap_compare, make_app(*specs, screen=scene, ascii_only=True), (80, 24), "textual-dark", keys)


def test_runs_without_colour(snap_compare, make_app, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    compare(snap_compare, make_app("image.yaml", screen="runs"), (80, 24), "textual-dark", [])


@pytest.mark.parametrize("scene", SCENES)
def test_at_the_ends_of_the_range(scene: str, snap_compare, make_app) -> None:
    specs, keys = SCENES[scene]
    compare(snap_compare, make_app(*specs, screen=scene), (60, 20), "textual-dark", keys)
