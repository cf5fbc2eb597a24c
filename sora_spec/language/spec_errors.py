"""All problems of a spec as one exception."""

from __future__ import annotations

from collections.abc import Sequence

from sora_spec.errors import UserError
from sora_spec.language.diagnostics import Diagnostic
from sora_spec.language.report import render_full


class SpecErrors(UserError):  # noqa: N818 - it carries several
    """A spec that cannot be used. `diagnostics` holds every problem; the text is the full report."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        unreadable = any(diagnostic.code == "E101" for diagnostic in self.diagnostics)
        super().__init__(render_full(self.diagnostics), hint=None, exit_code=2 if unreadable else 1)
