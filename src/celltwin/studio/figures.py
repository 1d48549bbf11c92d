"""The figures of the page: thinned so that a browser stays quick, transparent so that they suit light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from celltwin.data import inspection
from celltwin.data.record import SECONDS_PER_HOUR, Record
from celltwin.evaluation.protocol import Row
from celltwin.evaluation.report.figures import MILLI, SECONDS_PER_MINUTE, outside, thin
from celltwin.interface import POINT
from celltwin.learning.training import Progress
from celltwin.studio.pack import Cells
from celltwin.studio.session import Curves, Tables
from celltwin.studio.whatif import Answer

POINTS = 4000  # most of one curve
LEAST_IN_CELL = 5  # samples behind one cell of the residual map
MAP_CELLS = 25  # along each axis of it
# Colours that can be told apart on white and on near-black, also by those who see no red or green.
MEASURED, SAID, ERROR, CURRENT, WARM = "#8a94a6", "#2f7ff0", "#e0643c", "#8f6fd6", "#d9862b"
SHADE = {"fillcolor": "#e0a83c", "opacity": 0.16, "line_width": 0, "layer": "below"}
CONFIG: dict[str, Any] = {
    "displaylogo": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "sendDataToCloud"],
}
INK = {True: ("#cbd5e1", "rgba(148,163,184,0.22)", "#1e293b"), False: ("#334155", "rgba(100,116,139,0.20)", "#ffffff")}


def themed(figure: go.Figure, dark: bool) -> go.Figure:
    """The figure in the colours of a dark or a light page; the same object."""
    ink, line, card = INK[dark]
    axis = {"gridcolor": line, "zerolinecolor": line, "linecolor": line, "automargin": True, "title_font_size": 13}
    figure.update_xaxes(axis).update_yaxes(axis)
    figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": ink, "size": 13, "family": "Roboto, system-ui, sans-serif"},
        hoverlabel={"bgcolor": card, "bordercolor": line, "font": {"color": ink}},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": ink, "activecolor": SAID},
    )
    return figure


def _bar(text: str, **more: Any) -> dict[str, Any]:
    """The scale of a map."""
    return {"title": {"text": text, "font": {"size": 13}}, "thickness": 14, **more}


def _stacked(titles: Sequence[str], heights: Sequence[float], x_title: str) -> go.Figure:
    """Panels one below the other over one axis of time."""
    rows = len(titles)
    view = make_subplots(
        rows=rows, cols=1, shared_xaxes=True, vertical_spacing=0.04, row_heights=[h / sum(heights) for h in heights]
    )
    for row, title in enumerate(titles, 1):
        view.update_yaxes(title_text=title, title_standoff=8, row=row, col=1)
    view.update_xaxes(title_text=x_title, row=rows, col=1)
    view.update_layout(
        height=86 + 112 * sum(heights),
        margin={"l": 70, "r": 20, "t": 36, "b": 50},
        legend={"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom"},
        hovermode="x unified",
    )
    return view


def _line(view: go.Figure, row: int, x: np.ndarray, y: np.ndarray, name: str, colour: str, **more: Any) -> None:
    at = thin(y, POINTS)
    legend = more.pop("legend", True)
    view.add_trace(
        go.Scatter(
            x=x[at].astype(np.float32),
            y=y[at].astype(np.float32),
            name=name,
            mode="lines",
            line={"color": colour, "width": 1.4, **more},
            showlegend=legend,
        ),
        row=row,
        col=1,
    )


LONG = 6 * SECONDS_PER_HOUR  # s, from which hours are easier to read than minutes


def _clock(time: np.ndarray) -> tuple[np.ndarray, str]:
    """Time since the first sample, in minutes, or hours of a long record, and what its axis is called."""
    passed = time - time[0]
    if passed[-1] > LONG:
        return passed / SECONDS_PER_HOUR, "time / h"
    return passed / SECONDS_PER_MINUTE, "time / min"


def _shaded(view: go.Figure, x: np.ndarray, inside: np.ndarray) -> None:
    """Stretches of the axis of time outside the training domain, shaded over all panels."""
    shapes = [
        {"type": "rect", "x0": start, "x1": end, "xref": "x", "y0": 0, "y1": 1, "yref": "paper", **SHADE}
        for start, end in outside(SECONDS_PER_MINUTE * x, np.asarray(inside, float))
    ]
    if shapes:
        view.update_layout(shapes=shapes)
        name = "outside the training domain"
        marker = {"size": 12, "symbol": "square", "color": SHADE["fillcolor"], "opacity": 0.5}
        view.add_trace(go.Scatter(x=[None], y=[None], mode="markers", name=name, marker=marker), row=1, col=1)


# --- logs ------------------------------------------------------------------------------------------------------------


def log(record: Record) -> go.Figure:
    """Voltage, current and temperature of a log."""
    view = inspection.figure(record, POINTS)
    traces: Any = view.data
    for trace, colour in zip(traces, (SAID, CURRENT, WARM), strict=False) if len(traces) <= 3 else ():
        trace.line.color = colour
    view.update_layout(
        title=None,
        height=150 * len({trace.yaxis for trace in traces}) + 70,
        margin={"l": 70, "r": 20, "t": 36 if len(traces) > 3 else 12, "b": 50},
    )
    view.update_layout(legend={"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom"})
    return view


# --- a twin and a record ---------------------------------------------------------------------------------------------


def compared(row: Row) -> go.Figure:
    """What was measured and what the twin said over time, the error, and the current."""
    return _voltages(row) if hasattr(row["output"], "voltage") else _charges(row)


def _voltages(row: Row) -> go.Figure:
    record, said = row["record"], np.asarray(row["output"].voltage, float)
    x, axis = _clock(record.time)
    view = _stacked(("voltage / V", "error / mV", "current / A", "°C"), (2.0, 1.1, 0.9, 0.7), axis)
    _line(view, 1, x, record.voltage, "measured", MEASURED, width=2.2)
    _line(view, 1, x, said, "simulated", SAID)
    _line(view, 2, x, MILLI * (said - record.voltage), "error", ERROR, legend=False)
    _line(view, 3, x, record.current, "current", CURRENT, legend=False)
    _line(view, 4, x, record.filled_temperature, "temperature", WARM, legend=False)
    _shaded(view, x, row["in_domain"])
    return view


def _charges(row: Row) -> go.Figure:
    record, output = row["record"], row["output"]
    soc, std = POINT * np.asarray(output.soc, float), POINT * np.asarray(output.std, float)
    error = soc - POINT * record.soc if "mae" in row else None
    x, axis = _clock(record.time)
    titles = ("SOC / %", "error / points", "voltage / V", "current / A") if error is not None else ("SOC / %", "V", "A")
    view = _stacked(titles, (2.0, 1.1, 0.9, 0.9) if error is not None else (2.0, 0.9, 0.9), axis)
    _band(view, 1, x, soc, std)
    if error is not None:
        _line(view, 1, x, POINT * record.soc, "counted", MEASURED, width=2.2)
    _line(view, 1, x, soc, "estimated", SAID)
    if error is not None:
        _band(view, 2, x, np.zeros_like(error), std, legend=False)
        _line(view, 2, x, error, "error", ERROR, legend=False)
    _line(view, len(titles) - 1, x, record.voltage, "voltage", MEASURED, legend=False)
    _line(view, len(titles), x, record.current, "current", CURRENT, legend=False)
    view.update_yaxes(range=[-3, 103], row=1, col=1)
    if error is not None:
        settled = np.abs(error)[record.time - record.time[0] >= 100.0]
        most = max(2.0, 1.6 * float(settled.max(initial=0.0)))
        view.update_yaxes(range=[-most, most], row=2, col=1)
    _shaded(view, x, row["in_domain"])
    return view


def _band(view: go.Figure, row: int, x: np.ndarray, centre: np.ndarray, std: np.ndarray, legend: bool = True) -> None:
    """Two standard deviations around a line."""
    at = np.union1d(thin(centre, POINTS // 4), thin(std, POINTS // 4))
    low, high = (centre[at] + sign * 2.0 * std[at] for sign in (-1.0, 1.0))
    view.add_trace(
        go.Scatter(
            x=np.r_[x[at], x[at][::-1]],
            y=np.r_[low, high[::-1]],
            fill="toself",
            fillcolor="rgba(47,127,240,0.20)",
            line_width=0,
            mode="lines",
            name="± 2 std",
            hoverinfo="skip",
            showlegend=legend,
        ),
        row=row,
        col=1,
    )


def residual_map(rows: Sequence[Row]) -> go.Figure:
    """Root mean square error over SOC and temperature, and over SOC and current."""
    voltage = hasattr(rows[0]["output"], "voltage")
    unit = "mV" if voltage else "points"
    soc, degrees, current, error = (np.concatenate(x) for x in zip(*map(_errors, rows), strict=True))
    view = make_subplots(rows=1, cols=2, horizontal_spacing=0.09)
    maps = [_map(soc, x, error) for x in (degrees, current)]
    most = max((float(np.nanmax(z)) for _, _, z in maps if np.isfinite(z).any()), default=1.0)
    for column, ((x, y, z), title) in enumerate(zip(maps, ("temperature / °C", "current / A"), strict=True), 1):
        view.add_trace(
            go.Heatmap(
                x=x,
                y=y,
                z=z,
                coloraxis="coloraxis",
                hovertemplate=f"SOC %{{x:.0f}} %<br>{title} %{{y:.1f}}<br>%{{z:.2f}} {unit}<extra></extra>",
            ),
            row=1,
            col=column,
        )
        view.update_xaxes(title_text="SOC / %", row=1, col=column)
        view.update_yaxes(title_text=title, row=1, col=column)
    bar = _bar(f"RMS error<br>/ {unit}")
    view.update_layout(
        height=380,
        margin={"l": 60, "r": 20, "t": 24, "b": 50},
        coloraxis={"colorscale": "Viridis", "cmin": 0.0, "cmax": most, "colorbar": bar},
    )
    return view


def _errors(row: Row) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """SOC in %, temperature, current and error of the samples whose truth is known."""
    record, output = row["record"], row["output"]
    soc = POINT * record.soc
    if hasattr(output, "voltage"):
        error = MILLI * (np.asarray(output.voltage, float) - record.voltage)
    else:
        error = POINT * np.asarray(output.soc, float) - soc
    known = np.isfinite(error)
    return soc[known], record.filled_temperature[known], record.current[known], error[known]


def _map(x: np.ndarray, y: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres and root mean square of `error` over bins of x and y; NaN where too few samples fall."""
    edges = [_edges(values) for values in (x, y)]
    counts = np.histogram2d(y, x, bins=edges[::-1])[0]
    squares = np.histogram2d(y, x, bins=edges[::-1], weights=error**2)[0]
    z = np.sqrt(np.where(counts >= LEAST_IN_CELL, squares, np.nan) / np.maximum(counts, 1))
    return (edges[0][1:] + edges[0][:-1]) / 2, (edges[1][1:] + edges[1][:-1]) / 2, z


