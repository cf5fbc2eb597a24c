"""Liveness: which bytes are alive when, and what they are."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import get_args

from sora_spec.graph.eager.tape import YamlPath
from sora_spec.graph.ir import Graph, Role


@dataclass(frozen=True)
class Term:
    """Part of the bytes at one moment: what one op made in one part of the model, all blocks together."""

    region: str
    op: str
    """ATen's name, or the role of a resident tensor, or `workspace`."""
    nbytes: int
    yaml: YamlPath


@dataclass(frozen=True)
class Memory:
    """Bytes of tensors, and of workspaces where ops state them; the allocator's own losses are not in a graph."""

    parameter_bytes: int
    buffer_bytes: int
    input_bytes: int
    earlier_gradient_bytes: int
    """Gradients of an earlier pass, which are there before the first op."""
    state_bytes: int
    """Moments of an optimiser, or a moving average."""
    forward_live_bytes: int
    """What the forward pass leaves for the backward pass, the result included and residents not."""
    forward_peak_bytes: int
    """Most bytes alive at once in the forward pass, residents included."""
    backward_peak_bytes: int
    """The same in the backward pass; 0 for a component without one."""
    gradient_bytes: int
    """Gradients of the parameters when the backward pass has ended."""
    terms: tuple[Term, ...]
    """What is alive at the peak, largest first; their sum is `peak_bytes`."""

    @property
    def resident_bytes(self) -> int:
        """Alive before the first op; after the last too, but for inputs that the step let go of."""
        own = self.parameter_bytes + self.buffer_bytes + self.input_bytes
        return own + self.earlier_gradient_bytes + self.state_bytes

    @property
    def peak_bytes(self) -> int:
        """The most bytes alive at once."""
        return max(self.forward_peak_bytes, self.backward_peak_bytes)


@dataclass(frozen=True)
class Moment:
    """A point of the schedule: after op `index`, in copy `copy` where it is repeated; -1 is before the first op."""

    index: int
    copy: int
    nbytes: int


def memory(graph: Graph, itemise: bool = True) -> Memory:
    """Peaks and kept bytes of a whole graph, repeats included; `itemise` False leaves `terms` empty."""
    extra = _extra_resident_bytes(graph)
    start = Moment(-1, 0, sum(r.nbytes for r in graph.residents) + extra)
    forward, backward = _peaks(graph, start, extra)
    peak = max(forward, backward, key=lambda moment: moment.nbytes)
    roles = {role: _resident_bytes(graph, role) for role in get_args(Role)}
    trained = sum(r.nbytes * graph.times(r.region) for r in graph.residents if r.trained)
    return Memory(
        parameter_bytes=roles["parameter"],
        buffer_bytes=roles["buffer"],
        input_bytes=roles["input"],
        earlier_gradient_bytes=roles["gradient"],
        state_bytes=roles["state"],
        forward_live_bytes=_forward_live_bytes(graph) - start.nbytes + extra,
        forward_peak_bytes=forward.nbytes,
        backward_peak_bytes=backward.nbytes if graph.forward_ops < len(graph.ops) else 0,
        gradient_bytes=trained if graph.forward_ops < len(graph.ops) else 0,
        terms=terms_at(graph, peak) if itemise else (),
    )


def _resident_bytes(graph: Graph, role: str) -> int:
    return sum(r.nbytes * graph.times(r.region) for r in graph.residents if r.role == role)


def _extra_resident_bytes(graph: Graph) -> int:
    return sum(r.nbytes * (graph.times(r.region) - 1) for r in graph.residents)


def _nets(graph: Graph) -> list[int]:
    """Bytes by which each run of repeated blocks raises what is alive."""
    return [graph.level_before(run.end) - graph.level_before(run.start) for run in graph.runs]


def _forward_live_bytes(graph: Graph) -> int:
    if graph.repeat is None:
        return graph.forward_live_bytes
    copies = graph.repeat.times - 1
    nets = (net for run, net in zip(graph.runs, _nets(graph), strict=True) if run.end <= graph.forward_ops)
    return graph.forward_live_bytes + copies * sum(nets)


