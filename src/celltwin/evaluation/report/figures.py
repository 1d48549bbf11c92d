"""The predictions of a run: read, held against `metrics.json`, and thinned to what the figures draw."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from celltwin.errors import CelltwinError
from celltwin.evaluation.report.metrics import Metrics, Row, or_infinity

MILLI = 1e3
SECONDS_PER_MINUTE = 60.0

POINTS_PER_CURVE = 3000  # most points that one curve of a record keeps
POINTS_IN_PAGE = 600_000  # most points of all records together, about 7 MB of base64
BINS, LEAST_IN_BIN = 30, 30  # of the residual plots; a bin with fewer samples is left out
SAME_RMSE = 0.01  # relative difference between predictions and metrics.json that passes as rounding


@dataclass(frozen=True, eq=False)
class Trace:
    """One model's simulation of one record. Arrays of one length; current is positive on charge."""

    label: str
    cycle: str
    ambient_degC: float
    split: str
    time_second: np.ndarray
    measured_volt: np.ndarray
    simulated_volt: np.ndarray
    current_ampere: np.ndarray
    temperature_celsius: np.ndarray
    soc: np.ndarray
    in_domain: np.ndarray
    low_volt: np.ndarray | None = None  # the band, where the twin has one
    high_volt: np.ndarray | None = None

    @property
    def error_millivolt(self) -> np.ndarray:
        return (self.simulated_volt - self.measured_volt) * MILLI

    @property
    def rmse_millivolt(self) -> float:
        error = self.error_millivolt[~np.isnan(self.measured_volt)]
        with np.errstate(over="ignore"):  # of a model that diverged
            return float(np.sqrt(np.mean(error**2))) if error.size else math.nan


_NUMERIC = {
    "time_second": "test_time_second",
    "measured_volt": "voltage_volt",
    "simulated_volt": "simulated_voltage_volt",
    "current_ampere": "current_ampere",
    "temperature_celsius": "temperature_t1_celsius",
    "soc": "soc",
    "in_domain": "in_domain",
}
_BAND = {"low_volt": "voltage_low_volt", "high_volt": "voltage_high_volt"}
_FACTS = ("record", "cycle", "ambient_degC", "split")
Facts = dict[str, Any]
Arrays = dict[str, np.ndarray]


def _read_predictions(path: Path) -> list[Trace]:
    traces = []
    for facts, arrays in read_groups(path, _FACTS, _NUMERIC, ("record",), _BAND):
        cycle, split = (str(facts[name]) for name in ("cycle", "split"))
        ambient = unknown_as_nan(facts["ambient_degC"])
        traces.append(Trace(label=facts["record"], cycle=cycle, ambient_degC=ambient, split=split, **arrays))
    return traces


def unknown_as_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)


def read_groups(
    path: Path,
    facts: Sequence[str],
    numeric: Mapping[str, str],
    keys: Sequence[str],
    optional: Mapping[str, str] = MappingProxyType({}),
) -> list[tuple[Facts, Arrays]]:
    """The parts of one file with the same `keys` (some of `facts`), in the file's order; none if there is no file.

    Each has its facts, as of its first sample, and its arrays by our names of the columns in `numeric`, and of those in
    `optional` that the file has.
    """
    if not path.is_file():
        return []
    try:
        names = pq.read_schema(path).names
        missing = [name for name in (*facts, *numeric.values()) if name not in names]
        if missing:
            raise CelltwinError(
                f"{path} lacks columns",
                got=", ".join(names),
                expected=f"also {', '.join(missing)}",
                fix="run the benchmark again",
            )
        numeric = {**numeric, **{ours: theirs for ours, theirs in optional.items() if theirs in names}}
        table = pq.read_table(path, columns=[*facts, *numeric.values()])
        columns = {
            ours: table[theirs].cast(pa.float64()).to_numpy(zero_copy_only=False) for ours, theirs in numeric.items()
        }
        coded = [table[name].combine_chunks().dictionary_encode().indices for name in keys]
    except (pa.ArrowException, OSError) as error:
        raise CelltwinError(
            f"cannot read {path}",
            got=" ".join(str(error).split())[:200],
            expected="the predictions of one model as parquet",
            fix="run the benchmark again, or remove the file to leave its figures out",
        ) from error
    codes = np.stack([indices.fill_null(-1).to_numpy(zero_copy_only=False) for indices in coded], axis=1)
    _, first, group = np.unique(codes, axis=0, return_index=True, return_inverse=True)
    groups = []
    for number in np.argsort(first):
        rows = np.flatnonzero(group.reshape(-1) == number)
        known = {name: table[name][int(rows[0])].as_py() for name in facts}
        groups.append((known, {name: values[rows] for name, values in columns.items()}))
    return groups