def _edges(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, MAP_CELLS + 1)


# --- what a model holds ----------------------------------------------------------------------------------------------


def curves(held: Curves) -> go.Figure:
    """Open-circuit voltage and resistances over SOC, one line a temperature, cold blue and warm red."""
    titles = ("open-circuit voltage / V", "resistance after 1 s / mΩ", "resistance after 60 s / mΩ")
    view = make_subplots(rows=1, cols=3, horizontal_spacing=0.07)
    colours = sample_colorscale("Bluered", list(np.linspace(0.0, 1.0, max(len(held.temperature), 2))))
    for column, (title, table, scale) in enumerate(
        zip(titles, (held.ocv, held.at_once, held.later), (1.0, MILLI, MILLI), strict=True), 1
    ):
        for degrees, values, colour in zip(held.temperature, table, colours, strict=False):
            view.add_trace(
                go.Scatter(
                    x=100 * held.soc,
                    y=scale * values,
                    name=f"{degrees:g} °C",
                    legendgroup=f"{degrees:g}",
                    showlegend=column == 1,
                    mode="lines",
                    line={"color": colour, "width": 1.8},
                ),
                row=1,
                col=column,
            )
        view.update_xaxes(title_text="SOC / %", row=1, col=column)
        view.update_yaxes(title_text=title, row=1, col=column)
    view.update_layout(
        height=380,
        margin={"l": 60, "r": 20, "t": 36, "b": 50},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
    )
    return view


