"""Where memory and work go, as a tree that opens down to the ops of the model graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from textual.binding import Binding, BindingType

from sora_spec.plan.planner import Plan
from sora_spec.plan.show.breakdown import OpRow, Row, op_rows
from sora_spec.tui.numbers import gib, percent, short
from sora_spec.tui.rows import Cell, Line, RowList

_OPS = "/ops"
Branch = Row | OpRow


class Breakdown(RowList):
    """The tree. Opened rows stay open when the numbers change."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,l", "open", "Open", show=False),
        Binding("left,h", "close", "Close", show=False),
        Binding("space", "choose", "Open or close", show=False),
    ]

    def __init__(self, id: str) -> None:
        super().__init__("Where it goes", id, empty="no plan")
        self._open = {"network"}
        self._rows: tuple[Row, ...] = ()
        self._plan: Plan | None = None
        self._stale = False

    def show(self, rows: tuple[Row, ...], plan: Plan | None, stale: bool) -> None:
        self._rows, self._plan, self._stale = rows, plan, stale
        self._redraw()

    def action_open(self) -> None:
        """Open the row, or go to its first child."""
        key = self._key
        if key is None:
            return
        if key not in self._open and self._has_children(key):
            self._toggle(key)
        elif key in self._open:
            self.action_move(1)

    def action_close(self) -> None:
        """Close the row, or go to the one above it."""
        key = self._key
        if key is None:
            return
        if key in self._open and self._has_children(key):
            self._toggle(key)
            return
        depth = self.lines[self.cursor].value[2]
        above = (i for i in range(self.cursor - 1, -1, -1) if self.lines[i].value[2] < depth)
        self.cursor = next(above, self.cursor)

    def action_choose(self) -> None:
        key = self._key
        if key is not None and self._has_children(key):
            self._toggle(key)

    @property
    def branch(self) -> Branch | None:
        return self.line.value[1] if self.line is not None else None

    @property
    def _key(self) -> str | None:
        return self.line.value[0] if self.line is not None else None

    def _has_children(self, key: str) -> bool:
        found = next((line for line in self.lines if line.value[0] == key), None)
        return found is not None and isinstance(found.value[1], Row) and bool(_opens(found.value[1]))

    def _toggle(self, key: str) -> None:
        self._open ^= {key}
        self._redraw()

    def _redraw(self) -> None:
        here = self._key
        lines = [line for row in self._rows for line in self._branch_lines(row, 0, "")]
        self.set_lines(lines)
        if here is not None and self._key != here:
            self.cursor = next((i for i, line in enumerate(lines) if line.value[0] == here), self.cursor)

    def on_resize(self, event: object) -> None:
        """Columns come and go with the width."""
        self._redraw()

    def _branch_lines(self, row: Row, depth: int, above: str) -> Iterator[Line]:
        key = f"{above}>{row.key}" if above else row.key
        opened = key in self._open
        yield self._line(key, row, depth, opened)
        if not opened:
            return
        for child in row.children:
            yield from self._branch_lines(child, depth + 1, key)
        if row.part is not None and self._plan is not None:
            yield from self._op_lines(key, row, depth + 1)

    def _op_lines(self, key: str, row: Row, depth: int) -> Iterator[Line]:
        assert self._plan is not None
        assert row.part is not None
        found = op_rows(self._plan, row.part, row.path)
        if not found:
            return
        key += _OPS
        opened = key in self._open
        work = sum(op.flops for op in found)
        ops = Row(key, f"{sum(op.times for op in found)} ops", flops=work or None, path=row.path, line=row.line)
        yield self._line(key, ops, depth, opened, opens=True)
        if opened:
            for number, op in enumerate(found):
                yield self._op_line(f"{key}/{number}", op, depth + 1)

    def _line(self, key: str, row: Row, depth: int, opened: bool, opens: bool = False) -> Line:
        mark = ("▾ " if opened else "▸ ") if opens or _opens(row) else "  "
        name = (Cell("  " * depth + mark, "dim"), Cell(row.name, "stale" if self._stale else "plain"))
        return Line(name, self._numbers(row), (key, _Ops(row) if opens else row, depth))

    def _numbers(self, row: Row) -> tuple[Cell, ...]:
        """Memory, share, FLOPs, parameters: as many columns as there is room for."""
        memory = f"{gib(row.bytes.likely):>8}" if row.bytes is not None else " " * 8
        share = f"{percent(row.share):>7}" if row.bytes is not None else " " * 7
        cells = [Cell(memory, "stale" if self._stale else "strong"), Cell(share)]
        if self.size.width >= 60:
            cells.append(Cell(f"{short(row.flops) if row.flops else '':>9}", "dim"))
        if self.size.width >= 72:
            cells.append(Cell(f"{short(row.parameters) if row.parameters else '':>9}", "dim"))
        return tuple(cells)

    def _op_line(self, key: str, op: OpRow, depth: int) -> Line:
        way = "backward " if op.backward else ""
        name = (Cell("  " * depth + "  ", "dim"), Cell(f"{op.op} × {op.times}"), Cell(f"  {way}{op.kind}", "dim"))
        cells = [Cell(f"{gib(op.written_bytes):>8}", "dim"), Cell(" " * 7)]
        if self.size.width >= 60:
            cells.append(Cell(f"{short(op.flops) if op.flops else '':>9}", "dim"))
        if self.size.width >= 72:
            cells.append(Cell(" " * 9))
        return Line(name, tuple(cells), (key, op, depth))


class _Ops(Row):
    """The row above a list of ops, which opens though it holds no rows."""

    def __init__(self, row: Row) -> None:
        super().__init__(**row.__dict__)


def _opens(row: Row) -> bool:
    return isinstance(row, _Ops) or bool(row.children) or row.part is not None


def header(width: int) -> str:
    """Names of the columns."""
    names = f"{'GiB':>8}{'share':>7}"
    if width >= 60:
        names += f"{'FLOPs':>9}"
    return names + (f"{'params':>9}" if width >= 72 else "")
