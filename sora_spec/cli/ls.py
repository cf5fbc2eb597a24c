"""`sora-spec ls`: the packaged reference specs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from sora_spec import output
from sora_spec.language.loading import check
from sora_spec.language.packaged import about, packaged_names, packaged_path
from sora_spec.language.shapes import derive_shapes
from sora_spec.language.source import load_document


def ls(as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False) -> None:
    """List the packaged reference specs. Every verb takes their names in place of a file."""
    rows = [_describe(path) for name in packaged_names() if (path := packaged_path(name)) is not None]
    if as_json:
        output.json_data(rows, indent=2)
        return
    table = [("NAME", "SYSTEM", "CLIP", "TOKENS", "WHAT IT IS")]
    table += [(row["name"], row["system"], row["clip"], f"{row['tokens']:,}", row["about"]) for row in rows]
    widths = [max(len(row[column]) for row in table) for column in range(4)]
    for name, system, clip, tokens, words in table:
        line = f"{name:<{widths[0]}}  {system:<{widths[1]}}  {clip:<{widths[2]}}  {tokens:>{widths[3]}}  {words}"
        output.data(line.rstrip())
    output.hint("sora-spec init --from NAME writes a copy; sora-spec show NAME prints one in full")


def _describe(path: Path) -> dict[str, Any]:
    document = load_document(path)
    values = cast("Any", check(document).values)
    shapes = derive_shapes(values)
    return {
        "name": path.stem,
        "system": values.name,
        "clip": f"{shapes.frames}×{shapes.height}×{shapes.width}",
        "tokens": shapes.tokens,
        "latent": list(shapes.latent),
        "about": about(document.text.content),
        "path": str(path),
    }