def thin(y: np.ndarray, points: int) -> np.ndarray:
    """Indices of at most `points` samples: both ends, and the least and greatest of equal buckets."""
    if y.size <= points:
        return np.arange(y.size)
    buckets = max(points // 2 - 1, 1)
    width = -(-y.size // buckets)
    padded = np.full(buckets * width, np.nan)
    padded[: y.size] = y
    padded = padded.reshape(buckets, width)
    start = np.arange(buckets) * width
    least = start + np.where(np.isnan(padded), np.inf, padded).argmin(axis=1)
    greatest = start + np.where(np.isnan(padded), -np.inf, padded).argmax(axis=1)
    chosen = np.concatenate([[0, y.size - 1], least, greatest])
    return np.unique(chosen.clip(max=y.size - 1))


def packed(values: np.ndarray) -> str:
    """Base64 of little-endian float32: half the size of decimal text, and read at once by the browser."""
    with np.errstate(over="ignore"):
        return base64.b64encode(values.astype("<f4").tobytes()).decode("ascii")


def curve(time_second: np.ndarray, y: np.ndarray, points: int, **beside: np.ndarray | None) -> dict[str, str]:
    """A thinned curve, packed; what is known `beside` it, at the same samples."""
    chosen = thin(y, points)
    others = {name: packed(values[chosen]) for name, values in beside.items() if values is not None}
    return {"x": packed(time_second[chosen] / SECONDS_PER_MINUTE), "y": packed(y[chosen])} | others


def outside(time_second: np.ndarray, in_domain: np.ndarray) -> list[list[float]]:
    """[start, end] in minutes of the stretches outside the training domain; gaps too short to see close."""
    minute = time_second / SECONDS_PER_MINUTE
    nearest = (minute[-1] - minute[0]) / 500.0
    stretches: list[list[float]] = []
    for k in np.flatnonzero(in_domain == 0.0):
        if stretches and minute[k] - stretches[-1][1] <= nearest:
            stretches[-1][1] = float(minute[k])
        else:
            stretches.append([float(minute[max(k - 1, 0)]), float(minute[k])])
    return [[round(start, 3), round(end, 3)] for start, end in stretches]


def bands_of(traces: Sequence[Any], errors: Sequence[np.ndarray]) -> dict[str, Any]:
    """The bands of all traces together, over state of charge, current and temperature."""
    error = np.concatenate(errors)
    names = ("soc", "current_ampere", "temperature_celsius")
    return {name: bands(np.concatenate([getattr(trace, name) for trace in traces]), error) for name in names}


def bands(x: np.ndarray, error: np.ndarray) -> dict[str, list[float]] | None:
    """Median and 5-95 % of `error` over equal bins of `x` (its outermost 0.05 % left out)."""
    usable = np.isfinite(x) & np.isfinite(error)
    x, error = x[usable], error[usable]
    if x.size < LEAST_IN_BIN:
        return None
    low, high = np.percentile(x, [0.05, 99.95])
    if not high > low:
        return None
    edges = np.linspace(low, high, BINS + 1)
    place = np.digitize(x, edges[1:-1])
    place[(x < low) | (x > high)] = BINS
    order = np.argsort(place, kind="stable")
    groups = np.split(error[order], np.searchsorted(place[order], np.arange(1, BINS + 1)))[:BINS]
    band: dict[str, list[float]] = {"x": [], "low": [], "median": [], "high": []}
    for centre, group in zip((edges[1:] + edges[:-1]) / 2, groups, strict=True):
        if group.size >= LEAST_IN_BIN:
            values = [centre, *np.percentile(group, [5, 50, 95])]
            for name, value in zip(band, values, strict=True):
                band[name].append(float(f"{value:.5g}"))
    return band


def _row_of(trace: Trace, rows: Iterable[Row], seed: int | None) -> Row | None:
    """The row of `metrics.json` that scored this trace, or None where it is not clear which one did."""
    unknown = math.isnan(trace.ambient_degC)
    found = [
        row
        for row in rows
        if row.cycle == trace.cycle
        and row.split == trace.split
        and row.seed == seed
        and (row.ambient_degC is None if unknown else row.ambient_degC == trace.ambient_degC)
    ]
    if len(found) > 1:
        cell = trace.label.partition("/")[0]  # of <cell>/<ambient>/<cycle>
        found = [row for row in found if row.cell == cell]
    return found[0] if len(found) == 1 else None


@dataclass(frozen=True)
class Figures:
    """What the page's figures are drawn from, and what reading the predictions showed."""

    records: list[dict[str, Any]]
    residuals: dict[str, dict[str, Any]]
    points: int  # most points a curve
    compared: int  # records whose RMSE could be held against metrics.json
    differing: list[str]  # those where the two differ


def read_figures(run: Path, metrics: Metrics) -> Figures:
    scored = {(row.split, *row.record) for model in metrics.models for row in model.rows}
    curves = max(len(scored), 1) * (3 * len(metrics.models) + 2)
    points = min(max(POINTS_IN_PAGE // curves, 200), POINTS_PER_CURVE)
    records: dict[str, dict[str, Any]] = {}
    residuals: dict[str, dict[str, Any]] = {}
    compared, differing = 0, []
    for model in metrics.ranked:
        traces = _read_predictions(run / "predictions" / f"{model.name}.parquet")
        # The predictions are those of seed 0, or of the first seed where none is 0.
        seed = 0 if 0 in model.seeds or not model.seeds else model.seeds[0]
        for trace in traces:
            row = _row_of(trace, model.rows, seed)
            if row is not None and row.rmse is not None and math.isfinite(row.rmse):
                compared += 1
                if not math.isclose(trace.rmse_millivolt, row.rmse, rel_tol=SAME_RMSE):
                    differing.append(f"{model.name} on {trace.label}")
            record = records.setdefault(
                trace.label,
                {
                    "label": trace.label,
                    "split": trace.split,
                    "ambient": None if math.isnan(trace.ambient_degC) else trace.ambient_degC,
                    "cycle": trace.cycle,
                    "measured": curve(trace.time_second, trace.measured_volt, points),
                    "current": curve(trace.time_second, trace.current_ampere, points),
                    "models": {},
                },
            )
            if row is not None:
                record["key"] = list(row.record)
            record["models"][model.name] = {
                "simulated": curve(
                    trace.time_second, trace.simulated_volt, points, low=trace.low_volt, high=trace.high_volt
                ),
                "error": curve(trace.time_second, trace.error_millivolt, points),
                "outside": outside(trace.time_second, trace.in_domain),
                "rmse": row.rmse if row is not None else None,
            }
        test = [trace for trace in traces if trace.split == "test"]
        if test:
            residuals[model.name] = bands_of(test, [trace.error_millivolt for trace in test])
    order = {"test": 0, "validate": 1}
    ordered = sorted(
        records.values(),
        key=lambda r: (order.get(r["split"], 2), or_infinity(r["ambient"]), r["cycle"], r["label"]),
    )
    return Figures(ordered, residuals, points, compared, differing)
