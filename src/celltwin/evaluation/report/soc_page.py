"""The page of estimators of state of charge: who is best, under what it fails, and whether it says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celltwin.evaluation.protocol import NORMAL_95, SETTLED
from celltwin.evaluation.report.figures import Figures
from celltwin.evaluation.report.findings import Finding
from celltwin.evaluation.report.metrics import figure_text, finite, number_text, percent_text
from celltwin.evaluation.report.page import (
    NO_PREDICTIONS,
    Section,
    cost_tile,
    details_section,
    document,
    figure_html,
    filter_html,
    header_html,
    verdict_html,
)
from celltwin.evaluation.report.soc_findings import points_text, soc_findings
from celltwin.evaluation.report.soc_metrics import LEAST_COVERAGE, LIMIT, EstimateMetrics, worst_settled
from celltwin.evaluation.report.soc_tables import (
    robustness_html,
    rows_of,
    soc_leaderboard_html,
    soc_rows_html,
)
from celltwin.evaluation.robustness import NEAR

CAUSAL = (
    "An estimator sees voltage, current and temperature, a sample at a time, and nothing computed from the label. It "
    "wakes at the first sample knowing nothing of the charge. Error is estimated minus labelled state of charge in "
    "points (hundredths of the full charge); the label is the tester's counter over the cell's one reference capacity."
)


def soc_page(metrics: EstimateMetrics, figures: Figures, config: Any, environment: Any) -> str:
    top = header_html(metrics, environment, "State-of-charge benchmark", CAUSAL)
    top += _verdict(metrics, soc_findings(metrics, figures))
    title = metrics.dataset.name
    sections = _sections(metrics, figures, config, environment)
    return document(title, top, sections, _data(metrics, figures), "benchmark.js", "soc.js")


def _verdict(metrics: EstimateMetrics, findings: Sequence[Finding]) -> str:
    best = next((model for model in metrics.ranked if finite(model.overall.headline)), None)
    if best is None:
        return verdict_html([("Best estimator", "none with a finite error", "")], findings)
    overall, starts = best.overall, best.of_group("start")
    shares = "/".join(start.name.removeprefix("start at ").removesuffix(" %") for start in metrics.starts)
    tiles = [
        ("Best estimator", best.name, best.title),
        ("MAE, all starts", f"{figure_text(best.headline, 2)} points", f"woken at {shares} % of the cycle"),
        ("MAE, full start", points_text(overall.mae), f"RMSE {points_text(overall.rmse)}"),
        (
            f"Worst after {SETTLED:.0f} s, full start",
            points_text(overall.max_settled),
            f"{points_text(worst_settled(starts))} over all starts",
        ),
        (
            "In the 95 % band, full start",
            f"{percent_text(overall.coverage)} %",
            f"NEES {number_text(overall.nees, 2)}; 1 is honest",
        ),
        cost_tile(best),
    ]
    return verdict_html(tiles, findings)


def _data(metrics: EstimateMetrics, figures: Figures) -> dict[str, Any]:
    ranked, conditions = metrics.ranked, metrics.conditions
    return {
        "unit": "points",
        "models": [{"name": m.name, "trained": m.trained, "scored": finite(m.overall.headline)} for m in ranked],
        "band": NORMAL_95,
        "limit": LIMIT,
        "records": figures.records,
        "residuals": figures.residuals,
        "history": {
            m.name: {s: [e.model_dump(by_alias=True) for e in h] for s, h in m.history.items() if h}
            for m in ranked
            if m.history and any(m.history.values())
        },
        "conditions": [{"name": c.title, "group": c.group} for c in conditions],
        "stresses": {
            m.name: [
                None
                if (stress := m.stresses.get(c)) is None
                else {
                    "mae": stress.mae.mean,
                    "spread": stress.mae.spread,
                    "worst": stress.worst,
                    "coverage": stress.coverage,
                    "untold": stress.untold,
                }
                for c in conditions
            ]
            for m in ranked
        },
        "rows": rows_of(metrics),
    }


def _sections(metrics: EstimateMetrics, figures: Figures, config: Any, environment: Any) -> list[Section]:
    histories = any(any(model.history.values()) for model in metrics.models if model.history)
    limit, least = number_text(LIMIT, 0), number_text(100 * LEAST_COVERAGE, 0)
    choose = (
        '<div class="controls"><label>Record <select id="record"></select></label>'
        '<label>Woken at <select id="start"></select></label>'
        '<label>Band of <select id="band"></select></label>'
        '<button id="previous" aria-label="previous record">‹</button>'
        '<button id="next" aria-label="next record">›</button>'
        '<span class="muted">Click a name in the legend to show or hide an estimator; drag to zoom, double-click to '
        f"return. At most {number_text(figures.points, 0)} points a curve, extremes of the error kept.</span></div>"
    )
    choose_model = '<div class="controls"><label>Band of <select id="residual-model"></select></label></div>'
    return [
        (
            "leaderboard",
            "Leaderboard",
            "Errors in points, ranked by the mean absolute error over all starts. Each start is the mean over the test "
            "cycles, from there to their end; all columns after the starts are of the full start; ± is the standard "
            "deviation over seeds. The best of the trained estimators is marked in each column: of the share of labels "
            "in the 95 % band it is what is nearest to 95 %, of NEES, the mean of (error / stated deviation)², what is "
            "nearest to 1.",
            soc_leaderboard_html(metrics),
        ),
        (
            "robustness",
            "Robustness",
            "Mean absolute error in points, over cycles and seeds; below it the worst sample later than "
            f"{SETTLED:.0f} s and the share of labels within the stated 95 % band. An outlined cell is over {limit} "
            f"points with less than {least} % of the labels in the band: wrong, and not in doubt. From a wrong stored "
            f"value also the mean time until the error is under {number_text(NEAR, 0)} points for good. Only what is "
            "seen is wrong, never the label; where no start is named it is the full one, nothing known. Currents are "
            "those of a cell of 3 Ah and scale with it.",
            robustness_html(metrics)
            + figure_html("robustness", bool(metrics.conditions), "No condition was scored in this run."),
        ),
        (
            "estimated",
            "Labelled and estimated",
            "",
            figure_html("record", bool(figures.records), NO_PREDICTIONS, choose),
        ),
        (
            "residuals",
            "Where the error is",
            "Error of all test samples, from the starts above, in bins of state of charge, current (positive on "
            "charge) and temperature: medians of every estimator, and the 5–95 % band of one.",
            figure_html("residual", bool(figures.residuals), NO_PREDICTIONS, choose_model),
        ),
        (
            "training",
            "Training",
            "Mean absolute error on the validation cycles over all starts, and the loss of training, per round: one "
            "line a seed.",
            figure_html("history", histories, "No training history in this run."),
        ),
        ("all-rows", "All rows", "", filter_html("estimator, condition, cycle") + soc_rows_html()),
        details_section(metrics.dataset, config, environment),
    ]
