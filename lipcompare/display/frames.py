"""The data frame of a comparison, shown with its values in view."""

from __future__ import annotations

import html

import pandas as pd

from lipcompare.rounding import gap_text, lower_text, upper_text

_MOST_ROWS = 60


def two_digits(value: float) -> str:
    """A duration or a ratio, positive, to two digits, and whole where these are more."""
    return f"{value:.2g}" if value < 99.5 else f"{value:.0f}"


class Comparison(pd.DataFrame):  # type: ignore[misc]  # pandas has no types
    """What :func:`lipcompare.compare` returns: a data frame that is shown as a table of its main columns.

    Whatever is made of it (a selection, a group) is a plain frame.
    """

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"{_table(self).to_string(index=False)}{_more(self)}"

    def _repr_html_(self) -> str:
        return f"{_table(self).to_html(index=False, border=0)}<p>{html.escape(_more(self))}</p>"


def _table(frame: pd.DataFrame) -> pd.DataFrame:
    """The first rows as texts; a column whose entries are all equal says nothing and is left out."""
    rows = frame.head(_MOST_ROWS)
    shown: dict[str, object] = {name: rows[name] for name in ("problem", "example") if frame[name].nunique() > 1}
    if "functional" in frame:
        shown["functional"] = rows["functional"]
    shown["method"] = rows["method"]
    shown["at least"] = [
        "0" if upper == 0 else lower_text(lower) for lower, upper in zip(rows["lower"], rows["upper"], strict=True)
    ]
    shown["at most"] = rows["upper"].map(upper_text)
    shown["gap"] = rows["gap"].map(gap_text)
    shown["seconds"] = rows["seconds"].map(two_digits)
    shown["status"] = rows["status"].str.replace("_", " ")
    return pd.DataFrame(shown)


def _more(frame: pd.DataFrame) -> str:
    rest = "" if len(frame) <= _MOST_ROWS else f"... {len(frame) - _MOST_ROWS} more rows. "
    others = [c for c in ("proves", "message", "device", "dtype", "options") if c in frame]
    return f"\n{rest}Further columns: {', '.join(others)}."
