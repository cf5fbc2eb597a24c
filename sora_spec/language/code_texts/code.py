"""What there is to say about one code."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Code:
    """One kind of problem."""

    code: str
    title: str
    text: str
    """Why it is wrong and how to mend it, as Markdown."""
    wrong: str = ""
    """YAML that gets this code."""
    right: str = ""
    """The same, mended."""