def circuit_table(held: Tables, name: str) -> go.Figure:
    """One of a circuit's tables over SOC and temperature."""
    what, _, unit = name.rpartition(" / ")
    view = go.Figure(
        go.Heatmap(
            x=100 * held.soc,
            y=[f"{t:g}" for t in held.temperature],
            z=held.values[name],
            colorscale="Viridis",
            colorbar=_bar(unit),
            hovertemplate=f"SOC %{{x:.0f}} %<br>%{{y}} °C<br>{what} %{{z:.4g}} {unit}<extra></extra>",
        )
    )
    view.update_layout(height=300, margin={"l": 60, "r": 20, "t": 24, "b": 50})
    view.update_xaxes(title_text="SOC / %").update_yaxes(title_text="temperature / °C", type="category")
    return view


def training(history: Mapping[str, Sequence[Progress]], unit: str) -> go.Figure:
    """Error of training and validation over rounds, one pair of lines a model, on a logarithmic scale."""
    view = go.Figure()
    colours = (SAID, ERROR, CURRENT, WARM)
    for (name, rounds), colour in zip(history.items(), colours, strict=False):
        x = [p.round for p in rounds]
        for what, dash, values in (
            ("training", "dot", [p.train for p in rounds]),
            ("validation", "solid", [p.validate for p in rounds]),
        ):
            if np.isfinite(values).any():
                line = {"color": colour, "dash": dash, "width": 2}
                view.add_trace(go.Scatter(x=x, y=values, name=f"{name}, {what}", line=line, mode="lines+markers"))
    view.update_xaxes(title_text="round", dtick=1 if max((len(r) for r in history.values()), default=0) < 20 else None)
    view.update_yaxes(title_text=f"error / {unit}", type="log")
    view.update_layout(
        height=320,
        margin={"l": 70, "r": 20, "t": 36, "b": 50},
        showlegend=True,
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
    )
    return view


