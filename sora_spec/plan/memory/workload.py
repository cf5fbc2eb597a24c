"""What one component needs, whatever the machine: bytes at its highest moment, and its ops gathered by size."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from sora_spec.graph import Setting
from sora_spec.graph.component import Component
from sora_spec.graph.eager.tape import YamlPath
from sora_spec.plan.memory.schedule import Row, Schedule, Weight, schedule_of

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec


class Peak(NamedTuple):
    """The highest moment of a component, weights aside."""

    activation_bytes: int
    """Everything but weights, gradients of weights, and inputs that stay throughout."""
    gradient_bytes: int
    """Gradients of weights, as large as the weights' type makes them."""
    input_bytes: int
    """Inputs that stay throughout."""
    by_path: tuple[tuple[YamlPath, int], ...]
    """Activations by the YAML value that makes them, largest first."""

    @property
    def tensor_bytes(self) -> int:
        """All of it."""
        return self.activation_bytes + self.gradient_bytes + self.input_bytes


@dataclass(frozen=True, eq=False)
class Workload:
    """A component at one batch."""

    component: Component
    batch: int
    weights: tuple[Weight, ...]
    parameters: int
    parameter_bytes: int
    buffer_bytes: int
    gradient_bytes: int
    """Gradients of all trained parameters."""
    rows: tuple[Row, ...]
    schedule: Schedule

    @property
    def peak(self) -> Peak:
        """The highest moment with the gradients as they arise."""
        return _peak(self.schedule, self.batch, 1.0)

    @property
    def forward_flops(self) -> int:
        """A multiply-accumulate is 2."""
        return sum(flops * count for _, backward, flops, _, count in self.rows if not backward)

    @property
    def backward_flops(self) -> int:
        """Recomputation included."""
        return sum(flops * count for _, backward, flops, _, count in self.rows if backward)

    def peak_with(self, gradient_scale: float) -> Peak:
        """The highest moment when gradients take `gradient_scale` times their bytes, as when they are sharded."""
        return _peak(self.schedule, self.batch, gradient_scale)


def workload(spec: Spec, component: Component, setting: Setting) -> Workload:
    """The needs of one component of a spec. Cached."""
    return _workload(schedule_of(spec, component, setting), component, setting.batch)


@lru_cache(maxsize=1024)
def _workload(schedule: Schedule, component: Component, batch: int) -> Workload:
    sizes = schedule.sizes_at(batch)
    weights = schedule.weights
    roles = {role: sum([sizes[i] * weights[i].times for i in members]) for role, members in schedule.roles.items()}
    return Workload(
        component=component,
        batch=batch,
        weights=weights,
        parameters=schedule.parameters,
        parameter_bytes=roles.get("parameter", 0),
        buffer_bytes=roles.get("buffer", 0),
        gradient_bytes=roles.get("trained", 0) if schedule.graph.forward_ops < len(schedule.graph.ops) else 0,
        rows=schedule.rows(batch),
        schedule=schedule,
    )


@lru_cache(maxsize=2048)
def _peak(schedule: Schedule, batch: int, gradient_scale: float) -> Peak:
    sizes = schedule.sizes_at(batch)
    levels, gradients = schedule.levels(sizes), schedule.levels(sizes, schedule.gradients)
    inputs = sum([sizes[storage] for storage in schedule.inputs])
    index, copies, activation, gradient = _highest(schedule, sizes, levels, gradients, gradient_scale)
    by_path = alive_by_path(schedule, sizes, index, index, index, copies) if index >= 0 else ()
    return Peak(activation, gradient, inputs, by_path)


def _highest(
    schedule: Schedule, sizes: list[int], levels: list[int], gradients: list[int], scale: float
) -> tuple[int, int, int, int]:
    """Op, copy, activation bytes and gradient bytes of the highest moment: levels are linear in the copy of a run."""
    best = (-1, 0, 0, 0)
    top = 0.0
    shift = grad_shift = position = 0

    def look(span: range, copy: int, more: int, more_grad: int) -> None:
        nonlocal best, top
        for index in span:
            gradient = gradients[index] + more_grad
            activation = levels[index] + more - gradient
            height = activation + scale * gradient
            if height > top:
                top, best = height, (index, copy, activation, gradient)

    for run in schedule.runs:
        net = schedule.entering(sizes, levels, run.end) - schedule.entering(sizes, levels, run.start)
        grad_net = schedule.entering(sizes, gradients, run.end, schedule.gradients) - schedule.entering(
            sizes, gradients, run.start, schedule.gradients
        )
        look(range(position, run.end), 0, shift, grad_shift)
        shift, grad_shift = shift + run.extra * net, grad_shift + run.extra * grad_net
        look(range(run.start, run.end), run.extra, shift, grad_shift)
        position = run.end
    look(range(position, len(levels)), 0, shift, grad_shift)
    return best


def alive_by_path(
    schedule: Schedule, sizes: list[int], born_by: int, alive_at: int, position: int, copy: int
) -> tuple[tuple[YamlPath, int], ...]:
    """Activations that op `born_by` or one before it made and that live beyond op `alive_at`, by the YAML value.

    `position`: an op at which the schedule stands, in copy `copy` of the run that it lies in.
    """
    found = _alive(schedule, sizes, born_by, alive_at)
    for run in schedule.runs:
        if run.start > position:
            break
        times = run.extra if run.end <= position else copy
        if times:
            for path, size in _alive(schedule, sizes, run.end - 1, run.end).items():
                found[path] += times * size
            for path, size in _alive(schedule, sizes, run.start - 1, run.start).items():
                found[path] -= times * size
    return tuple(sorted(((path, size) for path, size in found.items() if size > 0), key=lambda pair: -pair[1]))


def _alive(schedule: Schedule, sizes: list[int], born_by: int, alive_at: int) -> Counter[YamlPath]:
    """Bytes of activations born up to one op and still alive at another."""
    found = Counter[YamlPath]()
    for storage, born, died, path in schedule.activations:
        if born <= born_by and died > alive_at:
            found[path] += sizes[storage]
    return found
