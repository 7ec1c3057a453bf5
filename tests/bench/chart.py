"""A chart of the whole table, as SVG: a line for each row, with its ratio, its confidence interval and its goal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

from bench.rows import Measured

_LEFT, _WIDTH, _LINE, _TOP, _RIGHT = 330, 420, 24, 34, 70
_TICKS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)


def svg(measured: Sequence[Measured]) -> str:
    """Return the chart. Its axis is logarithmic: half the time of a peer is as far from 1 as twice its time."""
    ends = [(one.ratio, one.row.goal, *one.interval()) for one in measured]
    low = min((min(values) for values in ends), default=1)
    high = max((max(values) for values in ends), default=1)
    first = max((tick for tick in _TICKS if tick <= low), default=_TICKS[0])
    last = min((tick for tick in _TICKS if tick >= high), default=_TICKS[-1])
    last = last if last > first else 2 * first

    def x(ratio: float) -> float:
        part = math.log(ratio / first) / math.log(last / first)
        return round(_LEFT + _WIDTH * min(1.0, max(0.0, part)), 1)

    height = _TOP + _LINE * len(measured) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + _RIGHT} {height}" role="img"'
        ' font-family="sans-serif" font-size="12">',
        "<title>bk's time divided by that of other tools</title>",
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for tick in _TICKS:
        if first <= tick <= last:
            colour = "#333" if tick == 1 else "#ddd"
            parts.append(f'<path d="M{x(tick)} {_TOP - 8}V{height - 28}" stroke="{colour}"/>')
            parts.append(f'<text x="{x(tick)}" y="{_TOP - 14}" text-anchor="middle">{tick:g}</text>')
    for number, one in enumerate(measured):
        y = _TOP + _LINE * number + _LINE // 2
        (left, right), ratio = one.interval(), one.ratio
        parts += [
            f'<text x="{_LEFT - 12}" y="{y + 4}" text-anchor="end">{escape(one.row.name)}</text>',
            f'<path d="M{x(left)} {y}H{x(right)}" stroke="#2a6f97" stroke-width="3"/>',
            f'<circle cx="{x(ratio)}" cy="{y}" r="5" fill="#2a6f97"/>',
            f'<path d="M{x(one.row.goal)} {y - 7}v14" stroke="#c1121f" stroke-width="2"/>',
            f'<text x="{_LEFT + _WIDTH + _RIGHT - 6}" y="{y + 4}" text-anchor="end">{ratio:.2f}</text>',
        ]
    parts.append(
        f'<text x="{_LEFT}" y="{height - 8}">bk / peer, dot: median, bar: 95 % interval, red: goal; less is faster</text>'
    )
    return "\n".join([*parts, "</svg>", ""])
