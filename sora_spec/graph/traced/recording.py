"""A recording, as a tracer wrote it, back to a graph: at any batch, and with blocks that are repeated."""

from __future__ import annotations

from typing import Any

from sora_spec.graph.eager.dtypes import DType
from sora_spec.graph.eager.layout import Shape
from sora_spec.graph.eager.ops.attention import NAMES, attention_workspace
from sora_spec.graph.eager.ops.conv_workspace import backward_workspace, forward_workspace
from sora_spec.graph.eager.tape import Layout, Op, Region, Tape
from sora_spec.graph.eager.tensor import Tensor, leaf
from sora_spec.graph.ir import Graph, Repeat, Resident
from sora_spec.graph.setting import Setting, new_tape

_TYPES = {kind.label: kind for kind in DType}


def graph_of(
    values: dict[str, Any], name: str, component: str, setting: Setting, repeat: Repeat | None = None
) -> Graph:
    """The graph at the setting's batch, kernels' own buffers and rounding included."""
    batch, tape = setting.batch, new_tape(setting)

    def at(number: Any) -> int:
        return number if type(number) is int else number[0] + number[1] * batch

    def shape(numbers: list[Any]) -> Shape:
        return tuple([at(number) for number in numbers])

    layouts: list[Layout] = [(shape(own), shape(strides), _TYPES[label]) for label, own, strides in values["layouts"]]
    tape.sizes = [tape.rounded(at(size)) for size in values["sizes"]]
    tape.born, tape.died = list(values["born"]), list(values["died"])
    tape.regions = [Region(path, tuple(yaml), block) for path, yaml, block in values["regions"]]
    for (kind, region, backward, given, made), work, uses in zip(
        values["ops"], values["work"], values["uses"], strict=True
    ):
        op = Op(kind, region, backward, at(work[0]), 0)
        op.read_bytes, op.written_bytes = at(work[1]), at(work[2])
        op.inputs = [(number, *layouts[use]) for number, use in zip(given, uses, strict=False)]
        op.outputs = [(number, *layouts[use]) for number, use in zip(made, uses[len(given) :], strict=True)]
        tape.ops.append(op)
    _set_levels(tape)
    _set_workspaces(tape, values["strides"], setting)
    residents = tuple(
        Resident(named, role, shape(own), tape.sizes[number], region, trained, kept)
        for number, ((named, role, region, trained, kept), own) in enumerate(
            zip(values["residents"], values["shapes"], strict=True)
        )
    )
    label, *output = values["output"]
    result = (values["result"], shape(output[0]), shape(output[1]), _TYPES[label])
    return Graph(
        *(name, component, tape, residents, values["forward_ops"]),
        forward_live_bytes=sum(tape.sizes[number] for number in values["left"]),
        output=(result[1], label),
        repeat=repeat,
        result=result,
        recorded=f"recorded on {values['made']} with PyTorch {values['torch']} by sora-spec {values['version']}",
    )


def _set_levels(tape: Tape) -> None:
    """Bytes alive after each op."""
    steps = [0] * (len(tape.ops) + 1)
    for size, born, died in zip(tape.sizes, tape.born, tape.died, strict=True):
        steps[born] += size
        steps[len(tape.ops) if died is None else died] -= size
    level = 0
    for step, op in zip(steps, tape.ops, strict=False):
        level += step
        op.live_bytes = level


def _set_workspaces(tape: Tape, strides: dict[str, list[int]], setting: Setting) -> None:
    """Bytes of the kernels that are known to take some."""
    if not (tape.threads or tape.winograd):
        return
    for number, op in enumerate(tape.ops):
        given = [leaf(Tape(), shape, dtype) for _, shape, _, dtype in op.inputs]
        if f"{number}" in strides:
            op.workspace_bytes = _of_convolution(op, given, tuple(strides[f"{number}"]), tape)
        elif op.name.startswith(NAMES["cpu"]):
            backward = op.name.endswith("_backward")  # a forward kernel is run in the backward pass to recompute
            q, k = given[backward : 2 + backward]
            op.workspace_bytes = attention_workspace(q, k, "cpu", backward, tape.threads)


def _of_convolution(op: Op, given: list[Tensor], strides: tuple[int, ...], tape: Tape) -> int:
    if op.name == "convolution":
        return forward_workspace(tape, given[0], given[1], op.outputs[0][1], strides)
    g, x, weight = given[:3]
    made = {use[1] for use in op.outputs}
    return backward_workspace(tape, g, x, weight, strides, (x.shape in made, weight.shape in made))
