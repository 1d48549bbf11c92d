"""The tables of the page, as HTML."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any

from celltwin.evaluation.report.metrics import (
    Metrics,
    ModelFacts,
    coverage_at,
    degrees_text,
    figure_text,
    finite,
    mean_rmse,
    number_text,
    or_infinity,
    percent_text,
    rmse_at,
    rmse_overall,
)
from celltwin.learning.bands import LEVEL


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading (units included), each item's value to sort by, and its text."""

    heading: str
    value: Callable[[Any], float | str | None]
    text: Callable[[Any], str] | None = None
    digits: int = 1
    least_is_best: bool = False
    aim: float | None = None  # where not the least is best but what is nearest to this


def microcontroller_columns(models: Sequence[ModelFacts]) -> list[Column]:
    """What C costs on a microcontroller, where any model says so."""
    processor = next((m.microcontroller.cpu for m in models if m.microcontroller), None)
    if processor is None:
        return []

    def of(name: str, factor: float = 1.0) -> Callable[[ModelFacts], float | None]:
        return lambda m: None if m.microcontroller is None else getattr(m.microcontroller, name) * factor

    return [
        Column("Flash (kB)", of("flash_bytes", 1 / 1024), least_is_best=True),
        Column("RAM (bytes)", of("ram_bytes"), digits=0, least_is_best=True),
        Column("Stack (bytes)", of("stack_bytes"), digits=0, least_is_best=True),
        Column(
            f"{processor.capitalize()} (ms, estimate)",
            of("estimated_microseconds", 1e-3),
            digits=3,
            least_is_best=True,
        ),
    ]


def spread_small(text: str) -> str:
    return re.sub(r"( ± .*)", r"<small>\1</small>", escape(text))


def _cell(column: Column, item: Any, best: float | None) -> str:
    value = column.value(item)
    if isinstance(value, str):
        return f"<td>{escape(value)}</td>"
    text = column.text(item) if column.text else number_text(value, column.digits)
    mark = ' class="best"' if best is not None and value == best else ""
    return f'<td data-v="{value if finite(value) else ""}"{mark}>{spread_small(text)}</td>'


def sortable_table(
    columns: Sequence[Column],
    groups: Sequence[tuple[str, Sequence[Any]]],
    *,
    heads: Callable[[Any], str] | None = None,
    attributes: str = "",
) -> str:
    """A sortable table. Each group of items has its own body; only the first group's best values are marked.

    `heads` gives the HTML of the first cell of a row, in a column of its own.
    """
    first = groups[0][1] if groups else []
    best: dict[str, float] = {}
    for column in columns:
        values = [value for item in first if not isinstance(value := column.value(item), str) and finite(value)]
        aim = 0.0 if column.least_is_best else column.aim
        if aim is not None and len(values) > 1:
            best[column.heading] = min((v for v in values if v is not None), key=lambda v, aim=aim: abs(v - aim))
    head = '<th scope="col"><button>Model</button></th>' if heads else ""
    for column in columns:
        left = ' class="text"' if first and isinstance(column.value(first[0]), str) else ""
        head += f'<th scope="col"{left}><button>{escape(column.heading)}</button></th>'
    bodies = []
    for title, items in groups:
        width = len(columns) + (heads is not None)
        rows = [f'<tr class="group"><th colspan="{width}">{escape(title)}</th></tr>'] if title and items else []
        for item in items:
            cells = "".join(
                _cell(column, item, best.get(column.heading) if items is first else None) for column in columns
            )
            rows.append(f"<tr>{heads(item) if heads else ''}{cells}</tr>")
        bodies.append(f"<tbody>{''.join(rows)}</tbody>")
    return (
        f'<div class="scroll"><table class="sortable" {attributes}><thead><tr>{head}</tr></thead>'
        f"{''.join(bodies)}</table></div>"
    )


def swatch(ranked: Sequence[ModelFacts], model: ModelFacts) -> str:
    """The colour of a model, which its rank decides."""
    rank = [one.name for one in ranked].index(model.name)
    return f'<i class="swatch" data-colour="{rank}"></i>'


def model_head(ranked: Sequence[ModelFacts], model: ModelFacts) -> str:
    """The first cell of a model's row."""
    title = f"<small>{escape(model.title)}</small>" if model.title else ""
    return f'<th scope="row">{swatch(ranked, model)}<b>{escape(model.name)}</b>{title}</th>'