def _peaks(graph: Graph, start: Moment, extra: int) -> tuple[Moment, Moment]:
    """Highest moments of forward and backward. What is alive is linear in the copy, so its ends decide."""
    best = [start, Moment(-1, 0, 0)]
    copies = graph.repeat.times - 1 if graph.repeat is not None else 0
    shift, position = extra, 0
    for run, net in zip([*graph.runs, None], [*_nets(graph), 0], strict=True):
        end = run.start if run is not None else len(graph.ops)
        _raise(graph, best, range(position, end), 0, shift)
        if run is not None:
            _raise(graph, best, range(run.start, run.end), 0, shift)
            _raise(graph, best, range(run.start, run.end), copies, shift + copies * net)
            shift += copies * net
            position = run.end
    return best[0], best[1]


def _raise(graph: Graph, best: list[Moment], span: range, copy: int, shift: int) -> None:
    for index in span:
        op = graph.ops[index]
        nbytes = op.live_bytes + op.workspace_bytes + shift
        if nbytes > best[op.backward].nbytes:
            best[op.backward] = Moment(index, copy, nbytes)


def terms_at(graph: Graph, moment: Moment) -> tuple[Term, ...]:
    """What is alive at a moment, largest first."""
    total = _alive(graph, moment.index)
    copies = graph.repeat.times - 1 if graph.repeat is not None else 0
    for resident in graph.residents:
        total[_resident_key(graph, resident.region, resident.role)] += resident.nbytes * (
            graph.times(resident.region) - 1
        )
    for run in graph.runs:
        if run.start > moment.index:
            break
        count = copies if run.end <= moment.index else moment.copy
        if count:
            for key, nbytes in _gain(graph, run.start, run.end).items():
                total[key] += count * nbytes
    if moment.index >= 0:
        op = graph.ops[moment.index]
        total[collapsed_path(graph, op.region), "workspace", graph.yaml(op.region)] += op.workspace_bytes
    return _sorted(total)


Key = tuple[str, str, YamlPath]


def _gain(graph: Graph, start: int, end: int) -> Counter[Key]:
    gain = _alive(graph, end - 1, before_next=True)
    gain.subtract(_alive(graph, start - 1, before_next=True))
    return gain


def _alive(graph: Graph, index: int, before_next: bool = False) -> Counter[Key]:
    """Bytes alive right after op `index`, or once what it leaves unused is freed."""
    tape, found = graph.tape, Counter[Key]()
    latest = index + 1 if before_next else index
    for storage, (size, born, died) in enumerate(zip(tape.sizes, tape.born, tape.died, strict=True)):
        if size and (born <= index or storage < len(graph.residents)) and (died is None or died > latest):
            found[_storage_key(graph, storage, born)] += size
    return found


def _storage_key(graph: Graph, storage: int, born: int) -> Key:
    if storage < len(graph.residents):
        resident = graph.residents[storage]
        return _resident_key(graph, resident.region, resident.role)
    op = graph.ops[born]
    return (collapsed_path(graph, op.region), op.name, graph.yaml(op.region))


def _resident_key(graph: Graph, region: int, role: str) -> Key:
    return (collapsed_path(graph, region), role, graph.yaml(region))


def collapsed_path(graph: Graph, region: int) -> str:
    """Path of a region with the number of its block left out: `backbone.blocks[*].mlp`."""
    found = graph.regions[region]
    return found.path if found.block is None else found.path.replace(f"blocks[{found.block}]", "blocks[*]", 1)


def saved_for_backward(graph: Graph) -> tuple[Term, ...]:
    """What the forward pass leaves alive, without residents, largest first."""
    total = _alive(graph, graph.forward_ops - 1, before_next=True)
    copies = graph.repeat.times - 1 if graph.repeat is not None else 0
    for run in graph.runs:
        if run.end <= graph.forward_ops:
            for key, nbytes in _gain(graph, run.start, run.end).items():
                total[key] += copies * nbytes
    return tuple(term for term in _sorted(total) if term.op not in get_args(Role))


def _sorted(total: Counter[Key]) -> tuple[Term, ...]:
    terms = [Term(region, op, nbytes, yaml) for (region, op, yaml), nbytes in total.items() if nbytes]
    return tuple(sorted(terms, key=lambda term: -term.nbytes))
