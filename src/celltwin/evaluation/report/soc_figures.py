"""The estimates of a run: read, held against `metrics.json`, and thinned to what the figures draw."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from celltwin.evaluation.report.figures import (
    POINTS_IN_PAGE,
    POINTS_PER_CURVE,
    SAME_RMSE,
    SECONDS_PER_MINUTE,
    Figures,
    bands_of,
    curve,
    outside,
    packed,
    read_groups,
    thin,
    unknown_as_nan,
)
from celltwin.evaluation.report.metrics import or_infinity
from celltwin.evaluation.report.soc_metrics import EstimateMetrics, EstimateRow, EstimatorRun, start_condition

POINT = 1e2  # points in the fraction 1
FOR_DOUBT = 5  # one point in so many of a curve is chosen for the extremes of the stated deviation


@dataclass(frozen=True, eq=False)
class EstimateTrace:
    """One estimator's work on one record from one start. Arrays of one length; current is positive on charge."""

    label: str
    cycle: str
    ambient_degC: float
    start: float
    time_second: np.ndarray
    current_ampere: np.ndarray
    temperature_celsius: np.ndarray
    soc: np.ndarray  # the label
    estimated_soc: np.ndarray
    soc_std: np.ndarray
    in_domain: np.ndarray

    @property
    def error_points(self) -> np.ndarray:
        return POINT * (self.estimated_soc - self.soc)


_FACTS = ("record", "cycle", "ambient_degC", "start")
_NUMERIC = {
    "time_second": "test_time_second",
    "current_ampere": "current_ampere",
    "temperature_celsius": "temperature_t1_celsius",
    "soc": "soc",
    "estimated_soc": "estimated_soc",
    "soc_std": "soc_std",
    "in_domain": "in_domain",
}


def _read_estimates(path: Path) -> list[EstimateTrace]:
    traces = []
    for facts, arrays in read_groups(path, _FACTS, _NUMERIC, ("record", "start")):
        label, cycle, ambient, start = (facts[name] for name in _FACTS)
        traces.append(EstimateTrace(str(label), str(cycle), unknown_as_nan(ambient), unknown_as_nan(start), **arrays))
    return traces


def _row_of(trace: EstimateTrace, model: EstimatorRun) -> EstimateRow | None:
    """The row of `metrics.json` that scored this trace, or None where it is not clear which one did."""
    condition = start_condition(trace.start)
    ambient = None if math.isnan(trace.ambient_degC) else trace.ambient_degC
    found = [
        row
        for row in model.rows
        if (row.group, row.condition) == condition
        and row.cycle == trace.cycle
        and row.ambient_degC == ambient
        and row.seed == (model.seeds[0] if model.seeds else 0)
    ]
    if len(found) > 1:
        cell = trace.label.partition("/")[0]  # of <cell>/<ambient>/<cycle>
        found = [row for row in found if row.cell == cell]
    return found[0] if len(found) == 1 else None


def _estimate(trace: EstimateTrace, points: int) -> dict[str, Any]:
    """Estimate, error and doubt at the same samples: the extremes of the error, and some of the doubt."""
    share = max(points // FOR_DOUBT, 1)
    error = trace.error_points
    chosen = np.union1d(thin(error, points - share), thin(trace.soc_std, share))
    return {
        "x": packed(trace.time_second[chosen] / SECONDS_PER_MINUTE),
        "soc": packed(POINT * trace.estimated_soc[chosen]),
        "error": packed(error[chosen]),
        "std": packed(POINT * trace.soc_std[chosen]),
        "outside": outside(trace.time_second, trace.in_domain),
    }


def read_estimates(run: Path, metrics: EstimateMetrics) -> Figures:
    read = [(model, _read_estimates(run / "predictions" / f"{model.name}.parquet")) for model in metrics.ranked]
    keys = {(trace.label, trace.start) for _, traces in read for trace in traces}
    curves = max(len(keys), 1) * (2 * len(metrics.models) + 2)
    points = min(max(POINTS_IN_PAGE // curves, 200), POINTS_PER_CURVE)
    records: dict[tuple[str, float], dict[str, Any]] = {}
    residuals: dict[str, dict[str, Any]] = {}
    compared, differing = 0, []
    for model, traces in read:
        for trace in traces:
            row = _row_of(trace, model)
            if row is not None and row.mae is not None and math.isfinite(row.mae):
                compared += 1
                with np.errstate(over="ignore"):  # of an estimator that diverged
                    mae = float(np.mean(np.abs(trace.error_points)))
                if not math.isclose(mae, row.mae, rel_tol=SAME_RMSE):
                    name = start_condition(trace.start).name
                    differing.append(f"{model.name} on {trace.label}, {name}")
            record = records.setdefault(
                (trace.label, trace.start),
                {
                    "label": trace.label,
                    "start": trace.start,
                    "ambient": None if math.isnan(trace.ambient_degC) else trace.ambient_degC,
                    "cycle": trace.cycle,
                    "labelled": curve(trace.time_second, POINT * trace.soc, points),
                    "current": curve(trace.time_second, trace.current_ampere, points),
                    "models": {},
                },
            )
            record["models"][model.name] = _estimate(trace, points) | {"mae": row.mae if row is not None else None}
        if traces:
            residuals[model.name] = bands_of(traces, [trace.error_points for trace in traces])
    ordered = sorted(
        records.values(), key=lambda r: (or_infinity(r["ambient"]), r["cycle"], r["label"], or_infinity(r["start"]))
    )
    return Figures(ordered, residuals, points, compared, differing)
