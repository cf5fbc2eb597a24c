"""A screen as a picture, drawn without a terminal: by the app itself, under a pilot."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sora_spec.errors import UserError
from sora_spec.run_folder import write_atomically

if TYPE_CHECKING:
    from sora_spec.tui.app import SoraSpecApp


async def picture(app: SoraSpecApp, extent: tuple[int, int], keys: Sequence[str] = ()) -> str:
    """The screen as SVG once every answer is there."""
    async with app.run_test(size=extent) as pilot:
        await settled(app)
        for key in keys:
            await pilot.press(key)
            await settled(app)
        await pilot.pause()
        return app.export_screenshot(title="sora-spec")


async def settled(app: SoraSpecApp, seconds: float = 30.0) -> None:
    """Wait until every question is answered and nothing is left to draw."""
    for _ in range(round(seconds / 0.01)):
        await asyncio.sleep(0.01)
        if app.settled:
            return


def draw(app: SoraSpecApp, file: str, extent: tuple[int, int], keys: Sequence[str] = ()) -> None:
    """Write the picture.

    Raises:
        UserError: the file cannot be written.
    """
    content = asyncio.run(picture(app, extent, keys))
    try:
        write_atomically(Path(file), content)
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}") from error
