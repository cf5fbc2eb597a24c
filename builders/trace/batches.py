"""Recordings at several batches as one: every number that grows with the batch is a + b·batch."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import torch

from sora_spec.builders.trace.in_place import unwatched
from sora_spec.builders.trace.recorder import Recording, record
from sora_spec.errors import UserError
from sora_spec.graph import Component, Setting
from sora_spec.graph.eager.tape import Use
from sora_spec.language.schema.spec import Spec

_FIRST, _SECOND, _THIRD = 2, 3, 5
"""Batches that are recorded: two give the line, the third says whether it is one."""


def recorded_values(spec: Spec, component: Component, setting: Setting) -> dict[str, Any]:
    """What `sora_spec.graph.traced.recording` reads: of a single sample, or of all batches from 2 up.

    Raises UserError for a component without a module, and for one that a line does not describe.
    """
    batches = (1,) if setting.batch == 1 else (_FIRST, _SECOND, _THIRD)
    runs = [_recording(spec, component, setting, batch) for batch in batches]
    fixed, growing = _fixed(runs[0]), [_growing(run) for run in runs]
    try:
        if any(_fixed(run) != fixed for run in runs):
            raise ValueError
        lines = growing[0] if len(runs) == 1 else _line(growing[0], growing[1], _SECOND - _FIRST)
        if len(runs) > 1 and _line(growing[0], growing[2], _THIRD - _FIRST) != lines:
            raise ValueError
    except ValueError:
        raise UserError(
            f"{spec.name}: what {component} needs is no a + b·batch, and so cannot be told for every batch",
            "a batch of 1 can be planned",
        ) from None
    return fixed | lines | _interned(lines["uses"])


def _recording(spec: Spec, component: Component, setting: Setting, batch: int) -> Recording:
    recording = record(spec, component, replace(setting, batch=batch), torch.device("meta"))
    if not setting.observed:
        unwatched(recording)
    return recording


def _fixed(run: Recording) -> dict[str, Any]:
    """What is the same at every batch."""
    tape = run.tape
    return {
        "ops": [
            [op.name, op.region, op.backward, [u[0] for u in op.inputs], [u[0] for u in op.outputs]] for op in tape.ops
        ],
        "strides": {f"{number}": list(strides) for number, strides in run.strides.items()},
        "born": tape.born,
        "died": tape.died,
        "regions": [[region.path, list(region.yaml), region.block] for region in tape.regions],
        "residents": [[r.name, r.role, r.region, r.trained, r.persistent] for r in run.residents],
        "forward_ops": run.forward_ops,
        "left": sorted(run.left),
        "result": run.output[0],
    }


def _growing(run: Recording) -> dict[str, Any]:
    """What may grow with the batch."""
    tape = run.tape
    return {
        "sizes": list(tape.sizes),
        "work": [[op.flops, op.read_bytes, op.written_bytes] for op in tape.ops],
        "uses": [[_layout(use) for use in (*op.inputs, *op.outputs)] for op in tape.ops],
        "shapes": [list(resident.shape) for resident in run.residents],
        "output": _layout(run.output),
    }


def _layout(use: Use) -> list[Any]:
    _, shape, strides, dtype = use
    return [dtype.label, list(shape), list(strides)]


def _line(one: Any, other: Any, steps: int) -> Any:
    """[a, b] in place of every number that differs `steps` batches on. Raises ValueError where more than that does."""
    if isinstance(one, dict):
        return {name: _line(value, other[name], steps) for name, value in one.items()}
    if isinstance(one, list) and len(one) == len(other):
        return [_line(a, b, steps) for a, b in zip(one, other, strict=True)]
    if one == other:
        return one
    if type(one) is not int or (other - one) % steps:
        raise ValueError
    slope = (other - one) // steps
    return [one - slope * _FIRST, slope]


def _interned(uses: list[list[Any]]) -> dict[str, Any]:
    """Every layout once, and its number in place of it."""
    layouts = dict[str, int]()
    numbers = [[layouts.setdefault(json.dumps(layout), len(layouts)) for layout in own] for own in uses]
    return {"layouts": [json.loads(layout) for layout in layouts], "uses": numbers}
