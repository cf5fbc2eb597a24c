"""What people and drivers call a device, and which entries of the table they mean.

`RTX 4090`, `4090`, `NVIDIA GeForce RTX 4090` and `rtx4090` are one device; `A100-SXM4-80GB` is `a100-80gb`, and `a100`
alone is two. A GPU that is none of the table's is never taken for one that is.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

TABLE = Path(__file__).parents[1] / "hardware.yaml"
ENTRY = re.compile(r"^([A-Za-z0-9][\w.-]*):", re.MULTILINE)
"""The name of an entry, at the left margin."""

WITHOUT_FIGURES: dict[str, float] = {
    **dict.fromkeys(("p100",), 6.0),
    **dict.fromkeys(("p4", "p40", "1080", "1080ti"), 6.1),
    **dict.fromkeys(("v100", "titanv"), 7.0),
    **dict.fromkeys(("t4", "2060", "2070", "2080", "2080super", "2080ti", "titanrtx"), 7.5),
    **dict.fromkeys(("a30",), 8.0),
    **dict.fromkeys(("a2", "a10", "a10g", "a16", "a40", "a2000", "a4000", "a4500", "a5000", "a5500"), 8.6),
    **dict.fromkeys(("3050", "3060", "3060ti", "3070", "3070ti", "3080", "3080ti", "3090ti"), 8.6),
    **dict.fromkeys(("l4", "l40", "6000ada", "5000ada", "4500ada", "4000ada", "2000ada"), 8.9),
    **dict.fromkeys(("4050", "4060", "4060ti", "4070", "4070super", "4070ti", "4070tisuper"), 8.9),
    **dict.fromkeys(("4080", "4080super", "4090d"), 8.9),
    **dict.fromkeys(("gh200",), 9.0),
    **dict.fromkeys(("b100", "gb200"), 10.0),
    **dict.fromkeys(("b300", "gb300"), 10.3),
    **dict.fromkeys(("5050", "5060", "5060ti", "5070", "5070ti", "5080"), 12.0),
    **dict.fromkeys(("pro4000", "pro4500", "pro5000", "pro6000"), 12.0),
    **dict.fromkeys(("gb10",), 12.1),
}
"""Compute capability of GPUs that the table has no figures of (NVIDIA, "CUDA GPU Compute Capability"), by model."""

_MEMORY = re.compile(r"(?<![a-z0-9])(\d{1,3})\s*(?:gb|gib|g)\b")
_MAKERS = {
    *("nvidia", "geforce", "tesla", "quadro", "gpu", "graphics", "card", "tensor", "core", "corporation", "cuda"),
    *("generation", "workstation", "server", "edition", "blackwell", "hopper", "ampere", "lovelace"),
}
_BOARD = re.compile(r"(sxm|pcie|nvl|hgx|dgx)\d*")
_CHIPS = re.compile(r"hbm\d\w?|gddr\d\w?")
_SAME_SIZE = 0.1
"""By how much the memory in a name may differ from what CUDA reports: 48 GB are 44.4 GiB with ECC."""


@cache
def table_names() -> tuple[str, ...]:
    """Names of the table's entries, without reading what they hold."""
    return tuple(ENTRY.findall(TABLE.read_text(encoding="utf-8")))


class Model(NamedTuple):
    """A name taken apart."""

    key: str
    """The model without its makers' words and without `rtx`: `4090`, `a100`, `6000ada`."""
    gigabytes: int | None
    board: str
    """`sxm`, `pcie` or `nvl`, where the name says it."""


def model_of(name: str) -> Model:
    """A name taken apart, however it is written."""
    text = re.sub(r"[^a-z0-9]+", " ", name.lower())
    memory = _MEMORY.search(text)
    words = (text[: memory.start()] + text[memory.end() :] if memory else text).split()
    boards = [match.group(1) for word in words if (match := _BOARD.fullmatch(word))]
    kept = [w for w in words if w not in _MAKERS and not _BOARD.fullmatch(w) and not _CHIPS.fullmatch(w)]
    gigabytes = int(memory.group(1)) if memory else None
    if (
        gigabytes is None
        and len(kept) > 1
        and re.fullmatch(r"[a-z]+\d+", kept[0])
        and re.fullmatch(r"\d{2,3}", kept[-1])
    ):
        gigabytes = int(kept.pop())  # `a100-80`
    key = re.sub(r"^[rg]tx(?=.)", "", "".join(kept))
    return Model(key, gigabytes, next((board for board in boards if board in ("sxm", "pcie", "nvl")), ""))


def same_size(gigabytes: int, memory_bytes: int) -> bool:
    """Whether a device with so much memory can be the one of a name that says `gigabytes`."""
    return abs(memory_bytes / 2**30 / gigabytes - 1) <= _SAME_SIZE


def known_capability(name: str) -> float | None:
    """Compute capability of a GPU that the table has no figures of; None for a name that is none."""
    return WITHOUT_FIGURES.get(model_of(name).key.removesuffix("laptop"))
