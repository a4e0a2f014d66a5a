"""One look for every figure: palette, axes, and pictures that follow the page's light or dark theme."""

import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Colour-blind safe (after Okabe and Ito). Before adaptation is grey, after adaptation is coloured.
# `page.css` holds the same names for both themes; `to_svg` puts the names in the place of the colours.
INK = "#22262b"
MUTED = "#69717d"
GRID = "#e4e7eb"
BEFORE = "#8d959f"
RETURN = "#0072b2"
COST = "#e08200"
WITHIN = "#00876c"
LIMIT = "#16191d"
UNSAFE = "#c1121f"
THEMED = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    BEFORE: "before",
    RETURN: "return",
    COST: "cost",
    WITHIN: "within",
    LIMIT: "limit",
    UNSAFE: "unsafe",
}
RUNS = ("#44aa99", "#aa4499", "#999933", "#cc6677", "#6a8f3c", "#8c6bb1", "#c9a227", "#5c9ead")

PANEL = (5.2, 3.3)  # inches; small, so that the text stays readable at phone width
FONT_SIZE = 10


@dataclass(frozen=True)
class Panel:
    """A figure, what it shows and what to look for in it. `caption` is plain text."""

    figure: Figure
    title: str
    caption: str


@contextmanager
def own_settings() -> Iterator[None]:
    """Matplotlib as shipped: a user's `matplotlibrc` (dark styles, TeX) would not suit the page."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


def run_colour(index: int, runs: int, alone: str) -> str:
    """The colour of a run: the quantity's own when it is alone, else one per run."""
    return alone if runs == 1 else RUNS[index % len(RUNS)]


def plain(text: str) -> str:
    """Text that matplotlib shows as it is: it would read what stands between dollars as a formula."""
    return text.replace("$", r"\$")


def new_panel() -> tuple[Figure, Axes]:
    """A figure with one styled pair of axes; no pyplot, so no global state."""
    figure = Figure(figsize=PANEL, layout="constrained")
    axes = figure.subplots()
    style_axes(axes)
    return figure, axes


def style_axes(axes: Axes) -> None:
    """Quiet axes: two spines, a light grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelcolor=INK, labelsize=FONT_SIZE - 1)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def label_axes(axes: Axes, x: str, y: str) -> None:
    """Axis labels, each with its unit."""
    axes.set_xlabel(x, color=INK, fontsize=FONT_SIZE)
    axes.set_ylabel(y, color=INK, fontsize=FONT_SIZE)


def add_legend(axes: Axes) -> None:
    """A legend above the axes, where it hides no data; none where nothing is labelled."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
            ncols=3,
            frameon=False,
            fontsize=FONT_SIZE - 1,
            labelcolor=INK,
            borderaxespad=0.2,
            handlelength=1.6,
            columnspacing=1.2,
        )


def note(axes: Axes, text: str) -> None:
    """A small remark in the upper right corner."""
    axes.text(0.99, 0.98, text, transform=axes.transAxes, ha="right", va="top", color=MUTED, fontsize=FONT_SIZE - 2)


def to_svg(panel: Panel, name: str) -> str:
    """The panel as an inline SVG element. `name` keeps its ids apart from other figures' ids.

    Text stays text (in the page's font, far smaller than outlines); colours become the page's variables.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        panel.figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    view_box = re.search(r'viewBox="[^"]*"', svg)
    opening = f'<svg {view_box[0] if view_box else ""} role="img" aria-label="{html.escape(panel.title)}">'
    svg = opening + svg[svg.index(">") + 1 :]
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'href="#{name}-')
    # Releases of matplotlib differ in whether they write one `font` or its parts.
    svg = re.sub(r"(font-family: |font: [^;\"]*?px )[^;\"]*", r"\1var(--font)", svg)
    svg = re.sub("|".join(THEMED), lambda colour: f"var(--{THEMED[colour[0]]})", svg)
    return re.sub(r"\n\s*", "\n", svg).strip()
