"""The page: one HTML file that holds its style, its program and its data."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from celltwin.data.sheets import count
from celltwin.evaluation.report.figures import SECONDS_PER_MINUTE, Figures
from celltwin.evaluation.report.findings import Finding, findings_of
from celltwin.evaluation.report.metrics import (
    CellFacts,
    Dataset,
    Metrics,
    ModelFacts,
    RunFacts,
    Split,
    figure_text,
    finite,
    number_text,
    rmse_overall,
)
from celltwin.evaluation.report.tables import bands_html, cycles_html, leaderboard_html, rows_html
from celltwin.files import plain
from celltwin.learning.bands import LEVEL

Section = tuple[str, str, str, str]  # name, heading, text below it, content as HTML
QUICK = "quick: a fifth of what is due, to try out and not to judge"
Tile = tuple[str, str, str]  # name, value, note

CLOSED_LOOP = (
    "Every score is closed loop: from a known initial state of charge a model simulates the voltage from current and "
    "temperature alone, never seeing the measured voltage on the way, over the whole cycle from its first sample. "
    "Error is simulated minus measured."
)
NO_PREDICTIONS = "The run folder holds no predictions, so there is nothing to draw here."


def header_html(metrics: RunFacts, environment: Any, kicker: str, protocol: str) -> str:
    """The name of the dataset and the facts of the run, below `kicker`; then how it was scored, as HTML."""
    dataset, cell = metrics.dataset, metrics.dataset.cell
    limits = " – ".join(f"{number_text(limit, 2)}" for limit in cell.voltage_limits_volt)
    python = environment.get("python") if isinstance(environment, dict) else None
    minutes = None if metrics.seconds is None else metrics.seconds / SECONDS_PER_MINUTE
    facts = {
        "Cell": ", ".join(part for part in (cell.name, cell.chemistry) if part),
        "Capacity": _capacity(cell),
        "Voltage limits": f"{limits} V" if limits else "",
        "Run": metrics.created.replace("T", " ").replace("Z", " UTC"),
        "Took": "" if minutes is None else f"{number_text(minutes)} min",
        "Training": QUICK if metrics.quick else "",
        "celltwin": metrics.celltwin,
        "Python": python.split()[0] if isinstance(python, str) and python.strip() else "",
        "Licence of the data": dataset.licence,
    }
    listed = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items() if value)
    split = dataset.split
    counts = (
        f" Cycles here: {len(split.train)} for training, {len(split.validate_)} for validation, "
        f"{len(split.test)} for the test."
        if split.test
        else ""
    )
    return (
        f'<header><p class="kicker">{kicker}</p><h1>{escape(dataset.name)}</h1><dl>{listed}</dl>'
        f"<p>{protocol} Data are split by whole cycle, never by window.{counts}</p></header>"
    )


def _capacity(cell: CellFacts) -> str:
    parts = [("nominal", cell.nominal_capacity_ah), ("reference", cell.reference_capacity_ah)]
    return ", ".join(f"{number_text(value, 3)} Ah {name}" for name, value in parts if value is not None)


def _verdict_html(metrics: Metrics, findings: Sequence[Finding]) -> str:
    best = next((model for model in metrics.ranked if finite(model.overall.rmse)), None)
    if best is None:
        tiles = [("Best model", "none with a finite RMSE", "")]
    else:
        cycles = len({row.record for row in best.test})
        tiles = [
            ("Best model", best.name, best.title),
            (
                "RMSE, test",
                f"{figure_text(rmse_overall(best))} mV",
                f"{count(cycles, 'cycle')} at {count(len(metrics.ambients), 'ambient')}",
            ),
            ("Worst sample", f"{number_text(best.overall.max)} mV", f"99 % within {number_text(best.overall.p99)} mV"),
            cost_tile(best),
        ]
    return verdict_html(tiles, findings)


def cost_tile(best: ModelFacts) -> Tile:
    parameters = f"{number_text(best.parameters, 0)} parameters" if best.parameters is not None else ""
    seeds = f"{len(best.seeds)} seed{'s' if len(best.seeds) != 1 else ''}" if best.seeds else ""
    note = ", ".join(part for part in (parameters, seeds) if part)
    return "Cost", f"{number_text(best.microseconds_per_step, 2)} µs a step", note


def verdict_html(tiles: Sequence[Tile], findings: Sequence[Finding]) -> str:
    """Tiles of name, value and note, and the findings below them."""
    shown = "".join(
        f'<div class="tile"><span>{escape(name)}</span><b>{escape(value)}</b><small>{escape(note)}</small></div>'
        for name, value, note in tiles
    )
    listed = "".join(f'<li class="{level}">{escape(text)}</li>' for level, text in findings)
    return (
        f'<section id="verdict"><div class="tiles">{shown}</div><h2>Can it be trusted?</h2><ul>{listed}</ul></section>'
    )


def _split_html(split: Split) -> str:
    parts = (("Train", split.train), ("Validate", split.validate_), ("Test", split.test))
    return "".join(f"<h3>{name}</h3><p>{escape(', '.join(cycles) or '–')}</p>" for name, cycles in parts)


def _folded(title: str, content: Any) -> str:
    if content is None:
        return f'<p class="muted">{title} is not in the run folder.</p>'
    text = json.dumps(content, indent=2, ensure_ascii=False)
    return f"<details><summary>{title}</summary><pre>{escape(text)}</pre></details>"


def figure_html(name: str, present: bool, absent: str, controls: str = "") -> str:
    if not present:
        return f'<p class="muted">{absent}</p>'
    return f'{controls}<div class="figure" id="{name}-figure"></div>'


def html_page(metrics: Metrics, figures: Figures, config: Any, environment: Any) -> str:
    ranked = metrics.ranked
    histories = {
        m.name: {s: [e.model_dump() for e in h] for s, h in m.history.items() if h} for m in ranked if m.history
    }
    curves = {m.name: m.curves.model_dump() for m in ranked if m.curves and m.curves.soc}
    data = {
        "models": [{"name": m.name, "trained": m.trained, "scored": finite(m.overall.rmse)} for m in ranked],
        "unit": "mV",
        "records": figures.records,
        "residuals": figures.residuals,
        "history": histories,
        "curves": curves,
    }
    choose_record = (
        '<div class="controls"><label>Record <select id="record"></select></label>'
        '<button id="previous" aria-label="previous record">‹</button>'
        '<button id="next" aria-label="next record">›</button>'
        '<span class="muted">Click a name in the legend to show or hide a model; drag to zoom, double-click to '
        f"return. At most {number_text(figures.points, 0)} points a curve, extremes kept.</span></div>"
    )
    choose_model = '<div class="controls"><label>Band of <select id="residual-model"></select></label></div>'
    choose_curves = '<div class="controls"><label>Model <select id="curve-model"></select></label></div>'
    sections = [
        (
            "leaderboard",
            "Leaderboard",
            "RMSE on the test cycles, overall and as the mean over the cycles of each ambient temperature; ± is the "
            "standard deviation over seeds. The best of the trained models is marked in each column.",
            leaderboard_html(metrics),
        ),
        (
            "per-cycle",
            "Cycle by cycle",
            "RMSE per test cycle, mean over seeds. Colour: how many times the best of the line, full at ten "
            "times. A cycle's name opens its curves.",
            cycles_html(metrics, figures.records),
        ),
        (
            "simulated",
            "Measured and simulated",
            f"Shaded: the {100 * LEVEL:g} % band of the best model." if metrics.banded else "",
            figure_html("record", bool(figures.records), NO_PREDICTIONS, choose_record),
        ),
        *([_bands_section(metrics)] if metrics.banded else []),
        (
            "residuals",
            "Where the error is",
            "Error of all test samples in bins of state of charge, current (positive on charge) and "
            "temperature: medians of every model, and the 5–95 % band of one.",
            figure_html("residual", bool(figures.residuals), NO_PREDICTIONS, choose_model),
        ),
        (
            "learned",
            "What the models learned of the cell",
            "Open-circuit voltage and resistance per temperature, as the trained model holds them.",
            figure_html("curve", bool(curves), "No model in this run holds curves of the cell.", choose_curves),
        ),
        (
            "training",
            "Training",
            "RMSE per epoch: validation solid, training dotted, one line a seed.",
            figure_html("history", bool(histories), "No training history in this run."),
        ),
        (
            "all-rows",
            "All rows",
            "",
            filter_html("model, cycle, split") + rows_html(metrics),
        ),
        details_section(metrics.dataset, config, environment),
    ]
    top = header_html(metrics, environment, "Voltage benchmark", CLOSED_LOOP)
    top += _verdict_html(metrics, findings_of(metrics, figures))
    return document(metrics.dataset.name, top, sections, data, "benchmark.js", "report.js")


def _bands_section(metrics: Metrics) -> Section:
    text = (
        f"Share of the test samples that lie within the {100 * LEVEL:g} % band around the simulated voltage, and the "
        "mean of its half-width. Bands are calibrated on cycles that were not trained on: they hold on average over "
        "many cycles like these, not in every single one. What is nearest to the level is marked."
    )
    return "bands", "Bands", text, bands_html(metrics)


def details_section(dataset: Dataset, config: Any, environment: Any) -> Section:
    content = (
        f"{_split_html(dataset.split)}"
        f"{_folded('config.json', config)}{_folded('environment.json', environment)}"
        f"<h3>Citation of the data</h3><p>{escape(dataset.citation) or '–'}</p>"
        f"<h3>Licence of the data</h3><p>{escape(dataset.licence) or '–'}</p>"
    )
    return "details", "Split, settings and source", "", content


def plain_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts as HTML; columns of numbers alone are set to the right."""
    numbers = [all(re.match(r"[−\d–]|$", row[i]) for row in rows) for i in range(len(head))]
    titles = "".join(
        f"<th{'' if right else ' class=text'}>{escape(name)}</th>" for name, right in zip(head, numbers, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{' data-v' * right}>{escape(cell)}</td>" for cell, right in zip(row, numbers, strict=True))
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'


def filter_html(example: str) -> str:
    """The field that filters the table of all rows."""
    field = f'<input id="filter" type="search" placeholder="{example}">'
    return f'<div class="controls"><label>Filter {field}</label></div>'


def document(title: str, top: str, sections: Sequence[Section], data: Any, *programs: str) -> str:
    """A whole page: `top`, then the sections and a menu of them, the data and the programs that draw them."""
    # `<` never occurs in the block, so no text in it can end the script element.
    block = json.dumps(plain(data), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    links = "".join(f'<a href="#{name}">{heading}</a>' for name, heading, _, _ in sections)
    body = "".join(
        f'<section id="{name}"><h2>{heading}</h2>{f"<p>{text}</p>" if text else ""}{content}</section>'
        for name, heading, text, content in sections
    )
    # A plotly.js of another version might hold the end tag in a string.
    plotly = get_plotlyjs().replace("</script", "<\\/script")
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:"
    style, *scripts = (
        (Path(__file__).parent / name).read_text(encoding="utf-8") for name in ("report.css", "common.js", *programs)
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)} · celltwin</title><style>{style}</style></head><body>"
        f"<nav>{links}</nav><main>{top}{body}</main>"
        f'<script type="application/json" id="data">{block}</script>'
        f"<script>{plotly}</script>"
        f'<script>"use strict";(() => {{\n{"".join(scripts)}}})();</script></body></html>'
    )
