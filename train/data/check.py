"""`data check`: every file of a source with what it holds, or why it cannot be used."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from sora_spec.train.data.clips import exact_fps
from sora_spec.train.data.probe import FileInfo, scan
from sora_spec.train.data.sources import find_entries

Row = dict[str, Any]


def check_source(source: str, spec_path: str | None) -> list[Row]:
    """One row per file. Without a spec, a file is usable when it holds a frame; with one, when it holds a clip."""
    frames, fps = 1, Fraction(1)
    if spec_path is not None:
        from sora_spec.loading import load_spec

        clip = load_spec(spec_path).clip
        frames, fps = clip.frames, exact_fps(clip.fps)
    entries = find_entries(source)
    found = scan(entries, frames, fps)
    rows = [_usable(file, entries[index].label) for file, index in zip(found.files, found.kept, strict=True)]
    rows += [{"path": str(path), "problem": reason} for path, reason in found.skipped]
    return sorted(rows, key=lambda row: row["path"])


def _usable(file: FileInfo, label: str | None) -> Row:
    facts = {"frames": file.frames, "fps": round(float(file.rate), 3), "seconds": round(file.seconds, 3)}
    return {
        "path": str(file.path),
        "label": label,
        "width": file.width,
        "height": file.height,
        **facts,
        "problem": None,
    }


def table(rows: list[Row]) -> str:
    """Rows as aligned text."""
    lines = [
        f"{row['path']}  not usable: {row['problem']}"
        if row["problem"]
        else f"{row['path']}  {row['width']}x{row['height']}  {row['frames']} frames  {row['fps']:g} fps"
        + (f"  label {row['label']}" if row["label"] is not None else "")
        for row in rows
    ]
    usable = sum(not row["problem"] for row in rows)
    return "\n".join([*lines, f"{usable} of {len(rows)} files can be used"])
