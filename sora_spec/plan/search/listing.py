"""Lists as they are typed, on the command line and above the Sweep screen's table: `h100, h200`, `1,8`."""

from __future__ import annotations

from sora_spec.errors import UserError

MOST = 4096


def number(name: str, text: str) -> int | None:
    """A number of devices or clips, None for an empty text. Raises UserError for another one, called `name`."""
    if not text:
        return None
    if not text.isdecimal() or len(text) > 4 or not 1 <= int(text) <= MOST:
        raise UserError(f"{name} {text} is not a number from 1 to {MOST}")
    return int(text)


def listed(name: str, text: str) -> list[str]:
    """What stands between the commas outside of brackets. Raises UserError where it is nothing."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "{[") - (character in "}]")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    parts = [part.strip() for part in parts] if text else []
    if not all(parts):
        raise UserError(f"{name} {text} has nothing between two commas", "name a value there, or leave the comma out")
    return parts


def listed_counts(name: str, text: str) -> list[int | None]:
    """Numbers of devices, each once; for an empty text None, the spec's. Raises UserError for what is no number."""
    return list(dict.fromkeys(number(name, part) for part in listed(name, text))) or [None]
