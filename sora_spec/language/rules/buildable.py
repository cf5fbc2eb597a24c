"""E4xx: what the language can say and nothing can build yet, one problem per section. W401: what else this program
cannot do with a spec that it can check and plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from sora_spec.language.abilities import ROWS, Lack, buildable, kind_of, unbuilt
from sora_spec.language.rules.problem import At, Problem, sentence

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec

_CODES = {
    "vae": "E401",
    "vae.decoder": "E402",
    "backbone": "E403",
    "temporal": "E404",
    "backbone.conditioning": "E405",
    "backbone.position": "E406",
}


def is_buildable(section: str, spec: Spec) -> Iterator[Problem]:
    """E401 to E406. Text tokens without cross-attention are E312 already."""
    kind = kind_of(spec, section)
    if (lack := unbuilt(section, kind)) is not None:
        yield Problem(
            _CODES[section],
            f"`{section}: {{kind: {kind}}}` is part of the language, but cannot be built yet",
            At(lack.path, "not buildable yet"),
            help=f"Can be built: {', '.join(f'`{name}`' for name in buildable(section))}.",
        )


def is_supported(row: Callable[[Spec], Lack | None], spec: Spec) -> Iterator[Problem]:
    """W401."""
    lack = row(spec)
    if lack is not None and not lack.expected:
        message, help = f"this spec {lack.sentence()}", sentence(lack.help)
        yield Problem("W401", message, At(lack.path, lack.label), help=help, severity="warning")


RULES = (
    *(partial(is_buildable, section) for section in _CODES),
    *(partial(is_supported, row) for row in ROWS),
)
