"""One look for every picture: a colour, a marker and a line style per method, the same in every figure.

Colours are Okabe and Ito's and greys, distinct for every common kind of colour vision; markers and line styles tell
the methods apart without any colour.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

COLUMN, PAGE = 3.5, 7.2
"""Widths in inches: one column of a paper, and both."""

GREY, GRID = "#555555", "#DDDDDD"


@dataclasses.dataclass(frozen=True)
class Look:
    """How a series is drawn."""

    color: str
    marker: str
    line: str | tuple[int, tuple[int, ...]] = "-"
    hollow: bool = False


_LOOKS = {
    "NaiveUB": Look("#999999", "x", ":"),
    "IBP": Look("#56B4E9", "v", "--"),
    "RecurJac": Look("#E69F00", "^", "-."),
    "LipLP": Look("#CC79A7", "d", (0, (1, 1))),
    "LipSDP": Look("#8A6D00", "h", (0, (3, 1, 1, 1))),
    "LipMIP": Look("#000000", "s", "-"),
    "LipBaB": Look("#000000", "D", "--", hollow=True),
    "paper": Look("#D55E00", "o", "-"),
    "paper, BaB": Look("#D55E00", "o", "--", hollow=True),
    "sdp": Look("#0072B2", "P", "-"),
    "bab": Look("#0072B2", "X", "--"),
    "attack": Look("#009E73", "<", ":"),
}
_NAMES: dict[str, str] = {
    "naive": "NaiveUB", "ibp": "IBP", "recurjac": "RecurJac", "lp": "LipLP", "lipsdp": "LipSDP", "milp": "LipMIP",
    "lipbab": "LipBaB", "lbp": "paper",
}  # fmt: skip
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999", "#8A6D00")
_MARKS: tuple[tuple[str, str | tuple[int, tuple[int, ...]]], ...] = (
    ("o", "-"), ("s", "--"), ("^", "-."), ("D", ":"), ("v", (0, (3, 1, 1, 1))), ("P", (0, (1, 1))), ("X", (0, (5, 1))),
    ("*", "-"), ("h", "--"),
)  # fmt: skip


def looks(series: Sequence[str]) -> dict[str, Look]:
    """A look per series: the method's own where the name is known, else the next marker and line of a cycle.

    A variant, called ``method, what is varied`` or ``method(option=value)``, keeps the method's colour. Others take
    colours and markers that no method beside them has, while there are any.
    """
    own = [_LOOKS[paper_name(name)] for name in series if paper_name(name) in _LOOKS]
    colors = [c for c in _COLORS if c not in {look.color for look in own}] or _COLORS
    marks, chosen, others = _marks(own), {}, 0
    for name in series:
        look = _LOOKS.get(paper_name(name))
        if look is None:
            base = _LOOKS.get(paper_name(re.split("[,:(]", name)[0]))
            color = base.color if base else colors[others % len(colors)]
            look, others = Look(color, *marks[others % len(marks)]), others + 1
        chosen[name] = look
    return chosen


def _marks(own: Sequence[Look]) -> list[tuple[str, str | tuple[int, tuple[int, ...]], bool]]:
    """Marker, line and whether it is hollow, of none of these: first with markers that they do not have."""
    count, taken = len(_MARKS), {(look.marker, look.line, look.hollow) for look in own}
    every = [
        (marker, _MARKS[(k + turn // 2) % count][1], turn % 2 == 1)
        for turn in range(2 * count)
        for k, (marker, _) in enumerate(_MARKS)
    ]
    used = {look.marker for look in own}
    fresh = [mark for mark in every[:count] if mark[0] not in used]
    return fresh + [mark for mark in every if mark not in taken and mark not in fresh]


def ordered(series: Sequence[str]) -> list[str]:
    """The paper's order first, then the order in which they come."""
    place: dict[str, int] = {name: k for k, name in enumerate(_LOOKS)}
    unique = list(dict.fromkeys(series))
    return sorted(unique, key=lambda name: (place.get(paper_name(name), len(place)), unique.index(name)))


def paper_name(name: str) -> str:
    """The name of a method in the study, which is the paper's where the paper has it."""
    return _NAMES.get(name, name)


_SETTINGS: dict[Any, Any] = {
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7,
    "legend.fontsize": 7, "legend.frameon": False, "lines.linewidth": 1.1, "lines.markersize": 4.5,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": GRID,
    "grid.linewidth": 0.5, "axes.axisbelow": True, "hatch.linewidth": 0.5, "axes.titlelocation": "left",
    "pdf.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": "lipcompare",
}  # fmt: skip


@contextlib.contextmanager
def style() -> Iterator[None]:
    """matplotlib's settings for every figure made inside; also a decorator of what makes one."""
    with mpl.rc_context(_SETTINGS):
        yield


class Picture(Figure):
    """A figure that needs no display, that a notebook shows by itself, and that is drawn with the settings under which
    it was made: matplotlib makes ticks as it draws."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._made_with = {name: mpl.rcParams[name] for name in _SETTINGS}

    def draw(self, renderer: Any) -> None:
        with mpl.rc_context(self._made_with):
            super().draw(renderer)

    def _repr_png_(self) -> bytes:
        out = io.BytesIO()
        self.savefig(out, format="png", dpi=110)
        return out.getvalue()


def new_figure(width: float, height: float, *, between: float = 0.02) -> Figure:
    """An empty figure that needs no display; ``between`` is the space between panels, as a share of a panel's size."""
    figure = Picture(figsize=(width, height), layout=ConstrainedLayoutEngine(wspace=between, hspace=between))
    FigureCanvasAgg(figure)
    return figure


def entitle(figure: Figure, message: str, setup: str = "") -> None:
    """What a figure says above it, and what it shows below."""
    figure.suptitle(literal(message), x=0.01, ha="left", fontsize=9, fontweight="bold", wrap=True)
    if setup:
        figure.supxlabel(literal(setup), x=0.01, ha="left", fontsize=7, color=GREY, wrap=True)


def line_style(look: Look) -> dict[str, Any]:
    """Keyword arguments of ``Axes.plot``."""
    face = "white" if look.hollow else look.color
    return {"color": look.color, "linestyle": look.line, "marker": look.marker, "markerfacecolor": face}


def literal(text: str) -> str:
    """A name as matplotlib is to draw it: its dollar signs begin no formula, its control characters become "?"."""
    return "".join("?" if unicodedata.category(c) == "Cc" else c for c in text).replace("$", r"\$")


def handle(name: str, look: Look, *, line: bool = True) -> Line2D:
    """The entry of a legend."""
    drawn = line_style(look)
    if not line:
        drawn["linestyle"] = "none"
    return Line2D([], [], label=literal(name), **drawn)


def plain_log(axes: Axes, which: str) -> None:
    """A logarithmic axis, ``x`` or ``y``, with plain numbers; between decades too where there are few of them."""
    if which == "x":
        axes.set_xscale("log")
    else:
        axes.set_yscale("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    decades = high / low if low > 0 else float("inf")
    subs = tuple(range(1, 10)) if decades < 4 else (1, 1.5, 2, 3, 4, 5, 7) if decades < 12 else (1, 2, 5)
    subs = subs if decades < 200 else (1,)
    narrow = decades < 3  # multiples of powers of ten are too far apart there
    axis.set_major_locator(MaxNLocator(5) if narrow else LogLocator(subs=subs, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
