"""What is asked of a whole bundle and is not there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sora_spec.cli.generate import generate
from sora_spec.errors import UserError
from tests.hostile.bundle_case import (
    Values,
    bundle,
)
from tests.hostile.case import Case


def requests() -> Iterator[Case]:
    """What is asked of a whole bundle and is not there: refused before anything is sampled or written."""
    for name, settings in {
        "label 4": {"label": ["4"]},
        "label of a word": {"label": ["squid"]},
        "label -1": {"label": ["-1"]},
        "labels of nothing": {"labels": ""},
        "frames of 3000": {"frames": 3000},
        "torch": {"backend": "torch"},
        "tiles": {"words": ["vae.tiling=none"]},
        "depth": {"words": ["backbone.depth=2"]},
    }.items():

        def run(folder: Path, settings: Values = settings) -> str | None:
            try:
                generate(bundle(folder), out=folder / "out", **settings)
            except UserError:
                return "files were written" if (folder / "out").exists() else None
            return "accepted"

        yield Case(f"request: {name}", run)

    def below_a_file(folder: Path) -> str | None:
        (folder / "out").write_text("a file")
        try:
            generate(bundle(folder), out=folder / "out" / "x")
        except UserError as error:
            return None if "out is not a folder" in error.message else f"says {error.message}"
        return "accepted"

    yield Case("request: a folder below a file", below_a_file)
