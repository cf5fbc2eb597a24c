"""What is remembered between sessions: that the user has been greeted, and the theme. Never a reason to fail."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def _file() -> Path:
    """In the user's state folder (XDG base directory specification)."""
    folder = os.environ.get("XDG_STATE_HOME", "")
    base = Path(folder) if folder.startswith("/") else Path.home() / ".local" / "state"
    return base / "sora-spec" / "tui.json"


def recall() -> dict[str, Any]:
    """What is known; nothing where the file is missing or unreadable."""
    try:
        found = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):  # RuntimeError: no home folder
        return {}
    return found if isinstance(found, dict) else {}


def remember(**values: Any) -> None:
    """Add to what is known, as far as the folder can be written."""
    from sora_spec.disk.run_folder import write_atomically

    try:
        file = _file()
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(recall() | values) + "\n")
    except (OSError, RuntimeError):
        return