def leaderboard_html(metrics: Metrics) -> str:
    def at(ambient: float | None) -> Column:
        return Column(
            f"{degrees_text(ambient)} (mV)",
            lambda model: rmse_at(model, ambient).mean,
            lambda model: figure_text(rmse_at(model, ambient)),
            least_is_best=True,
        )

    columns = [
        Column("RMSE, all (mV)", lambda m: m.overall.rmse, lambda m: figure_text(rmse_overall(m)), least_is_best=True),
        *(at(ambient) for ambient in metrics.ambients),
        *([Column("Left out of folds (mV)", lambda m: m.left_out_rmse, least_is_best=True)] if metrics.folded else []),
        Column("Worst sample (mV)", lambda m: m.overall.max, least_is_best=True),
        Column("p99 (mV)", lambda m: m.overall.p99, least_is_best=True),
        Column("MAE (mV)", lambda m: m.overall.mae, least_is_best=True),
        Column("Parameters", lambda m: m.parameters, digits=0, least_is_best=True),
        Column("Training (s)", lambda m: m.training_seconds, least_is_best=True),
        Column("Step (µs)", lambda m: m.microseconds_per_step, digits=2, least_is_best=True),
        *microcontroller_columns(metrics.models),
    ]
    trained = [model for model in metrics.ranked if model.trained]
    baselines = [model for model in metrics.ranked if not model.trained]
    return sortable_table(
        columns,
        [("", trained), ("Baselines, not trained", baselines)],
        heads=partial(model_head, metrics.ranked),
        attributes='id="board"',
    )


def cycles_html(metrics: Metrics, records: Sequence[Mapping[str, Any]]) -> str:
    """RMSE of every model on every test cycle; a line leads to its record's figure."""
    rows = [row for model in metrics.models for row in model.test]
    keys = sorted({row.record for row in rows}, key=lambda key: (or_infinity(key[1]), key[2], key[0]))
    several_cells = len({key[0] for key in keys}) > 1
    number_of = {tuple(record["key"]): k for k, record in enumerate(records) if "key" in record}
    body = []
    for key in keys:
        figures = [mean_rmse(row for row in model.test if row.record == key) for model in metrics.ranked]
        least = min((or_infinity(figure.mean) for figure in figures), default=math.inf)
        cells = []
        for figure in figures:
            best = figure.mean is not None and figure.mean == least
            # How many times the line's best, on a scale of colour from 1 to 10 times.
            heat = math.log10(figure.mean / least) if finite(figure.mean) and figure.mean and least else 0.0
            style = f' style="--heat:{min(heat, 1.0):.2f}"'
            text = spread_small(figure_text(figure))
            value = figure.mean if finite(figure.mean) else ""
            cells.append(f'<td data-v="{value}"{style}{" class=best" if best else ""}>{text}</td>')
        cell, ambient, cycle = key
        target = f' data-record="{number_of[key]}"' if key in number_of else ""
        name = f"{cell} · {cycle}" if several_cells else cycle
        name = escape(name)
        label = f'<button class="link">{name}</button>' if target else name
        body.append(
            f'<tr{target}><th scope="row">{label}</th><td data-v="{"" if ambient is None else ambient}">'
            f"{degrees_text(ambient)}</td>{''.join(cells)}</tr>"
        )
    names = "".join(
        f'<th scope="col"><button>{swatch(metrics.ranked, model)}{escape(model.name)} (mV)</button></th>'
        for model in metrics.ranked
    )
    return (
        '<div class="scroll"><table class="sortable heat" id="cycles"><thead><tr>'
        '<th scope="col"><button>Test cycle</button></th><th scope="col"><button>Ambient</button></th>'
        f"{names}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def bands_html(metrics: Metrics) -> str:
    """What share of the test samples lies within each model's bands; what is nearest to the level is marked."""

    def share(heading: str, of: Callable[[Any], float | None]) -> Column:
        return Column(f"{heading} (%)", of, lambda model: percent_text(of(model)), aim=LEVEL)

    columns = [
        share("All", lambda m: m.overall.coverage),
        *(share(degrees_text(at), lambda m, at=at: coverage_at(m, at)) for at in metrics.ambients),
        Column("Half-width (mV)", lambda m: m.overall.half_width),
    ]
    return sortable_table(
        columns, [("", metrics.banded)], heads=partial(model_head, metrics.ranked), attributes='id="held"'
    )


def rows_html(metrics: Metrics) -> str:
    pairs = [(model, row) for model in metrics.ranked for row in model.rows]

    def of(heading: str, name: str, digits: int = 1) -> Column:
        return Column(heading, lambda pair: getattr(pair[1], name), digits=digits)

    def share(heading: str, name: str) -> Column:
        return Column(
            f"{heading} (%)", lambda pair: getattr(pair[1], name), lambda pair: percent_text(getattr(pair[1], name), 2)
        )

    columns = [
        Column("Model", lambda pair: pair[0].name),
        of("Cycle", "cycle"),
        *([of("Cell", "cell")] if any(row.cell for _, row in pairs) else []),
        of("Ambient (°C)", "ambient_degC", 0),
        of("Split", "split"),
        of("Seed", "seed", 0),
        of("RMSE (mV)", "rmse", 2),
        of("MAE (mV)", "mae", 2),
        of("Worst sample (mV)", "max"),
        of("p99 (mV)", "p99"),
        of("Transient RMSE (mV)", "rmse_transient", 2),
        of("Rest RMSE (mV)", "rmse_rest", 2),
        of("Bias (mV)", "bias", 2),
        of("NRMSE", "nrmse", 4),
        of("R²", "r2", 4),
        *([share("Within band", "coverage"), of("Band ± (mV)", "half_width")] if metrics.banded else []),
        share("Out of domain", "out_of_domain"),
        of("Samples", "n", 0),
    ]
    return sortable_table(columns, [("", pairs)], attributes='id="rows"')
