"""The page of an identification: the circuit's tables with their doubts, and how they meet the logs they come from."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from celltwin import __version__
from celltwin.evaluation.report.figures import MILLI
from celltwin.evaluation.report.identified import doubts, efficiency_text, figures, resistances, rmse_of
from celltwin.evaluation.report.metrics import number_text
from celltwin.evaluation.report.page import Section, document
from celltwin.learning.identification import Identification

MIDDLE = 0.5  # state of charge of the resistances that are named


def identification_page(found: Identification, logs: Sequence[str], origin: str) -> str:
    """The page as HTML. `logs` are the labels of what was read, `origin` says in words where they are from."""
    return document(f"{found.cell.name} circuit", _top(found, logs, origin), _sections(found), figures(found), PROGRAM)


PROGRAM = "identification.js"


def _top(found: Identification, logs: Sequence[str], origin: str) -> str:
    circuit, cell = found.circuit, found.cell
    limits = " – ".join(number_text(limit, 2) for limit in cell.voltage_limits_volt)
    facts = {
        "Cell": ", ".join(part for part in (cell.name, cell.chemistry) if part),
        "Voltage limits": f"{limits} V",
        "Logs": f"{len(logs)}: {', '.join(logs)}",
        "From": origin,
        "Took": f"{number_text(found.seconds, 0)} s",
        "celltwin": __version__,
    }
    listed = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    noise = circuit.meta.get("noise_mV")
    efficiency = found.coulombic_efficiency
    at = resistances(circuit, MIDDLE)
    warm = min(at, key=lambda r: abs(r.temperature - 25.0))
    tiles = [
        (
            "RMSE over the runs",
            f"{number_text(MILLI * found.rmse, 2)} mV",
            f"{len(found.runs)} runs, closed loop"
            + (f"; noise of the log {number_text(noise, 2)} mV" if isinstance(noise, float) else ""),
        ),
        ("Capacity", f"{number_text(circuit.capacity_ah, 3)} Ah", "the one denominator of state of charge"),
        (
            "RC pairs",
            f"{circuit.pairs}",
            f"τ about {_seconds(np.exp(np.log(circuit.tau).mean(axis=(1, 2))))}"
            + ("; and a charge transfer" if circuit.transfer_scale is not None else ""),
        ),
        (
            f"R0 at 50 %, {number_text(warm.temperature, 0)} °C",
            f"{number_text(MILLI * warm.r0, 2)} mΩ",
            f"± {number_text(MILLI * warm.r0_error, 2)} standard error; total {number_text(MILLI * warm.total, 1)} mΩ",
        ),
        (
            "Coulombic efficiency",
            "not known" if np.isnan(efficiency) else f"{number_text(100 * efficiency, 1)} %",
            efficiency_text(efficiency),
        ),
    ]
    shown = "".join(
        f'<div class="tile"><span>{name}</span><b>{escape(value)}</b><small>{escape(note)}</small></div>'
        for name, value, note in tiles
    )
    unclear, inferred = doubts(found)
    items = "".join(f'<li class="warn">{escape(text)}</li>' for text in unclear)
    items = items or '<li class="good">No parameter is unknown, and none trades off against another.</li>'
    rest = "".join(f'<li class="note">{escape(text)}</li>' for text in inferred)
    return (
        f'<header><p class="kicker">Identified circuit</p><h1>{escape(cell.name)}</h1><dl>{listed}</dl>'
        "<p>Open-circuit voltage, resistances and time constants over state of charge and temperature, fitted to "
        "whole runs simulated from their first sample. Current is positive on charge. The figures below are of the "
        "logs the circuit was fitted to: how it does on others, <code>celltwin evaluate</code> tells.</p></header>"
        f'<section id="verdict"><div class="tiles">{shown}</div><h2>What the data cannot tell</h2><ul>{items}</ul>'
        + (f"<h2>What was inferred</h2><ul>{rest}</ul>" if rest else "")
        + "</section>"
    )


def _sections(found: Identification) -> list[Section]:
    several = len(found.circuit.temperatures) > 1
    choose_temperature = (
        '<div class="controls"><label>Temperature <select id="ocv-temperature"></select></label>'
        '<span class="muted" id="gap"></span></div>'
    )
    choose_run = (
        '<div class="controls"><label>Run <select id="run"></select></label>'
        '<button id="previous" aria-label="previous run">‹</button><button id="next" aria-label="next run">›</button>'
        '<span class="muted">Drag to zoom, double-click to return.</span></div>'
    )
    return [
        (
            "open-circuit",
            "Open-circuit voltage",
            "Rests as points, slow branches as lines; beside them, how far each lies from the curve found, with "
            "two standard errors of it shaded. The branches hold half the hysteresis and their own overpotential.",
            f'{choose_temperature}<div class="panels"><div class="figure" id="ocv-figure"></div>'
            '<div class="figure" id="difference-figure"></div></div>',
        ),
        (
            "tables",
            "Resistances and time constants",
            "Over state of charge, one line a temperature, two standard errors shaded (cut where they exceed a factor "
            "of ten). A wide band says that these logs do not tell the value.",
            '<div class="legend" id="temperatures"></div><div class="panels" id="table-figures"></div>',
        ),
        (
            "arrhenius",
            "Over temperature",
            "R0 and total resistance over the inverse of temperature: a straight line is Arrhenius' law.",
            '<div class="figure" id="arrhenius-figure"></div>'
            if several
            else '<p class="muted">The logs are of one temperature.</p>',
        ),
        (
            "pulses",
            "Pulses and their fits",
            "",
            f'{choose_run}<div class="figure" id="run-figure"></div><h3>Close to some pulses</h3>'
            '<div class="panels small" id="zoom-figures"></div>' + _runs_table(found),
        ),
        (
            "pairs",
            "How many RC pairs",
            "The least number after which another is not worth having, by the Bayesian information criterion of the "
            "linear fit at the temperature nearest 25 °C that the refinement begins with; lower is better.",
            _candidates_table(found),
        ),
        ("resistance", "Resistance at 50 % state of charge", "", _resistance_table(found)),
    ]


def _seconds(values: Sequence[float] | np.ndarray) -> str:
    return ", ".join(f"{t:.3g} s" if t < 100 else f"{t:,.0f} s" for t in values)


def _table(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Rows are a class for the row's cells, the row's name first in the cells."""
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(cells[0])}</th>'
        + "".join(f'<td data-v class="{mark}">{escape(cell)}</td>' for cell in cells[1:])
        + "</tr>"
        for mark, cells in rows
    )
    return f'<div class="scroll"><table class="plain"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _candidates_table(found: Identification) -> str:
    least = min((c.criterion for c in found.candidates), default=0.0)
    rows = []
    for c in found.candidates:
        used = c.pairs == found.circuit.pairs
        name = f"{c.pairs}{' (chosen)' if used else ''}"
        tau = _seconds(c.time_constants)
        rows.append(("best" if used else "", (name, f"{MILLI * c.rmse:.2f}", f"{c.criterion - least:+.0f}", tau)))
    return _table(("Pairs", "RMSE mV", "Criterion over the least", "Time constants"), rows)


def _resistance_table(found: Identification) -> str:
    rows = [
        (
            "",
            (
                f"{r.temperature:.3g} °C".replace("-", "−"),
                f"{MILLI * r.r0:.2f} ± {MILLI * r.r0_error:.2f}",
                f"{MILLI * r.total:.2f} ± {MILLI * r.total_error:.2f}",
            ),
        )
        for r in resistances(found.circuit, MIDDLE)
    ]
    return _table(("Temperature", "R0 mΩ", "Total mΩ"), rows)


def _runs_table(found: Identification) -> str:
    rows = [
        (
            "",
            (
                run.label,
                f"{100 * run.soc[0]:.0f} to {100 * run.soc[-1]:.0f} %",
                f"{(run.time[-1] - run.time[0]) / 3600:.1f}",
                f"{len(run):,}",
                f"{MILLI * rmse_of(run, simulated):.2f}",
            ),
        )
        for run, simulated in zip(found.runs, found.simulated, strict=True)
    ]
    return _table(("Run", "State of charge", "Hours", "Samples used", "RMSE mV"), rows)
