"""What is in a log, at a glance: a summary, a table of several and a figure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from rich import box
from rich.table import Table
from rich.text import Text

from celltwin.data.importers import LEAST_CELL_VOLTAGE, Examined, load_soc_table
from celltwin.data.record import SECONDS_PER_HOUR, PackRecord, Record
from celltwin.data.sign import SignVerdict, check_sign

MOST_UNUSED = 12  # columns that are named
MAX_POINTS = 20_000  # a browser stays quick below

Range = tuple[float, float]  # lowest and highest; NaN where nothing was measured


@dataclass(frozen=True)
class Summary:
    """Facts of one log. Charge is integrated over the steps that are no gap, so it misses what gaps hide."""

    name: str
    source: str
    samples: int
    duration_second: float
    dt_second: tuple[float, float, float]  # median, shortest, longest
    voltage_volt: Range
    current_ampere: Range
    temperature_degC: Range
    ambient_degC: float
    charged_ah: float
    discharged_ah: float
    integrated_ah: float  # charged - discharged
    logged_ah: float  # net change of the tester's counter; NaN without one
    gaps: int
    gap_second: float  # altogether
    groups: int  # cell groups of a string; 0 for a cell
    group_spread_volt: float  # largest difference between groups at one time; NaN for a cell
    sign: SignVerdict
    notes: tuple[str, ...]


@dataclass(frozen=True)
class OcvSummary:
    """Facts of one table of open-circuit voltage, which is no log."""

    name: str
    source: str
    points: int
    soc: Range
    voltage_volt: Range


def summarise(record: Record) -> Summary:
    """Summary of a record, with the verdict on the sign of its current."""
    step = record.dt[1:]
    counts = np.ones(len(record), bool)
    counts[record.gaps] = False
    ah = np.where(counts, record.current * record.dt, 0.0) / SECONDS_PER_HOUR
    counter = record.net_capacity
    groups = record.group_voltage if isinstance(record, PackRecord) else np.empty((len(record), 0))
    return Summary(
        name=record.label,
        source=record.source,
        samples=len(record),
        duration_second=float(record.time[-1] - record.time[0]),
        dt_second=(float(np.median(step)), float(step.min()), float(step.max())),
        voltage_volt=_range(record.voltage),
        current_ampere=_range(record.current),
        temperature_degC=_range(record.temperature),
        ambient_degC=record.ambient_degC,
        charged_ah=float(ah[ah > 0].sum()),
        discharged_ah=float(-ah[ah < 0].sum()),
        integrated_ah=float(ah.sum()),
        logged_ah=float("nan") if counter is None else float(counter[-1] - counter[0]),
        gaps=len(record.gaps),
        gap_second=float(record.dt[record.gaps].sum()),
        groups=groups.shape[1],
        group_spread_volt=_range(np.ptp(groups, axis=1))[1] if groups.size else float("nan"),
        sign=check_sign(record),
        notes=record.notes,
    )


def columns_read(examined: Examined) -> str:
    """Which column was taken for what, and which were left, in words."""
    taken = ", ".join(f"{role} '{column.header}'" for role, column in examined.columns)
    roles = {role for role, _ in examined.columns}
    lacking = "" if roles & {"temperature", "sensor"} else "; no temperature"
    if not examined.unused:
        return taken + lacking
    left = ", ".join(f"'{header}'" for header in examined.unused[:MOST_UNUSED])
    more = len(examined.unused) - MOST_UNUSED
    hint = " (--column temperature=HEADER takes one of them)" if lacking else ""
    return f"{taken}{lacking}; not read: {left}{f' and {more} more' if more > 0 else ''}{hint}"


def summarise_ocv(path: str | Path) -> OcvSummary:
    """Summary of a table of open-circuit voltage or hysteresis over SOC; CelltwinError if the file is none."""
    soc, voltage = load_soc_table(path)
    return OcvSummary(Path(path).stem, str(path), len(soc), _range(soc), _range(voltage))


def _range(values: np.ndarray) -> Range:
    known = values[np.isfinite(values)]
    return (float(known.min()), float(known.max())) if len(known) else (float("nan"), float("nan"))


# --- table --------------------------------------------------------------------------------------------


def table(summaries: Iterable[Summary | OcvSummary]) -> Table:
    """One row a file, readable in 100 columns: lowest above highest, net above logged Ah, notes below."""
    view = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), caption_justify="left")
    view.add_column("log", overflow="fold")
    for header in (
        "samples",
        "time",
        "step/s",
        "V",
        "A",
        "degC",
        "+Ah\n-Ah",
        "net Ah\nlogged",
        "gaps",
        "sign",
    ):
        view.add_column(header, justify="right", no_wrap=True)
    notes: list[str] = []
    for summary in summaries:
        view.add_row(*(_ocv_cells(summary) if isinstance(summary, OcvSummary) else _cells(summary)))
        notes += _notes(summary)
    # Names and notes may hold brackets, which are no markup.
    view.caption = Text("\n".join(notes)) if notes else None
    return view


def _notes(summary: Summary | OcvSummary) -> list[str]:
    if isinstance(summary, OcvSummary):
        kind = "an OCV" if summary.voltage_volt[1] >= LEAST_CELL_VOLTAGE else "a hysteresis"
        return [f"{summary.name}: {kind} table, not a log; SOC {summary.soc[0]:.2f} to {summary.soc[1]:.2f}"]
    notes = [*summary.notes]
    if summary.sign.verdict == "contradiction":
        notes.append(f"positive current does not charge: {summary.sign.because}")
    if summary.groups:
        notes.append(f"string of {summary.groups} groups, up to {summary.group_spread_volt:.3f} V apart")
    if summary.gaps:
        notes.append(f"gaps last {_duration(summary.gap_second)} together")
    return [f"{summary.name}: {note}" for note in notes]


def _cells(summary: Summary) -> list[Text]:
    largest = max(map(abs, summary.current_ampere))
    cells = [
        summary.name,
        f"{summary.samples:,}",
        _duration(summary.duration_second),
        f"{summary.dt_second[0]:.3g}",
        _span(summary.voltage_volt, 2),
        _span(summary.current_ampere, 1 if largest >= 10 else 2 if largest >= 0.1 else 4),
        _span(summary.temperature_degC, 1),
        f"{summary.charged_ah:.3g}\n{summary.discharged_ah:.3g}",
        f"{summary.integrated_ah:.2f}\n{_number(summary.logged_ah, 2)}",
        str(summary.gaps),
        {"charge": "ok", "undecided": "?", "contradiction": "WRONG"}[summary.sign.verdict],
    ]
    return [Text(cell) for cell in cells]


def _ocv_cells(summary: OcvSummary) -> list[Text]:
    cells = [summary.name, f"{summary.points:,}", "table", "-", _span(summary.voltage_volt, 2), *["-"] * 6]
    return [Text(cell) for cell in cells]


def _number(value: float, digits: int) -> str:
    return "-" if np.isnan(value) else f"{value:.{digits}f}"


def _span(span: Range, digits: int) -> str:
    return "-" if np.isnan(span[0]) else f"{span[0]:.{digits}f}\n{span[1]:.{digits}f}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60.0)
    return f"{seconds:.0f} s" if seconds < 120 else f"{minutes // 60}:{minutes % 60:02d} h"


# --- figure -------------------------------------------------------------------------------------------


def figure(record: Record, points: int = MAX_POINTS) -> go.Figure:
    """Voltage, current and temperature over time, one below the other, with gaps shaded.

    Each line has at most `points`: of a long log the lowest and highest sample of each stretch stay.
    """
    panels: list[tuple[str, list[tuple[str, np.ndarray]]]] = [
        ("voltage / V", [("voltage", record.voltage)]),
        ("current / A (+ charge)", [("current", record.current)]),
    ]
    if isinstance(record, PackRecord):
        groups = [(f"group {i}", column) for i, column in enumerate(record.group_voltage.T, 1)]
        panels.insert(1, ("group voltage / V", groups))
    if np.isfinite(record.temperature).any():
        panels.append(("temperature / degC", [("temperature", record.temperature)]))
    view = make_subplots(rows=len(panels), cols=1, shared_xaxes=True, vertical_spacing=0.03)
    hours = record.time / SECONDS_PER_HOUR
    for row, (title, lines) in enumerate(panels, 1):
        for name, column in lines:
            at = extremes(column, max(4, points - len(record.gaps)))
            # A NaN parts the line, so that it does not bridge a gap.
            breaks = np.searchsorted(at, record.gaps)
            x, y = np.insert(hours[at], breaks, np.nan), np.insert(column[at], breaks, np.nan)
            view.add_trace(go.Scatter(x=x, y=y, name=name, mode="lines", line_width=1), row=row, col=1)
        view.update_yaxes(title_text=title, row=row, col=1)
    view.update_layout(shapes=[_shade(float(hours[gap - 1]), float(hours[gap])) for gap in record.gaps])
    view.update_xaxes(title_text="time / h", row=len(panels), col=1)
    view.update_layout(title=record.label, height=250 * len(panels), showlegend=isinstance(record, PackRecord))
    return view


def _shade(start: float, stop: float) -> dict[str, object]:
    grey = {"fillcolor": "grey", "opacity": 0.25, "line_width": 0, "layer": "below"}
    return {"type": "rect", "x0": start, "x1": stop, "xref": "x", "y0": 0, "y1": 1, "yref": "paper", **grey}


def extremes(values: np.ndarray, limit: int) -> np.ndarray:
    """Increasing indices, at most `limit`, that keep both ends and the extremes of each stretch."""
    n = len(values)
    if n <= limit:
        return np.arange(n)
    width = -(-n // ((limit - 2) // 2))
    padded = np.full(-(-n // width) * width, np.nan)
    padded[:n] = values
    stretches = padded.reshape(-1, width)
    first = np.arange(len(stretches)) * width
    low = first + np.argmin(np.where(np.isnan(stretches), np.inf, stretches), axis=1)
    high = first + np.argmax(np.where(np.isnan(stretches), -np.inf, stretches), axis=1)
    return np.unique(np.concatenate([[0], low, high, [n - 1]]))
