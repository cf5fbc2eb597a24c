"""The machine that a plan is made for: its GPU is one of the table, however it is called."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sora_spec.errors import UserError
from sora_spec.language.device_names import table_names
from sora_spec.language.rules.problem import At, Problem, sentence

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec


def gpu_is_known(spec: Spec) -> Iterator[Problem]:
    """E330. The planner, and only where a name is not simply one of the table, looks for what is meant."""
    name = spec.hardware.gpu
    if name in table_names():
        return
    from sora_spec.plan.devices.hardware import find_device

    try:
        find_device(name)
    except UserError as error:
        yield Problem(
            "E330",
            error.message,
            At("hardware.gpu", "not one device"),
            help=sentence(error.hint or ""),
        )


RULES = (gpu_is_known,)
