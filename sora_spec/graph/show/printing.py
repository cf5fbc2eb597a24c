"""A model graph as text for people: one line for each op, under the part of the model that it belongs to."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from sora_spec.graph.eager.tape import Op, YamlPath
from sora_spec.graph.ir import Graph, Resident
from sora_spec.graph.passes.count import count
from sora_spec.graph.passes.liveness import alive_after
from sora_spec.graph.passes.memory import memory

LineOf = Callable[[YamlPath], int | None]
"""Line of the YAML value at a path; None where no line holds it."""

_SHORT = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "float64": "f64", "int64": "i64", "int32": "i32"}
_ROLES = {"parameter": "param", "gradient": "grad"}
_NARROWEST = 44  # columns below which lines wrap rather than lose more
_WIDEST = 132  # columns beyond which nothing is gained
_NAME, _NUMBER = 24, 9


def no_lines(path: YamlPath) -> int | None:
    """For a graph whose spec has no text at hand."""
    return None


def graph_text(graph: Graph, line_of: LineOf = no_lines, width: int = 100) -> str:
    """The whole graph in lines of at most `width` columns: a head, what is there before the first op, and the ops."""
    width = min(width, _WIDEST)
    columns = _Columns(max(width, _NARROWEST))
    return "\n".join([*_head(graph, width), "", *_residents(graph, line_of, columns), *_ops(graph, line_of, columns)])


def _head(graph: Graph, width: int) -> list[str]:
    counts, held = count(graph), memory(graph, itemise=False)
    shape, dtype = graph.output
    facts = [f"{counts.parameters:,} parameters"]
    if counts.forward_flops:
        facts.append(f"forward {quantity(counts.forward_flops)}FLOP")
    if graph.forward_ops < len(graph.ops):
        facts.append(f"backward {quantity(counts.backward_flops)}FLOP")
        facts.append(f"kept for backward {nbytes(held.forward_live_bytes)}")
    facts.append(f"peak {nbytes(held.peak_bytes)}")
    if graph.component not in ("optimizer_step", "ema_step"):  # they change what is there and return nothing
        facts.append(f"result {layout(shape, dtype)}")
    origin = [f"  {graph.recorded}"] if graph.recorded else []
    return [f"{graph.name}: {graph.component}", *_folded(facts, width), *origin]


def _folded(facts: list[str], width: int) -> list[str]:
    """Facts joined by commas, broken where a line is full."""
    lines = [facts[0]]
    for fact in facts[1:]:
        if len(lines[-1]) + len(fact) + 3 > width:
            lines[-1] += ","
            lines.append(fact)
        else:
            lines[-1] += f", {fact}"
    return [f"  {line}" for line in lines]


class _Columns:
    """Which columns a line has: the narrower it is, the fewer."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.storages = width >= 104
        self.alive = width >= 76
        self.moved = width >= 64
        self.name = _NAME if width >= 72 else 17
        numbers = _NUMBER * (1 + self.moved + self.alive)
        names = 17 if self.storages else 0
        self.result = width - 2 - self.name - 1 - numbers - names - 6

    def header(self) -> str:
        numbers = "".join(f"{title:>{_NUMBER}}" for title in self._chosen("FLOP", "moved", "alive"))
        reads = f"{'  reads':<17}" if self.storages else ""
        return f"  {'op':<{self.name}} {'result':<{self.result}}{numbers}{reads}{'line':>6}"

    def op(self, op: Op, alive: int, line: int | None) -> str:
        """One op, and the bytes alive once it has run."""
        results = f"%{op.outputs[0][0]} " if self.storages and op.outputs else ""
        results += ", ".join(layout(use[1], use[3].label) for use in op.outputs)
        flops = quantity(op.flops) if op.flops else ""
        cells = self._chosen(flops, nbytes(op.read_bytes + op.written_bytes), nbytes(alive))
        numbers = "".join(f"{cell:>{_NUMBER}}" for cell in cells)
        reads = f"  {_cut(_reads(op), 15):<15}" if self.storages else ""
        name, result = _cut(short_name(op.name), self.name), _cut(results, self.result)
        return f"  {name:<{self.name}} {result:<{self.result}}{numbers}{reads}{line or '':>6}".rstrip()

    def _chosen(self, flops: str, moved: str, alive: str) -> list[str]:
        return [flops, *([moved] if self.moved else []), *([alive] if self.alive else [])]

    def resident(self, number: int, resident: Resident, block: str, times: int, line: int | None) -> str:
        """A tensor that is there before the first op, of the block or blocks of that name."""
        name = f"{block}{resident.name}"
        name = f"%{number} {name}" if self.storages else name
        repeat = f" ×{times}" if times > 1 else ""
        narrow = self.width < 60
        role = _ROLES.get(resident.role, resident.role) if narrow else resident.role
        cells = f"{nbytes(resident.nbytes) + repeat:>{14 if narrow else 16}}{line or '':>{5 if narrow else 6}}"
        head = f"  {role:<{6 if narrow else 10}}"
        room = self.width - len(head) - len(cells)
        shape = _cut(_extents(resident.shape), room - 4)
        left = _cut(name, room - len(shape) - 2)
        return f"{head}{left:<{room - len(shape) - 1}} {shape}{cells}".rstrip()


