"""A folder that a `data` verb fills: whole or not at all, and never over someone else's files."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sora_spec.disk.run_folder import replacing_folder
from sora_spec.errors import UserError

RECORD = "dataset.json"


@dataclass(frozen=True)
class MadeFolder:
    """Target of a `data` verb. `dataset.json` lists the files that were made, so that only those are ever removed."""

    path: Path
    force: bool = False

    @contextmanager
    def filling(self) -> Generator[Path]:
        """A temporary folder that takes the target's place when the body succeeds.

        Raises UserError when the target holds files, unless `force` is given and all of them were made here.
        """
        self._check_free()
        with replacing_folder(self.path) as temporary:
            yield temporary

    def _check_free(self) -> None:
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise UserError(f"{self.path} is a file", "name a folder that does not exist yet")
        present = {str(path.relative_to(self.path)) for path in self.path.rglob("*") if not path.is_dir()}
        if not present:
            return
        if not self.force:
            raise UserError(
                f"{self.path} is not empty ({len(present)} files)",
                "name another folder, or replace what an earlier call made there with --force",
            )
        foreign = sorted(present - self._made())
        if foreign:
            raise UserError(
                f"{self.path} holds {len(foreign)} files that were not made here, the first is {foreign[0]}",
                "nothing was removed; name another folder",
            )

    def _made(self) -> set[str]:
        """Files that an earlier call recorded."""
        try:
            about = json.loads((self.path / RECORD).read_text())
            assert str(about["made_by"]).startswith("sora-spec data ")
            return {str(name) for name in about["files"]} | {RECORD}
        except (OSError, ValueError, KeyError, TypeError, AssertionError):
            return set()


def record_made(folder: Path, verb: str, about: str, source: str, **facts: Any) -> None:
    """Write `dataset.json` into a folder whose files are all there: who made what of what."""
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    values = {"made_by": verb, "about": about, "source": source, **facts, "files": files}
    (folder / RECORD).write_text(json.dumps(values, indent=2) + "\n")
