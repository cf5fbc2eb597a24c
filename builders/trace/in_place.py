"""What PyTorch does in place, and makes anew as soon as a dispatch mode watches it."""

from __future__ import annotations

from math import prod

from sora_spec.builders.trace.recorder import Recording
from sora_spec.graph.eager.layout import is_dense
from sora_spec.graph.eager.tape import Use


def unwatched(recording: Recording) -> None:
    """Change a recording into that of a run which nothing watched.

    Sums of gradients and of a bias are made in what they add to, where nothing else holds that and it has no gaps
    (`torch/csrc/autograd/input_buffer.cpp`, `aten/src/ATen/native/Linear.cpp`). The kernel of the mean squared error
    sums its squares where they lie; that of `meta` knows nothing of it.
    """
    _drop_sums(recording)
    tape = recording.tape
    for op in tape.ops:
        if op.name == "mse_loss":
            number = op.outputs[0][0]
            tape.sizes[number] = max(tape.sizes[number], *(_dense_bytes(use) for use in op.inputs))


def _dense_bytes(use: Use) -> int:
    _, shape, _, dtype = use
    return prod(shape) * dtype.size


def _drop_sums(recording: Recording) -> None:
    tape = recording.tape
    merged = dict[int, int]()  # what was made anew, and what it would have been made in
    dropped = set[int]()
    for index in sorted(recording.sums):
        op = tape.ops[index]
        (first, shape, strides, _), made = op.inputs[0], op.outputs[0][0]
        held = merged.get(first, first)
        if tape.died[held] == index + 1 and is_dense(shape, strides) and op.outputs[0][1] == shape:
            merged[made], tape.died[held] = held, tape.died[made]
            dropped.add(index)
    _renumber(recording, merged, dropped)


def _renumber(recording: Recording, merged: dict[int, int], dropped: set[int]) -> None:
    tape = recording.tape
    place = [0]
    for index in range(len(tape.ops)):
        place.append(place[-1] + (index not in dropped))
    kept = [number for number in range(len(tape.sizes)) if number not in merged]
    number_of = {old: new for new, old in enumerate(kept)}
    number_of |= {made: number_of[held] for made, held in merged.items()}

    def renumbered(uses: list[Use]) -> list[Use]:
        return [(number_of[number], *layout) for number, *layout in uses]  # pyright: ignore[reportReturnType]

    tape.ops[:] = [op for index, op in enumerate(tape.ops) if index not in dropped]
    for op in tape.ops:
        op.inputs, op.outputs = renumbered(op.inputs), renumbered(op.outputs)
    tape.sizes[:] = [tape.sizes[old] for old in kept]
    tape.born[:] = [place[tape.born[old]] for old in kept]
    deaths = [tape.died[old] for old in kept]
    tape.died[:] = [None if died is None else place[died] for died in deaths]
    recording.strides = {place[index]: strides for index, strides in recording.strides.items()}
    recording.left = {number_of[number] for number in recording.left}
    (recording.output,) = renumbered([recording.output])
    recording.forward_ops = place[recording.forward_ops]
