"""What a page is made of: sections, each with a title, an opening sentence, charts and tables."""

from __future__ import annotations

from dataclasses import dataclass, field

from bitwright.analysis.report.chart import Figure


@dataclass(frozen=True)
class Column:
    """`minor` columns are left out on a phone."""

    title: str
    numeric: bool = False
    minor: bool = False


@dataclass(frozen=True)
class Cell:
    """`value` is what a table is sorted by; `good` marks what is as asked (True) or not (False)."""

    text: str
    value: float | str | None = None
    good: bool | None = None


@dataclass(frozen=True)
class Table:
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    kind: str = field(default="table", init=False)


@dataclass(frozen=True)
class Chart:
    """`wide` and `standing` are the same figure for a wide screen and for a phone; `table` says it in words."""

    name: str
    label: str
    wide: Figure
    standing: Figure | None = None
    height: int = 340
    standing_height: int = 340
    table: Table | None = None
    kind: str = field(default="chart", init=False)


@dataclass(frozen=True)
class Note:
    text: str
    kind: str = field(default="note", init=False)


@dataclass(frozen=True)
class Map:
    """Charts of which one is shown at a time, and the details of the tensor that is chosen in them."""

    charts: tuple[Chart, ...]
    outside: tuple[int, ...]  # positions of the tensors that lie in no block
    kind: str = field(default="map", init=False)


@dataclass(frozen=True)
class Browser:
    """A table that can be sorted and filtered; row i is tensor `order[i]`."""

    table: Table
    order: tuple[int, ...]
    kinds: tuple[str, ...]
    kind: str = field(default="browser", init=False)


Part = Table | Chart | Note | Map | Browser


@dataclass(frozen=True)
class Section:
    anchor: str
    title: str
    opening: str
    parts: tuple[Part, ...] = ()
