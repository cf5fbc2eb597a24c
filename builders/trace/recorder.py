"""A run of the real module of a component, recorded as its model graph."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from sora_spec.builders.trace.component import Prepared, prepare_component
from sora_spec.builders.trace.memory_trace import MemoryTrace
from sora_spec.builders.trace.regions import blocks_of, part_of
from sora_spec.graph import Component, Setting
from sora_spec.graph.eager.tape import Op, Tape, Use
from sora_spec.graph.ir import Graph, Resident, Role
from sora_spec.language.schema.spec import Spec

_ROOTS = {"denoiser": "backbone", "denoiser_step": "backbone"}
_OUTSIDE = {"denoiser_step": "objective"}
"""Part that the ops outside all modules belong to, where that is not the module itself."""


class Recorder(MemoryTrace):
    """Context that records kernels with the module that they belong to.

    A kernel of the forward pass belongs to the innermost module that is running. One of the backward pass belongs to
    the module in which its autograd node was made: nodes are numbered in the order in which they are made, and where a
    module begins or ends its number is noted.
    """

    def __init__(self, outside: str, setting: Setting) -> None:
        super().__init__(setting.rounding)
        self._always_watched = setting.recompute == "selective"
        """Selective recomputation runs under a dispatch mode of its own."""
        self.sums: set[int] = set()
        """Ops that PyTorch runs in place when nothing watches it, if the storage that they add to dies with them."""
        self.strides: dict[int, tuple[int, ...]] = {}
        """Of convolutions, by number of op."""
        self._known: dict[str, int] = {}
        self._makers: dict[int, int] = {}
        self._inside = self._linear = 0
        self.outside = self.tape.region = self.part(outside)
        self._marks = [(_next_node(), self.outside)]

    def part(self, path: str, blocks: str = "") -> int:
        region = part_of(path, blocks)
        if region.path not in self._known:
            self._known[region.path] = len(self.tape.regions)
            self.tape.regions.append(region)
        return self._known[region.path]

    def watch(self, root: str, module: nn.Module) -> None:
        """Let every module of a tree say when it runs."""
        blocks = blocks_of(root, module)
        for name, found in module.named_modules():
            found.forward = self._watched(self.part(f"{root}.{name}".rstrip("."), blocks), found.forward)

    def _watched(self, part: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            outer, again = self.tape.region, self.tape.backward
            self.tape.region, self._inside = part, self._inside + again
            self._mark()
            try:
                return forward(*args, **kwargs)
            finally:
                self.tape.region, self._inside = outer, self._inside - again
                self._mark()

        return watched

    def _mark(self) -> None:
        if not self.tape.backward:
            self._marks.append((_next_node(), self.tape.region))

    def region(self) -> int:
        """See `MemoryTrace.region`; sums of gradients belong to the kernel before them."""
        tape = self.tape
        if not tape.backward or self._inside:
            return tape.region
        node: Any = torch._C._current_autograd_node()
        number = -1 if node is None else node._sequence_nr()
        if 0 <= number < _next_node():
            tape.region = self._marks[max(0, bisect_right(self._marks, (number, len(tape.regions))) - 1)][1]
        return tape.region

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.tape.backward:
            self.region()
        return super().__torch_dispatch__(func, types, args, kwargs)

    def recorded(self, op: Op, func: Any, args: Any) -> None:
        number = len(self.tape.ops) - 1
        node: Any = torch._C._current_autograd_node() if self.tape.backward else None
        biased = self._linear and not self._always_watched
        if op.name == "add" and (biased or self._sums_gradients(op, node)):
            self.sums.add(number)
        self._makers.update((use[0], id(node)) for use in op.outputs)
        if op.name == "convolution":
            self.strides[number] = tuple(args[3])
        elif op.name == "convolution_backward":
            self.strides[number] = tuple(args[4])

    def _sums_gradients(self, op: Op, node: Any) -> bool:
        """Whether the engine adds a gradient to one that came before: then another node made that, or this one for the
        same place."""
        if node is None or self._inside or len(op.inputs) != 2:
            return False
        places = [edge for edge in node.next_functions if edge[0] is not None]
        return self._makers.get(op.inputs[0][0]) != id(node) or len(set(places)) < len(places)

    @contextmanager
    def seeing_linear(self) -> Generator[None]:
        """While the body runs, `F.linear` says that it runs: it adds its bias in place when nothing watches."""
        original = torch.nn.functional.linear

        def linear(*args: Any, **kwargs: Any) -> Tensor:
            self._linear += 1
            try:
                return original(*args, **kwargs)
            finally:
                self._linear -= 1

        torch.nn.functional.linear = linear
        try:
            yield
        finally:
            torch.nn.functional.linear = original


def _next_node() -> int:
    return torch.autograd._get_sequence_nr()  # pyright: ignore[reportPrivateImportUsage]


@dataclass
class Recording:
    """What one run of a component did."""

    tape: Tape
    residents: tuple[Resident, ...]
    forward_ops: int
    left: set[int]
    """Storages that are alive once the forward pass has returned."""
    output: Use
    """The result."""
    sums: set[int]
    """See `Recorder`."""
    strides: dict[int, tuple[int, ...]]
    """See `Recorder`."""

    def graph(self) -> Graph:
        """As a model graph, without repeats."""
        live = sum(self.tape.sizes[number] for number in self.left)
        _, shape, _, dtype = self.output
        return Graph("", "", self.tape, self.residents, self.forward_ops, live, (shape, dtype.label))


def record(spec: Spec, component: Component, setting: Setting, device: torch.device | None = None) -> Recording:
    """Run a component and record it, every block of the spec. `device`: see `prepare_component`.

    Raises UserError for a component that has no module.
    """
    ready = prepare_component(spec, component, setting, device)
    root = _ROOTS.get(component, "vae")
    recorder = Recorder(_OUTSIDE.get(component, root), setting)
    modules = {root: ready.module, **ready.beside}
    if setting.accumulates:
        for parameter in ready.module.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    residents = tuple(_residents(recorder, ready, modules))
    for path, module in modules.items():
        recorder.watch(path, module)
    output, left = _run(ready, setting, recorder)
    tape = Tape()  # the module may live on for a while, and tell the recorder's when it dies
    watched = recorder.tape
    tape.ops, tape.regions = list(watched.ops), list(watched.regions)
    tape.sizes, tape.born, tape.died = list(watched.sizes), list(watched.born), list(watched.died)
    forward_ops = next((index for index, op in enumerate(tape.ops) if op.backward), len(tape.ops))
    tape.died[:] = [len(tape.ops) if died is None else died for died in tape.died]  # what is left dies with the module
    return Recording(tape, residents, forward_ops, left, output, recorder.sums, recorder.strides)


def _run(ready: Prepared, setting: Setting, recorder: Recorder) -> tuple[Use, set[int]]:
    forward, output, left = ready.forward, list[Use](), set[int]()

    def noted() -> Tensor:
        result = forward()
        output.extend(recorder.uses([result]))
        return result

    def forward_done() -> None:
        left.update(number for number, died in enumerate(recorder.tape.died) if died is None)
        recorder.tape.backward = True

    ready.forward = noted
    with recorder, recorder.seeing_linear():
        ready.run(setting, forward_done)
    recorder.tape.backward = False
    return output[0], left


def _residents(recorder: Recorder, ready: Prepared, modules: dict[str, nn.Module]) -> Generator[Resident]:
    def resident(tensor: Tensor, name: str, role: Role, part: int, trained: bool, kept: bool) -> Generator[Resident]:
        if recorder.count(tensor):
            nbytes = recorder.tape.sizes[-1]
            yield Resident(name, role, tuple(tensor.shape), nbytes, part, trained, kept)

    for root, module in modules.items():
        blocks, kept = blocks_of(root, module), set(module.state_dict(keep_vars=True))
        for name, tensor in chain(module.named_parameters(), module.named_buffers()):
            path, is_parameter = f"{root}.{name}", isinstance(tensor, nn.Parameter)
            owner = path if name.count(".") == 0 and not is_parameter else path.rpartition(".")[0]
            part = recorder.part(owner, blocks)
            owned = module is ready.module  # weights of a module beside it are constants
            role: Role = "parameter" if is_parameter and owned else "buffer"
            trained = is_parameter and ready.trains and tensor.requires_grad
            yield from resident(tensor, name, role, part, trained, owned and not is_parameter and name in kept)
            if tensor.grad is not None:
                yield from resident(tensor.grad, f"{name}.grad", "gradient", part, False, False)
    for number, table in enumerate(ready.tables):
        yield from resident(table, f"table.{number}", "buffer", recorder.outside, False, False)
    for name in ready.inputs:
        yield from resident(ready.inputs[name], name, "input", recorder.part(name), False, False)
