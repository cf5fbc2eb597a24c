"""A picture of a graph as SVG: boxes in one column, arrows between neighbours straight, the others in lanes beside."""

from __future__ import annotations

from dataclasses import dataclass
from xml.sax.saxutils import escape

from sora_spec.characters import visible
from sora_spec.graph.show.picture import Box, Picture

_FONT = "ui-sans-serif, system-ui, 'DejaVu Sans', sans-serif"
_WIDTH, _PILL, _MARGIN, _GAP, _LANE = 400, 170, 24, 26, 18  # of a box, an input, the picture's edge, between boxes
_TITLE, _LINE, _PAD = 18, 16, 10  # heights of a title and of a line, and the room around them
_FILL = {
    "attention": ("#e8ddf5", "#7a4fb5"),
    "linear": ("#dbe8f7", "#3a6ea5"),
    "conv": ("#dcf0e3", "#3d8a5a"),
    "other": ("#f1f1ee", "#8a8a80"),
    "group": ("#ffffff", "#555555"),
}


@dataclass
class _Placed:
    """Where a box lies."""

    box: Box
    x: float
    y: float
    width: float
    height: float


def svg(picture: Picture) -> str:
    """The picture as one SVG document."""
    return _Drawing(picture).document()


class _Drawing:
    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        self.left = _MARGIN + (_PILL + 2 * _LANE if _any_inputs(picture.boxes) else 0)
        self.placed: dict[str, _Placed] = {}
        self.bottom: float = self._column(picture.boxes, self.left, _MARGIN + 40, _WIDTH)
        self.lanes = 0

    def _column(self, boxes: tuple[Box, ...], x: float, y: float, width: float) -> float:
        """Place boxes under each other; returns where the next would begin."""
        for box in boxes:
            head = _PAD + _TITLE + _LINE * len(box.lines) + _PAD / 2
            height = head
            if box.children:
                inner = self._column(box.children, x + 2 * _PAD, y + head + _PAD, width - 6 * _PAD)
                height = inner - y
            self.placed[box.id] = _Placed(box, x, y, width, height)
            y += height + _GAP
        return y - _GAP + _PAD if boxes else y

    def document(self) -> str:
        """Boxes, then arrows over them."""
        arrows = [self._arrow(source, target) for source, target in self.picture.arrows]
        boxes = [line for box in self.picture.boxes for line in self._box(box)]
        width = self.left + _WIDTH + _MARGIN + _LANE * (self.lanes + 1)
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{self.bottom + _MARGIN:g}" '
            f'viewBox="0 0 {width:g} {self.bottom + _MARGIN:g}" font-family="{_FONT}">'
        )
        marker = (
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto"><path d="M0 0L8 4L0 8z" fill="#444444"/></marker></defs>'
        )
        title = f"<title>{escape(visible(self.picture.title))}</title>"
        paper = '<rect width="100%" height="100%" fill="#ffffff"/>'
        caption = _text(_MARGIN, _MARGIN + 12, self.picture.title, 17, bold=True)
        return "\n".join([head, title, marker, paper, caption, *boxes, *arrows, "</svg>"])

    def _box(self, box: Box) -> list[str]:
        at = self.placed[box.id]
        fill, stroke = _FILL[box.look]
        lines = [
            f'<rect x="{at.x:g}" y="{at.y:g}" width="{at.width:g}" height="{at.height:g}" rx="7" fill="{fill}" '
            f'stroke="{stroke}" stroke-width="1.3"/>',
            _text(at.x + _PAD, at.y + _PAD + 12, box.title, 14, bold=True),
        ]
        for number, line in enumerate(box.lines):
            lines.append(_text(at.x + _PAD, at.y + _PAD + _TITLE + _LINE * number + 11, line, 12))
        for child in box.children:
            lines += self._box(child)
        return lines + self._pills(at)

    def _pills(self, at: _Placed) -> list[str]:
        """What the box is the first to read, at the left edge of the picture."""
        lines: list[str] = []
        for number, name in enumerate(at.box.inputs):
            y = at.y + 6 + 24 * number
            lines += [
                f'<rect x="{_MARGIN}" y="{y:g}" width="{_PILL}" height="20" rx="10" fill="#fff6df" stroke="#b8892b"/>',
                _text(_MARGIN + 12, y + 14, name, 12),
                _path(f"M{_MARGIN + _PILL} {y + 10:g}H{at.x:g}"),
            ]
        return lines

    def _arrow(self, source: str, target: str) -> str:
        """Straight down to a neighbour; around in a lane of its own, on the right, to any other."""
        a, b = self.placed[source], self.placed[target]
        middle = a.x + a.width / 2
        between = [p for p in self.placed.values() if a.y + a.height < p.y < b.y and p.x == b.x]
        if a.x == b.x and not between and b.y > a.y:
            return _path(f"M{middle:g} {a.y + a.height:g}V{b.y:g}")
        if a.x != self.left or b.x != self.left:
            return self._inside(a, b)
        self.lanes += 1
        lane = self.left + _WIDTH + _LANE * self.lanes
        start, end = a.y + a.height - 8, b.y + 10 + 3 * (self.lanes % 4)
        return _path(f"M{a.x + a.width:g} {start:g}H{lane:g}V{end:g}H{b.x + b.width:g}")

    def _inside(self, a: _Placed, b: _Placed) -> str:
        """Around the boxes between, inside a group."""
        lane = max(a.x + a.width, b.x + b.width) + 1.2 * _PAD
        return _path(f"M{a.x + a.width:g} {a.y + a.height - 8:g}H{lane:g}V{b.y + 10:g}H{b.x + b.width:g}")


def _any_inputs(boxes: tuple[Box, ...]) -> bool:
    return any(box.inputs or _any_inputs(box.children) for box in boxes)


def _text(x: float, y: float, text: str, size: int, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}"{weight} fill="#1f1f1f">{escape(visible(text))}</text>'


def _path(line: str) -> str:
    return f'<path d="{line}" fill="none" stroke="#444444" stroke-width="1.2" marker-end="url(#tip)"/>'
