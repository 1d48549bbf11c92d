"""The tables of the page of estimators, as HTML."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import partial
from html import escape

from celltwin.evaluation.protocol import SETTLED
from celltwin.evaluation.report.figures import SECONDS_PER_MINUTE
from celltwin.evaluation.report.metrics import Figure, degrees_text, figure_text, finite, number_text, percent_text
from celltwin.evaluation.report.soc_metrics import (
    FULL_START,
    LEAST_COVERAGE,
    LIMIT,
    Condition,
    EstimateMetrics,
    EstimatorRun,
    Stress,
)
from celltwin.evaluation.report.tables import Column, microcontroller_columns, model_head, sortable_table, swatch

BAND = 0.95  # share of the labels that an honest band of 95 % holds
FAINT, STRONG = 0.3, 10.0  # points of error without colour and with all of it
GROUPS = {
    "start": "Woken inside the cycle, nothing known of the charge",
    "stored": "Woken at 25 % of the cycle with a stored state of charge that is wrong",
    "sensor": "One sensor wrong",
    "both": "Current and voltage wrong",
    "signal": "Noise, converters, a voltage that sticks or is not there",
    "sampling": "Other sampling",
    "ageing": "A cell that has aged",
}


def soc_leaderboard_html(metrics: EstimateMetrics) -> str:
    def mae(heading: str, figure: partial[Figure]) -> Column:
        return Column(
            re.sub(r"(?<=\d) (?=%|°C)", "\u00a0", heading),  # a number and its unit stay on one line
            lambda model: figure(model).mean,
            lambda model: figure_text(figure(model), 2),
            least_is_best=True,
        )

    filters = any(model.overall.nis is not None for model in metrics.models)
    columns = [
        mae("MAE, all starts", partial(lambda m: m.headline)),
        *(mae(sentence(start.title), partial(_mae_under, start)) for start in metrics.starts),
        *(mae(degrees_text(ambient), partial(_full_start_at, ambient)) for ambient in metrics.ambients),
        Column(f"Worst after {SETTLED:.0f} s", lambda m: m.overall.max_settled, digits=2, least_is_best=True),
        Column("RMSE", lambda m: m.overall.rmse, digits=2, least_is_best=True),
        Column("In band (%)", lambda m: m.overall.coverage, lambda m: percent_text(m.overall.coverage), aim=BAND),
        Column("NEES", lambda m: m.overall.nees, digits=2, aim=1.0),
        *([Column("NIS", lambda m: m.overall.nis, digits=2, aim=1.0)] if filters else []),
        Column("Parameters", lambda m: m.parameters, digits=0, least_is_best=True),
        Column("Weights (bytes)", lambda m: m.weight_bytes, digits=0, least_is_best=True),
        Column("State (bytes)", lambda m: m.state_bytes, digits=0, least_is_best=True),
        Column("Step (µs)", lambda m: m.microseconds_per_step, digits=2, least_is_best=True),
        *microcontroller_columns(metrics.models),
        Column("Training (s)", lambda m: m.training_seconds, least_is_best=True),
    ]
    trained = [model for model in metrics.ranked if model.trained]
    baselines = [model for model in metrics.ranked if not model.trained]
    return sortable_table(
        columns,
        [("", trained), ("Baselines, not trained", baselines)],
        heads=partial(model_head, metrics.ranked),
        attributes='id="board"',
    )


def _mae_under(condition: Condition, model: EstimatorRun) -> Figure:
    stress = model.stresses.get(condition)
    return stress.mae if stress else Figure(None)


def _full_start_at(ambient: float | None, model: EstimatorRun) -> Figure:
    return model.at(ambient, FULL_START)


def sentence(name: str) -> str:
    return name[:1].upper() + name[1:]


def robustness_html(metrics: EstimateMetrics) -> str:
    """Mean absolute error of every estimator under every condition, by group; below it worst sample and coverage."""
    ranked, conditions = metrics.ranked, metrics.conditions
    names = "".join(
        f'<th scope="col"><button>{swatch(ranked, model)}{escape(model.name)}</button></th>' for model in ranked
    )
    bodies = []
    for group in dict.fromkeys(condition.group for condition in conditions):
        title = escape(GROUPS.get(group, group))
        rows = [f'<tr class="group"><th colspan="{len(ranked) + 1}">{title}</th></tr>']
        for condition in conditions:
            if condition.group == group:
                rows.append(_condition_row(condition, [model.stresses.get(condition) for model in ranked]))
        bodies.append(f"<tbody>{''.join(rows)}</tbody>")
    counts = (
        (f"Conditions over {number_text(LIMIT, 0)} points", lambda stress: stress.over),
        (f"… of them with less than {number_text(100 * LEAST_COVERAGE, 0)} % in the band", lambda s: s.untold),
    )
    foot = "".join(
        f'<tr><th scope="row">{name}</th>'
        + "".join(f"<td data-v>{sum(map(counted, model.stresses.values()))}</td>" for model in ranked)
        + "</tr>"
        for name, counted in counts
    )
    return (
        '<div class="scroll"><table class="sortable heat" id="robustness"><thead><tr>'
        f'<th scope="col"><button>Condition</button></th>{names}</tr></thead>{"".join(bodies)}'
        f"<tfoot>{foot}</tfoot></table></div>"
    )


def _condition_row(condition: Condition, stresses: Sequence[Stress | None]) -> str:
    means = [stress.mae.mean for stress in stresses if stress is not None and finite(stress.mae.mean)]
    least = min((mean for mean in means if mean is not None), default=None)
    cells = "".join(
        "<td data-v=''>–</td>" if stress is None else _stress_cell(condition, stress, least) for stress in stresses
    )
    return f'<tr><th scope="row">{escape(condition.title)}</th>{cells}</tr>'


def _stress_cell(condition: Condition, stress: Stress, least: float | None) -> str:
    mae = stress.mae.mean
    heat = math.log(mae / FAINT) / math.log(STRONG / FAINT) if mae is not None and finite(mae) and mae > 0 else 0.0
    share = percent_text(stress.coverage, 0)
    said = (
        f"mean error {figure_text(stress.mae, 2)} points; worst after {SETTLED:.0f} s {number_text(stress.worst, 2)}; "
        f"{percent_text(stress.coverage)} % in the 95 % band; states {number_text(stress.std, 2)}"
    )
    lines = f"<small>{number_text(stress.worst)} · {share} %</small>"
    if condition.group == "stored":
        lines += "".join(f"<small>{text}</small>" for text in _back_texts(stress))
    classes = ["least"] * (mae is not None and mae == least) + ["untold"] * stress.untold
    marks = f' class="{" ".join(classes)}"' if classes else ""
    return (
        f'<td data-v="{mae if finite(mae) else ""}" style="--heat:{min(max(heat, 0.0), 1.0):.2f}"{marks} '
        f'title="{said}">{number_text(mae, 2)}{lines}</td>'
    )


def _back_texts(stress: Stress) -> list[str]:
    """When it is back to a small error, and in how many of the runs where not in all."""
    if stress.returned is None:
        return ["never back"]
    some = [f"{stress.back} of {stress.runs}"] if stress.back < stress.runs else []
    return [f"back {number_text(stress.returned / SECONDS_PER_MINUTE)} min", *some]


# Of the table of all rows, which the page's program fills: heading, the row's field, digits (none for text), scale.
ROW_COLUMNS: tuple[tuple[str, str, int | None, float], ...] = (
    ("Condition", "condition", None, 1.0),
    ("Cycle", "cycle", None, 1.0),
    ("Cell", "cell", None, 1.0),
    ("Ambient (°C)", "ambient_degC", 0, 1.0),
    ("Seed", "seed", 0, 1.0),
    ("MAE (points)", "mae", 3, 1.0),
    ("RMSE (points)", "rmse", 3, 1.0),
    ("Worst (points)", "max", 2, 1.0),
    (f"Worst after {SETTLED:.0f} s (points)", "max_settled", 2, 1.0),
    ("p99 (points)", "p99", 2, 1.0),
    ("Bias (points)", "bias", 3, 1.0),
    ("In the 95 % band (%)", "coverage", 1, 100.0),
    ("NEES", "nees", 2, 1.0),
    ("Stated deviation (points)", "mean_std", 2, 1.0),
    ("Back after (s)", "return_second", 0, 1.0),
    ("Out of domain (%)", "out_of_domain", 2, 100.0),
    ("Samples", "n", 0, 1.0),
)


def rows_of(metrics: EstimateMetrics) -> dict[str, list[object]]:
    """All rows of `metrics.json` as columns, to six digits: the data of the table of all rows."""

    def brief(value: object) -> object:
        return float(f"{value:.6g}") if isinstance(value, float) else value

    pairs = [(model, row) for model in metrics.ranked for row in model.rows]
    columns: dict[str, list[object]] = {"model": [model.name for model, _ in pairs]}
    return columns | {field: [brief(getattr(row, field)) for _, row in pairs] for _, field, _, _ in ROW_COLUMNS}


def soc_rows_html() -> str:
    heads = "".join(
        f'<th scope="col" class="{"text" if digits is None else "number"}" data-field="{field}" '
        f'data-digits="{"" if digits is None else digits}" data-scale="{scale:g}"><button>{heading}</button></th>'
        for heading, field, digits, scale in (("Estimator", "model", None, 1.0), *ROW_COLUMNS)
    )
    return (
        '<p class="muted" id="count"></p><div class="scroll"><table id="rows"><thead><tr>'
        f"{heads}</tr></thead><tbody></tbody></table></div>"
    )
