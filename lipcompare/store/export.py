"""A store's rows as CSV or Parquet, for whatever reads them next."""

from __future__ import annotations

import importlib.util
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

from lipcompare.errors import InvalidInput, install
from lipcompare.store.database import Store
from lipcompare.store.schema import in_words

if TYPE_CHECKING:
    import pandas as pd

FORMATS = (".csv", ".parquet")


def export(store: Store, path: str | Path, *, study: str | None = None, trace: bool = False) -> int:
    """Write the rows of a study (or of all) to a file whose ending says the format; returns how many.

    Args:
        trace: a row per trace point instead of one per cell.

    Raises:
        InvalidInput: an ending that is not in ``FORMATS``, or Parquet without pyarrow.
        StoreError: the file cannot be written.
    """
    frame = store.trace(study) if trace else store.frame(study)
    write(frame, path)
    return len(frame)


def write(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a frame to a .csv or .parquet file; see :func:`export`."""
    check_format(path)
    path = Path(path)
    with in_words(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".csv":
            csv_safe(frame).to_csv(path, index=False)
        else:
            frame.to_parquet(path, index=False, engine="pyarrow")


def csv_safe(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with :func:`csv_cell` of every text in it; Parquet needs no such thing."""
    texts = {name: column.map(csv_cell) for name, column in frame.items() if column.dtype.kind not in "fiub"}
    return frame.assign(**{str(name): column for name, column in texts.items()})


def csv_cell(value: object) -> object:
    """A text that a spreadsheet shows and does not compute: names may come from whoever sent a model.

    What begins like a formula gets an apostrophe before it, unless it is a number or a single sign; control characters
    become question marks. Anything but a text stays as it is.
    """
    if not isinstance(value, str):
        return value
    text = "".join("?" if unicodedata.category(c) == "Cc" else c for c in value)
    return f"'{text}" if text[:1] in tuple("=+-@") and len(text) > 1 and not _is_number(text) else text


def csv_text(value: object) -> object:
    """What :func:`csv_cell` was given, but for control characters; of a text that it left alone, the text."""
    if not isinstance(value, str) or not value.startswith("'"):
        return value
    return value[1:] if csv_cell(value[1:]) == value else value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def check_format(path: str | Path) -> None:
    """Raises InvalidInput if a file's ending is not in ``FORMATS``, or says Parquet without pyarrow."""
    suffix = Path(path).suffix
    if suffix not in FORMATS:
        raise InvalidInput(f"Cannot export to {path}: the file's ending must be .csv or .parquet.")
    if suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise InvalidInput(f"Parquet needs pyarrow: {install('experiments')}, or export to a .csv file.")
