"""Sample grids in the terminal: two pixels a character in colour, or one shade a character without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.color import Color as Ink
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.geometry import Size
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from sora_spec.tui.frame import planner_app
from sora_spec.watch.pictures import Picture

SHADES = " .:-=+*#%@"
"""From dark to bright on a dark background."""
_LEGIBLE = 16
"""Pixels of a frame's side below which fewer frames are shown instead of smaller ones."""
_LARGEST = 128
"""Pixels of a frame's side that are kept: more than a terminal shows of one."""

Frames = tuple[tuple[Picture, ...], ...]
"""A row for each clip, a column for each of its frames."""


def thumbnails(frames: Frames) -> Frames:
    """The frames no larger than a terminal can show, so that laying them out costs little."""
    return tuple(tuple(_reduced(frame) for frame in row) for row in frames)


def _reduced(frame: Picture) -> Picture:
    return frame if max(frame.width, frame.height) <= _LARGEST else frame.fitted(_LARGEST, _LARGEST)


@dataclass(frozen=True)
class Layout:
    """How frames stand in a panel, in pixels: `rows` × `columns` frames of `width` × `height`, one pixel apart."""

    rows: int
    columns: int
    width: int
    height: int


def layout(rows: int, columns: int, frame: tuple[int, int], panel: tuple[int, int]) -> Layout:
    """As many frames as stay legible, as large as fits. `frame` and `panel` are width and height in pixels."""
    aspect = frame[0] / frame[1]
    least_width, least_height = (_LEGIBLE * aspect, _LEGIBLE) if aspect >= 1 else (_LEGIBLE, _LEGIBLE / aspect)
    columns = max(1, min(columns, int((panel[0] + 1) // (least_width + 1))))
    rows = max(1, min(rows, int((panel[1] + 1) // (least_height + 1))))
    room = ((panel[0] + 1) // columns - 1, (panel[1] + 1) // rows - 1)
    scale = max(min(room[0] / frame[0], room[1] / frame[1]), 0.0)
    return Layout(rows, columns, max(1, int(frame[0] * scale)), max(1, int(frame[1] * scale)))


def mosaic(pictures: Sequence[Sequence[Picture]], plan: Layout, ground: bytes) -> list[bytes]:
    """Rows of RGB bytes of all frames, `ground` between them."""
    lines: list[bytes] = []
    for row in pictures:
        scaled = [picture.scaled(plan.width, plan.height) for picture in row]
        lines += [ground.join(line) for line in zip(*[picture.rows for picture in scaled], strict=True)]
        lines.append(ground * (len(lines[-1]) // 3))
    return lines[:-1]


class SampleGrid(Widget, can_focus=True):
    """Frames of a sample grid. Set `frames`; `playing` shows the clips as they move."""

    frames: reactive[Frames] = reactive(())
    playing: reactive[bool] = reactive(False)
    moment: reactive[int] = reactive(0)
    """Frame that is shown of each clip while playing."""
    note: reactive[str] = reactive("no sample grid yet")
    """What is said where there is no picture."""
    rate: reactive[float] = reactive(6.0)
    """Frames a second."""

    def on_mount(self) -> None:
        """Start the clock, which only ticks while playing."""
        self._clock = self.set_interval(1 / self.rate, self._tick, pause=True)
        self._drawn: list[Strip] = []
        self._drawn_for: object = None

    def watch_playing(self, playing: bool) -> None:
        self.moment = 0
        if playing and self.frames:
            self._clock.resume()
        else:
            self._clock.pause()

    def _tick(self) -> None:
        if self.frames:
            self.moment = (self.moment + 1) % len(self.frames[0])

    def render_line(self, y: int) -> Strip:
        key = (self.size, self.frames, self.playing, self.moment, self.note, self.app.theme, self._plain)
        if key != self._drawn_for:
            self._drawn, self._drawn_for = self._draw(self.size), key
        if y < len(self._drawn):
            return self._drawn[y]
        return Strip.blank(self.size.width, self.rich_style)

    @property
    def _plain(self) -> bool:
        return planner_app(self).ascii_only or self.app.no_color

    def _draw(self, size: Size) -> list[Strip]:
        if not size.width or not size.height:
            return []
        if not self.frames or not self.frames[0]:
            return [Strip([Segment(self.note, self.rich_style)]).adjust_cell_length(size.width, self.rich_style)]
        first = self.frames[0][0]
        rows = len(self.frames)
        columns = rows if self._one_a_clip else len(self.frames[0])
        plan = layout(rows, columns, (first.width, first.height), (size.width, 2 * size.height))
        lines = mosaic(self._shown(plan), plan, bytes(Color.parse(self.app.theme_variables["panel"]).rgb))
        paint = self._shades if self._plain else self._half_blocks
        return [strip.adjust_cell_length(size.width, self.rich_style) for strip in paint(lines)]

    @property
    def _one_a_clip(self) -> bool:
        """Whether each clip is shown by one frame, so that many clips have room."""
        return self.playing or len(self.frames[0]) == 1

    def _shown(self, plan: Layout) -> list[list[Picture]]:
        """Rows of pictures: frames over time of the first clips; while playing as many clips as there is room for."""
        if self._one_a_clip:
            clips = [row[self.moment % len(row)] for row in self.frames]
            rows = [clips[i : i + plan.columns] for i in range(0, len(clips), plan.columns)][: plan.rows]
            return [row for row in rows if len(row) == plan.columns] or rows[:1]
        last = len(self.frames[0]) - 1
        picks = [round(i * last / max(1, plan.columns - 1)) for i in range(plan.columns)]
        return [[row[pick] for pick in picks] for row in self.frames[: plan.rows]]

    def _half_blocks(self, lines: list[bytes]) -> list[Strip]:
        ground = bytes(self.background_colors[1].rgb)
        if len(lines) % 2:
            lines = [*lines, ground * (len(lines[0]) // 3)]
        return [Strip(_pairs(upper, lower)) for upper, lower in zip(lines[::2], lines[1::2], strict=True)]

    def _shades(self, lines: list[bytes]) -> list[Strip]:
        shades = SHADES if self.app.current_theme.dark else SHADES[::-1]
        if len(lines) % 2:
            lines = [*lines, lines[-1]]
        return [
            Strip([Segment("".join(_shade(upper, lower, x, shades) for x in range(0, len(upper), 3)), self.rich_style)])
            for upper, lower in zip(lines[::2], lines[1::2], strict=True)
        ]


def _pairs(upper: bytes, lower: bytes) -> list[Segment]:
    """A half block a column: the upper pixel is its ink, the lower one its paper. Equal neighbours are one segment."""
    found: list[Segment] = []
    start = 0
    for x in range(3, len(upper) + 3, 3):
        if (
            x < len(upper)
            and upper[x : x + 3] == upper[start : start + 3]
            and lower[x : x + 3] == lower[start : start + 3]
        ):
            continue
        ink, paper = Ink.from_rgb(*upper[start : start + 3]), Ink.from_rgb(*lower[start : start + 3])
        found.append(Segment("▀" * ((x - start) // 3), Style(color=ink, bgcolor=paper)))
        start = x
    return found


def _shade(upper: bytes, lower: bytes, x: int, shades: str) -> str:
    """A character as bright as the mean of two pixels (weights of ITU-R BT.601)."""
    bright = sum(weight * (upper[x + c] + lower[x + c]) for c, weight in enumerate((0.299, 0.587, 0.114))) / 2
    return shades[min(len(shades) - 1, int(bright * len(shades) / 256))]