# --- packs and what-ifs ----------------------------------------------------------------------------------------------


def pack(cells: Cells) -> go.Figure:
    """How far each cell's voltage is from the mean of all, as a map over time, and the voltages below it."""
    x, axis = _clock(cells.time)
    mean = np.nanmean(cells.voltage, axis=1)
    apart = MILLI * (cells.voltage - mean[:, None]).T
    view = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06, row_heights=[0.62, 0.38])
    most = max(float(np.nanquantile(np.abs(apart), 0.998)), 0.1)
    view.add_trace(
        go.Heatmap(
            x=x,
            y=np.arange(1, len(apart) + 1),
            z=apart.astype(np.float32),
            colorscale="RdBu_r",
            zmin=-most,
            zmax=most,
            colorbar=_bar("mV from<br>the mean", y=0.7, len=0.6),
            hovertemplate="%{x:.2f}<br>cell %{y}<br>%{z:.1f} mV<extra></extra>",
        ),
        row=1,
        col=1,
    )
    for name, values, colour in (
        ("highest", np.nanmax(cells.voltage, axis=1), ERROR),
        ("mean", mean, MEASURED),
        ("lowest", np.nanmin(cells.voltage, axis=1), SAID),
    ):
        _line(view, 2, x, values, name, colour)
    view.update_yaxes(title_text="cell or group", row=1, col=1)
    view.update_yaxes(title_text="voltage / V", row=2, col=1)
    view.update_xaxes(title_text=axis, row=2, col=1)
    view.update_layout(
        height=520,
        margin={"l": 70, "r": 20, "t": 36, "b": 50},
        legend={"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom"},
    )
    return view


def answered(answer: Answer) -> go.Figure:
    """Voltage, SOC, current and energy of a what-if."""
    record = answer.record
    x, axis = _clock(record.time)
    view = _stacked(("voltage / V", "SOC / %", "current / A", "energy / Wh"), (1.8, 1.0, 0.9, 0.9), axis)
    columns = (record.voltage, POINT * answer.soc, record.current, answer.energy_wh)
    names = ("voltage", "SOC", "current", "energy")
    for row, (name, values, colour) in enumerate(zip(names, columns, (SAID, "#1f9d78", CURRENT, WARM), strict=True), 1):
        _line(view, row, x, values, name, colour, legend=False)
    if record.cell is not None:
        for limit in record.cell.voltage_limits_volt:
            view.add_hline(limit, line={"color": MEASURED, "dash": "dot", "width": 1}, row=1, col=1)  # pyright: ignore[reportArgumentType]
    _shaded(view, x, answer.in_domain)
    return view
