"""The hero figure as a static inline SVG, for print and for readers without scripts.

Drawn from the same geometry as the plotly figure. Colours of text and grid come from the page's CSS
classes (``ink``, ``muted``, ``rule``), so that one picture serves the light and the dark theme.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape

from peo_bench.report.contents import TaskView
from peo_bench.report.figures import Geometry, Style, drawn_order, oracle_lines
from peo_bench.report.points import ORACLE, REFERENCE, Point
from peo_bench.report.wording import decimal

WIDTH, HEIGHT = 900, 560
LEFT, RIGHT, TOP, BOTTOM = 64, 18, 32, 54

_CORNERS = {
    "square": (4, 45), "diamond": (4, 0), "triangle-up": (3, 0), "triangle-down": (3, 180), "pentagon": (5, 0),
    "hexagon": (6, 30),
}  # fmt: skip


def swatch(style: Style | None) -> str:
    """Draw a method's marker as a small inline picture; None draws the reference policy's star."""
    shape = _star(8, 8, 7) if style is None else _marker(style.symbol, 8, 8, 6)
    paint = 'class="ink-fill"' if style is None else f'fill="{style.colour}"'
    frame = 'class="swatch" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true"'
    return f'<svg {frame}><path d="{shape}" {paint}/></svg>'


def dash_swatch(dash: str) -> str:
    """Draw a sample of a dashed line."""
    line = f'<path class="muted-line" stroke-dasharray="{dash}" d="M0 4H28"/>'
    return f'<svg class="swatch" viewBox="0 0 28 8" width="28" height="8" aria-hidden="true">{line}</svg>'


def front_svg(view: TaskView, styles: Mapping[str, Style], geometry: Geometry, label: str) -> str:
    """Draw the fronts (same marks as the interactive figure, without tooltips); ``label`` is its text alternative."""
    frame = _Frame(geometry)
    parts = [f'<svg class="static" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">']
    parts += frame.axes(view)
    for _, dash, line in oracle_lines(geometry):
        parts.append(_path([frame.at(p.x, p.y) for p in line], f'class="muted-line" stroke-dasharray="{dash}"'))
    for (method, _), stairs in geometry.stairs.items():
        style = styles[method]
        dash = ' stroke-dasharray="2 4"' if style.dash == "dot" else ""
        corners = [frame.at(float(x), float(y)) for x, y in stairs]
        parts.append(_path(corners, f'stroke="{style.colour}" stroke-width="1.8"{dash}'))
    order = {method: i for i, method in enumerate(drawn_order(view))}
    parts += [_point(frame, point, styles) for point in sorted(view.points, key=lambda p: order.get(p.method, -1))]
    return "".join([*parts, "</svg>"])


class _Frame:
    """Maps data to the picture; values outside the axes are clipped to their edge."""

    def __init__(self, geometry: Geometry) -> None:
        self.x_range, self.y_range = geometry.x_range, geometry.y_range

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = _share(x, self.x_range) * (WIDTH - LEFT - RIGHT)
        up = _share(y, self.y_range) * (HEIGHT - TOP - BOTTOM)
        return round(LEFT + across, 2), round(HEIGHT - BOTTOM - up, 2)

    def axes(self, view: TaskView) -> list[str]:
        x_axis, y_axis = view.axes
        parts = []
        for tick in _ticks(self.x_range):
            x, _ = self.at(tick, self.y_range[0])
            parts.append(f'<path class="rule" d="M{x} {TOP}V{HEIGHT - BOTTOM}"/>')
            parts.append(_text(x, HEIGHT - BOTTOM + 20, decimal(tick, 1), 'text-anchor="middle" class="tick"'))
        for tick in _ticks(self.y_range):
            _, y = self.at(self.x_range[0], tick)
            parts.append(f'<path class="rule" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>')
            parts.append(_text(LEFT - 8, y + 4, decimal(tick, 1), 'text-anchor="end" class="tick"'))
        middle = (TOP + HEIGHT - BOTTOM) / 2
        parts.append(_text(WIDTH / 2, HEIGHT - 10, f"more {x_axis.name} → ({x_axis.column})", 'text-anchor="middle"'))
        turn = f'text-anchor="middle" transform="rotate(-90 16 {middle})"'
        parts.append(_text(16, middle, f"more {y_axis.name} → ({y_axis.column})", turn))
        return [*parts, _text(WIDTH - RIGHT - 4, TOP - 10, "better ↗", 'text-anchor="end"')]


def _point(frame: _Frame, point: Point, styles: Mapping[str, Style]) -> str:
    x, y = frame.at(point.x, point.y)
    if point.method == REFERENCE:
        return f'<path class="ink-fill" d="{_star(x, y, 9)}"/>'
    if point.method == ORACLE:
        return f'<circle class="{"muted-line" if point.hollow else "muted-fill"}" cx="{x}" cy="{y}" r="2.5"/>'
    style = styles[point.method]
    fill = style.colour if point.nondominated else "none"
    shape = _marker(style.symbol, x, y, 6.5 if point.grid == "asked" else 4)
    return f'<path d="{shape}" fill="{fill}" stroke="{style.colour}" stroke-width="1.6"/>'


def _marker(symbol: str, x: float, y: float, r: float) -> str:
    if symbol == "circle":
        return f"M{x - r:.2f} {y:.2f}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0Z"
    sides, turn = _CORNERS[symbol]
    return _polygon(x, y, [r * 1.2] * sides, turn)


def _star(x: float, y: float, r: float) -> str:
    return _polygon(x, y, [r, 0.42 * r] * 5, 0)


def _polygon(x: float, y: float, radii: list[float], turn: float) -> str:
    """Return a closed path with one corner per radius, the first one pointing up before the turn (degrees)."""
    angles = [math.radians(turn + 360 * i / len(radii)) for i in range(len(radii))]
    corners = [f"{x + r * math.sin(a):.2f} {y - r * math.cos(a):.2f}" for r, a in zip(radii, angles, strict=True)]
    return f"M{'L'.join(corners)}Z"


def _path(corners: list[tuple[float, float]], attributes: str) -> str:
    return f'<path fill="none" {attributes} d="M{"L".join(f"{x} {y}" for x, y in corners)}"/>' if corners else ""


def _text(x: float, y: float, text: str, attributes: str) -> str:
    return f'<text x="{x}" y="{y}" {attributes}>{escape(text)}</text>'


def _share(value: float, limits: tuple[float, float]) -> float:
    """Return where between worse (0) and better (1) a value lies."""
    return min(1.0, max(0.0, (value - limits[0]) / (limits[1] - limits[0])))


def _ticks(limits: tuple[float, float]) -> list[float]:
    """Return about six round values within the range.

    >>> _ticks((2.1, -0.2))
    [0.0, 0.5, 1.0, 1.5, 2.0]
    """
    low, high = min(limits), max(limits)
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
    first = math.ceil(low / step)
    return [round(i * step, 10) for i in range(first, math.floor(high / step) + 1)]