def _reads(op: Op) -> str:
    return " ".join(f"%{use[0]}" for use in op.inputs)


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room - 1] + "…"


def _residents(graph: Graph, line_of: LineOf, columns: _Columns) -> Iterator[str]:
    yield "before the first op"
    for number, resident in enumerate(graph.residents):
        line, times = line_of(graph.yaml(resident.region)), graph.times(resident.region)
        yield columns.resident(number, resident, _block(graph, resident.region), times, line)
    yield ""


def _block(graph: Graph, region: int) -> str:
    """`blocks[1..26].` for what belongs to a block; nothing for the rest."""
    if graph.regions[region].block is None:
        return ""
    found = re.search(r"blocks\[[^]]*\]", graph.label(region))
    return f"{found[0]}." if found else ""


def _ops(graph: Graph, line_of: LineOf, columns: _Columns) -> Iterator[str]:
    yield columns.header()
    region = backward = None
    for op, alive in zip(graph.ops, alive_after(graph), strict=True):
        line = line_of(graph.yaml(op.region))
        if (op.region, op.backward) != (region, backward):
            region, backward = op.region, op.backward
            yield from _heading(graph, op, line, columns.width)
        yield columns.op(op, alive, line)


def _heading(graph: Graph, op: Op, line: int | None, width: int) -> list[str]:
    """Name of a part, how often it occurs, and the YAML value that made it."""
    title = f"{'backward of ' if op.backward else ''}{graph.label(op.region) or graph.component}"
    times = graph.times(op.region)
    title += f"  ×{times}" if times > 1 else ""
    origin = dotted(graph.yaml(op.region)) + (f", line {line}" if line else "")
    if len(title) + len(origin) + 4 <= width:
        return [f"{title}  ← {origin}"]
    return [_cut(title, width), _cut(f"  ← {origin}", width)]


def dotted(path: YamlPath) -> str:
    """Path of a YAML value as a user writes it."""
    return ".".join(str(part) for part in path)


def short_name(name: str) -> str:
    """ATen's name without what all of its kind share."""
    return name.removeprefix("_scaled_dot_product_").removeprefix("native_").lstrip("_")


def layout(shape: tuple[int, ...], dtype: str) -> str:
    """`f32[2,256,1152]`."""
    return f"{_SHORT.get(dtype, dtype)}{_extents(shape)}"


def _extents(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"


def quantity(value: float) -> str:
    """Three digits and a decimal prefix: `4.08 G`."""
    for unit in ("", "k", "M", "G", "T", "P"):
        if value < 999.5 or unit == "P":
            return f"{value:.3g} {unit}" if value < 999.5 else f"{value:,.0f} {unit}"
        value /= 1000
    raise AssertionError(value)


def nbytes(value: float) -> str:
    """Three digits and a binary unit: `17.7 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 999.5 or unit == "TiB":
            return f"{value:.3g} {unit}" if value < 999.5 else f"{value:,.0f} {unit}"
        value /= 1024
    raise AssertionError(value)
