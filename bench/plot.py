"""Bars as SVG: enough of a plot for a page of documentation, without a library for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, BAR, GAP, HEAD = 860, 14, 16, 40
LEFT, RIGHT = 110, 110
COLOURS = {"relay": "#9aa3ad", "embedded": "#0b6e75", "postgres": "#2f6db5", "cluster": "#8a5a9e"}


@dataclass(frozen=True)
class Bar:
    """One bar. value: above zero."""

    name: str
    value: float


def draw_bars(title: str, groups: Sequence[tuple[str, Sequence[Bar]]]) -> str:
    """Groups of bars below each other; in each group the longest fills the width, the others follow by logarithm."""
    lines, at = [f'<text x="8" y="24" font-size="16" font-weight="600">{escape(title)}</text>'], HEAD
    for label, bars in groups:
        at += GAP
        lines.append(f'<text x="8" y="{at}" font-weight="600">{escape(label)}</text>')
        at += 6
        longest = max((bar.value for bar in bars), default=1.0)
        for bar in bars:
            width = (WIDTH - LEFT - RIGHT) * _share(bar.value, longest)
            colour = COLOURS.get(bar.name, "#555555")
            lines += [
                f'<text x="{LEFT - 8}" y="{at + BAR - 3}" text-anchor="end">{escape(bar.name)}</text>',
                f'<rect x="{LEFT}" y="{at}" width="{width:.1f}" height="{BAR - 2}" fill="{colour}"/>',
                f'<text x="{LEFT + width + 6:.1f}" y="{at + BAR - 3}">{bar.value:,.4g}</text>',
            ]
            at += BAR
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {at + GAP}" font-family="sans-serif" '
        f'font-size="11" role="img"><title>{escape(title)}</title><rect width="100%" height="100%" fill="#ffffff"/>'
    )
    return "\n".join([head, *lines, "</svg>"]) + "\n"


def _share(value: float, longest: float) -> float:
    """1 for the longest; a tenth of it is two thirds as long; never nothing."""
    return max(0.02, 1 + math.log10(value / longest) / 3)
