"""What can happen to the files of a run folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path


def _flip(place: float) -> Callable[[Path], None]:
    def flip(path: Path) -> None:
        raw = bytearray(path.read_bytes())
        raw[min(len(raw) - 1, int(place * len(raw)))] ^= 1
        path.write_bytes(raw)

    return flip


def _zeroed(path: Path) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2] + bytes(len(raw) - len(raw) // 2))


def _other_step(path: Path) -> None:
    shutil.copy(path.parents[1] / "step-00000003" / path.name, path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], None]] = {
    "first bit flipped": _flip(0.0),
    "a bit in the middle flipped": _flip(0.5),
    "a bit near the end flipped": _flip(0.97),
    "cut by three bytes": lambda path: path.write_bytes(path.read_bytes()[:-3]) and None,
    "cut in half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]) and None,
    "grown": lambda path: path.write_bytes(path.read_bytes() + b"x") and None,
    "second half zeroed": _zeroed,
    "emptied": lambda path: path.write_bytes(b"") and None,
    "garbage": lambda path: path.write_bytes(b"\xff\x00garbage") and None,
    "deleted": Path.unlink,
    "a folder in its place": _folder,
    "from another step": _other_step,
}

ELSEWHERE: list[tuple[str, bytes | None, str]] = [
    *[
        (name, content, "is damaged")
        for name in ("run.json", "classes.json")
        for content in (b"", b"{", b"\xff\xfe", b"7", b'"text"', bytes(300), b'{"a": 1')
    ],
    ("run.json", b"[" * 100_000, "nested"),
    ("run.json", None, "a folder"),
    ("classes.json", b'{"0": "0"}', "is damaged"),
    ("classes.json", b"[0, 1]", "is damaged"),
    ("classes.json", None, "a folder"),
]
"""File, content (None: a folder), and what the refusal says beside the file's name."""


def damaged_metrics() -> Iterator[tuple[str, Callable[[list[bytes]], bytes], list[int], str]]:
    """What becomes of the six lines, which of them are left, and what is said."""
    yield "half a last line", lambda lines: b"".join(lines) + b'{"step": 7, "lo', [1, 2, 3, 4, 5, 6], ""
    yield (
        "a zeroed line",
        lambda lines: b"".join([*lines[:2], bytes(90) + b"\n", *lines[3:]]),
        [1, 2, 4, 5, 6],
        "1 line",
    )
    yield "garbage", lambda lines: b"\xff\xfe\n" * 3 + b"".join(lines), [1, 2, 3, 4, 5, 6], "3 lines"
    yield "deep nesting", lambda lines: b"[" * 100_000 + b"\n" + b"".join(lines), [1, 2, 3, 4, 5, 6], "1 line"
    yield "lines of later steps", lambda lines: b"".join(lines) + b'{"step": 9}\n', [1, 2, 3, 4, 5, 6], ""
    yield "emptied", lambda _: b"", [], "lost"
    yield "a step that is text", lambda lines: b'{"step": "1"}\n' + b"".join(lines[1:]), [2, 3, 4, 5, 6], "1 line"
