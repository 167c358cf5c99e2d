"""Figures of the pages as inline SVG; the only module that imports matplotlib.

Contract: pure functions from numbers to an `<svg>` string: the same bytes for the same numbers (fixed hash salt, no
date). They need no display and leave no global state. Text stays text, in any script that the browser can draw.
"""

from __future__ import annotations

import contextlib
import html
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""Name -> (x, y)."""
Band = tuple[float, float, str]
"""A labelled range of the x axis: start, end, name."""

# Begins with the palette of Okabe and Ito, which colour-blind readers can tell apart.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#5F5F5F", "#B2182B", "#35978F")
KEPT = "#009E73"
_WIDTH = 8.4
"""Inches of a figure as wide as the page."""
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "twofold",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e3e3",
    "axes.axisbelow": True,
}
_LEGEND: dict[str, Any] = {"frameon": False, "fontsize": 9, "loc": "center left", "bbox_to_anchor": (1.01, 0.5)}


def lines(
    series: Series,
    x_label: str,
    y_label: str,
    bands: Sequence[Band] = (),
    height: float = 3.2,
    from_zero: bool = False,
    logarithmic: str = "",
    mark: tuple[float, str] | None = None,
) -> str:
    """Lines over a common axis with labelled bands behind them; `logarithmic` names axes (x, y, xy).

    `mark` is a labelled place on the x axis.
    """
    with _axes(_WIDTH, height) as (figure, axes):
        _draw_lines(axes, series, bands)
        _name_bands(axes, bands)
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.set(**{f"{axis}scale": "log" for axis in logarithmic})
        axes.xaxis.set_major_formatter(FuncFormatter(_number))
        if mark:
            _mark(axes, *mark)
        if from_zero:
            axes.set_ylim(bottom=0)
        if from_zero or "y" in logarithmic:
            axes.yaxis.set_major_formatter(FuncFormatter(_number))
        if len(series) > 1:
            axes.legend(**_LEGEND)
        return _svg(figure, f"{y_label} by {x_label}")


def panels(rows: Mapping[str, tuple[Series, float]], x_label: str, bands: Sequence[Band] = ()) -> str:
    """Panels of lines (y label -> series and height) one above the other, which share the x axis."""
    heights = [height for _, height in rows.values()]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, sum(heights)), layout="constrained")
        stacked = figure.subplots(len(rows), sharex=True, height_ratios=heights, squeeze=False)[:, 0]
        for axes, (y_label, (series, _)) in zip(stacked, rows.items(), strict=True):
            _draw_lines(axes, series, bands)
            axes.set(ylabel=y_label)
        _name_bands(stacked[0], bands)
        stacked[-1].set(xlabel=x_label)
        stacked[-1].xaxis.set_major_formatter(FuncFormatter(_number))
        figure.align_ylabels(stacked)
        return _svg(figure, f"{', '.join(rows)}, by {x_label}")


def shares(series: Series, x_label: str, y_label: str, diagonal: bool = False) -> str:
    """Lines between shares: both axes run from 0 to 1, optionally with the diagonal behind the lines."""
    with _axes(5.4, 3.6) as (figure, axes):
        if diagonal:
            axes.plot((0, 1), (0, 1), ":", color="#888888", lw=1.2)
        for position, (name, (x, y)) in enumerate(series.items()):
            axes.plot(x, y, label=name, marker="o" if len(x) <= 10 else None, **_line(position))
        axes.set(xlabel=x_label, ylabel=y_label, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.legend(**_LEGEND)
        return _svg(figure, f"{y_label} by {x_label}: {', '.join(series)}")


def areas(
    x: Sequence[float], shares: Mapping[str, Sequence[float]], x_label: str, y_label: str, bands: Sequence[Band] = ()
) -> str:
    """Shares that add up to one, as stacked areas, with the bands' names above."""
    with _axes(_WIDTH, 3.4) as (figure, axes):
        colours = [PALETTE[position % len(PALETTE)] for position in range(len(shares))]
        drawn = axes.stackplot(x, *shares.values(), labels=list(shares), colors=colours, step="post", lw=0)
        for position, area in enumerate(drawn):
            area.set_hatch(("", "//", "..")[position // len(PALETTE) % 3])
        _name_bands(axes, bands)
        for _, end, _ in bands:
            axes.axvline(end, color="white", lw=1.5)
        axes.set(xlabel=x_label, ylabel=y_label, ylim=(0, 1), xlim=(x[0], x[-1]))
        axes.xaxis.set_major_formatter(FuncFormatter(_number))
        axes.legend(**_LEGEND, reverse=True)
        return _svg(figure, f"{y_label} by {x_label}: {', '.join(shares)}")


def dots(rows: Mapping[str, Sequence[float]], x_label: str) -> str:
    """A row of dots per name, with a line at their mean."""
    with _axes(_WIDTH, 0.9 + 0.34 * len(rows)) as (figure, axes):
        for position, (name, values) in enumerate(rows.items()):
            colour = PALETTE[position % len(PALETTE)]
            axes.plot(values, [name] * len(values), "o", color=colour, markersize=5, alpha=0.8)
            mean = sum(values) / len(values)
            axes.plot((mean, mean), (position - 0.35, position + 0.35), color=colour, lw=1.8)
        axes.invert_yaxis()
        axes.set(xlabel=x_label)
        return _svg(figure, f"{x_label} by {', '.join(rows)}")


def stacked_bars(rows: Mapping[str, Mapping[str, float]], x_label: str, limit: tuple[float, str] | None = None) -> str:
    """A horizontal bar per row, divided into named parts (`kept` is green), and a labelled limit."""
    with _axes(_WIDTH, 0.9 + 0.32 * len(rows)) as (figure, axes):
        parts = list(dict.fromkeys(part for row in rows.values() for part in row))
        left = dict.fromkeys(rows, 0.0)
        colours = iter(PALETTE * (1 + len(parts) // len(PALETTE)))
        for part in parts:
            colour = KEPT if part == "kept" else next(colour for colour in colours if colour != KEPT)
            widths = [row.get(part, 0.0) for row in rows.values()]
            axes.barh(list(rows), widths, left=list(left.values()), label=part, color=colour, height=0.7)
            left = {name: left[name] + width for name, width in zip(rows, widths, strict=True)}
        axes.invert_yaxis()
        axes.set(xlabel=x_label)
        axes.grid(axis="y", visible=False)
        if limit:
            _mark(axes, *limit)
        axes.legend(**_LEGEND)
        return _svg(figure, f"{x_label} by {', '.join(rows)}")


@contextlib.contextmanager
def _axes(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure of this size in inches with one pair of axes, in our style."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots()


def _draw_lines(axes: Axes, series: Series, bands: Sequence[Band]) -> None:
    for position, (start, end, _) in enumerate(bands):
        axes.axvspan(start, end, color="#f3f5f8" if position % 2 else "#fbf6ec", zorder=0)
    for position, (name, (x, y)) in enumerate(series.items()):
        # Another stroke once all colours are used.
        stroke = ("-", "--", ":")[position // len(PALETTE) % 3]
        axes.plot(x, y, stroke, label=name, marker="o" if len(x) < 20 else None, **_line(position))


def _line(position: int) -> dict[str, Any]:
    return {"color": PALETTE[position % len(PALETTE)], "markersize": 3.5, "lw": 1.6}


def _mark(axes: Axes, x: float, name: str) -> None:
    axes.axvline(x, color="#B2182B", lw=1.2, ls="--")
    axes.text(x, 1.02, name, transform=axes.get_xaxis_transform(), ha="center", color="#B2182B", fontsize=9)


def _number(value: float, _: object = None) -> str:
    """0.05, 512, 4K, 1.5M, 2B."""
    scales = (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3))
    suffix, scale = next(((suffix, scale) for suffix, scale in scales if abs(value) >= scale), ("", 1.0))
    return f"{value / scale:.4g}{suffix}"


def _name_bands(axes: Axes, bands: Sequence[Band]) -> None:
    for start, end, name in bands:
        axes.text((start + end) / 2, 1.02, name, transform=axes.get_xaxis_transform(), ha="center", color="#555555")


def _svg(figure: Figure, what: str) -> str:
    """The figure as SVG; `what` it shows is read to those who cannot see it."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return f'<svg role="img" aria-label="{html.escape(what)}"' + text[text.index("<svg") + len("<svg") :]
