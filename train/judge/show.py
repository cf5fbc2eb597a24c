"""An evaluation as text."""

from __future__ import annotations

from typing import Any

_COLUMNS = {
    "clips": "clips",
    "read_as_asked": "read as asked",
    "moves_as_asked": "moves as asked",
    "speed_as_asked": "speed as asked",
    "within_class_variance": "variance in class",
    "sharpness": "sharpness",
    "speed": "speed px/frame",
    "frechet": "Fréchet",
}
_ROWS = {"generated": "generated", "held_out": "real, held out", "training": "real, training split (the floor)"}


def table(result: dict[str, Any], before: dict[str, Any] | None = None) -> str:
    """Rows of what was measured, of generated clips, of real ones, and of parts; then the protocol."""
    rows = {words: result[name] for name, words in _ROWS.items()}
    if before is not None:
        rows |= {f"before: {before['target']}": before["generated"]}
    rows |= {f"  {name}": part for name, part in result["parts"].items()}
    used = [name for name in _COLUMNS if any(name in row for row in rows.values())]
    cells = [["", *(_COLUMNS[name] for name in used)]]
    cells += [[words, *(_cell(name, row) for name in used)] for words, row in rows.items()]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    ratios = result["ratios"]
    shares = {"within_class_variance": "variance", "speed": "speed", "sharpness": "sharpness"}
    said = [f"{words} {ratios[name]:.2f} of real clips'" for name, words in shares.items() if name in ratios]
    lines.append(f"{', '.join(said)}; Fréchet {ratios['frechet']:.2f} times the floor")
    protocol = result["protocol"]
    shuffled = ", wrong prompts (shuffled)" if protocol["shuffled"] else ""
    lines.append(f"protocol {protocol['hash']}: {protocol['clips']} clips, seed {protocol['seed']}{shuffled}")
    return "\n".join(lines)


def _cell(name: str, row: dict[str, Any]) -> str:
    if name not in row:
        return "–"
    value = row[name]
    if name == "clips":
        return str(value)
    if name.endswith("_as_asked"):
        return f"{value:.1%}"
    if name == "speed":
        return f"{value:.2f} ± {row['speed_deviation']:.2f}"
    return f"{value:.3f}" if value < 1 else f"{value:.1f}"
