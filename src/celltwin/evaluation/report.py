"""One self-contained page from a run folder, and its leaderboard for the terminal.

`write` reads what a benchmark left behind (`metrics.json`, `predictions/*.parquet`, `config.json` and
`environment.json`) and nothing else, so every number on the page can be traced to the run folder. The page loads
nothing from the network: plotly.js, `report.css`, `report.js` and the data are inside it, and its content
security policy forbids the rest. Tables are plain HTML; figures are drawn in the browser from a block of JSON.

Errors of voltage are in mV, simulated minus measured. A figure per ambient temperature is the mean over its
test cycles, then over seeds; `±` is the standard deviation over seeds. Overall figures are those of the file.
"""

from __future__ import annotations

import base64
import io
import json
import math
import os
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from plotly.offline import get_plotlyjs
from pydantic import BaseModel, Field, ValidationError, model_validator
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from celltwin.errors import CelltwinError

MILLI = 1e3
SECONDS_PER_MINUTE = 60.0

POINTS_PER_CURVE = 3000  # most points that one curve of a record keeps
POINTS_IN_PAGE = 600_000  # most points of all records together, about 7 MB of base64
BINS, LEAST_IN_BIN = 30, 30  # of the residual plots; a bin with fewer samples is left out
OUT_OF_DOMAIN_WARNING = 0.01  # share of test samples
SEEDS_FOR_A_LEAD = 2.0  # a lead counts as settled above this many standard deviations over seeds
SAME_RMSE = 0.01  # relative difference between predictions and metrics.json that passes as rounding


# --- metrics.json -------------------------------------------------------------------------------------------


class CellFacts(BaseModel):
    name: str = ""
    chemistry: str = ""
    nominal_capacity_ah: float | None = None
    reference_capacity_ah: float | None = None
    voltage_limits_volt: list[float] = []


class Split(BaseModel):
    train: list[str] = []
    validate_: list[str] = Field(default=[], alias="validate")
    test: list[str] = []


class Dataset(BaseModel):
    name: str
    cell: CellFacts = CellFacts()
    licence: str = ""
    citation: str = ""
    split: Split = Split()


class Row(BaseModel):
    """One model with one seed on one cycle. Errors in mV; `out_of_domain` is a share of the samples."""

    cycle: str
    cell: str = ""
    ambient_degC: float | None = None
    split: str
    seed: int = 0
    rmse: float | None = None
    mae: float | None = None
    max: float | None = None
    p99: float | None = None
    n: int | None = None
    nrmse: float | None = None
    r2: float | None = None
    rmse_transient: float | None = None
    rmse_rest: float | None = None
    bias: float | None = None
    out_of_domain: float | None = None

    @property
    def record(self) -> tuple[str, float | None, str]:
        """What the row was scored on, whatever the model and the seed."""
        return self.cell, self.ambient_degC, self.cycle


class Overall(BaseModel):
    """Of the test split, in mV; `rmse_std` over seeds."""

    rmse: float | None = None
    rmse_std: float | None = None
    mae: float | None = None
    max: float | None = None
    p99: float | None = None


class Epoch(BaseModel):
    epoch: int
    train_rmse: float | None = None
    validate_rmse: float | None = None


class Curves(BaseModel):
    """What a model learned of the cell: over `soc`, one list per temperature."""

    soc: list[float] = []
    temperature_degC: list[float] = []
    ocv_volt: list[list[float | None]] = []
    r0_ohm: list[list[float | None]] = []
    r_total_ohm: list[list[float | None]] = []

    @model_validator(mode="after")
    def _one_list_per_temperature(self) -> Self:
        for name in ("ocv_volt", "r0_ohm", "r_total_ohm"):
            lists = getattr(self, name)
            if lists and [len(values) for values in lists] != [len(self.soc)] * len(self.temperature_degC):
                raise ValueError(f"{name} needs one list over soc for each of temperature_degC")
        return self


class ModelRun(BaseModel):
    name: str
    title: str = ""
    trained: bool = True
    parameters: int | None = None
    training_seconds: float | None = None
    microseconds_per_step: float | None = None
    seeds: list[int] = []
    twin: str | None = None
    rows: list[Row] = []
    overall: Overall = Overall()
    history: dict[str, list[Epoch]] | None = None
    curves: Curves | None = None

    @property
    def test(self) -> list[Row]:
        return [row for row in self.rows if row.split == "test"]


class Metrics(BaseModel):
    task: Literal["voltage"]
    celltwin: str
    created: str = ""
    seconds: float | None = None
    dataset: Dataset
    models: list[ModelRun]

    @property
    def ranked(self) -> list[ModelRun]:
        """Trained models, best overall RMSE first, then the baselines likewise."""
        return sorted(self.models, key=lambda model: (not model.trained, _or_infinity(model.overall.rmse)))

    @property
    def ambients(self) -> list[float | None]:
        """Of the test rows, in degC, coldest first; None (not known) last."""
        return sorted({row.ambient_degC for model in self.models for row in model.test}, key=_or_infinity)


def _check(data: object, where: str) -> Metrics:
    try:
        return Metrics.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise CelltwinError(
            f"{where} is not the result of a voltage benchmark",
            got=f"{place}: {first['msg']} ({error.error_count()} such faults)",
            expected="task, celltwin, dataset and models as `celltwin benchmark` writes them",
            fix="run the benchmark again",
        ) from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CelltwinError(
            f"cannot read {path}", got=str(error), expected="JSON in UTF-8", fix="run the benchmark again"
        ) from error


def _read_metrics(run: Path) -> Metrics:
    path = run / "metrics.json"
    if not path.is_file():
        raise CelltwinError(
            f"no metrics.json in {run}",
            got="a folder without it" if run.is_dir() else "no such folder",
            expected="the run folder of a benchmark",
            fix="give the folder that `celltwin benchmark --out DIR` wrote",
        )
    return _check(_read_json(path), str(path))


# --- aggregates and number formats --------------------------------------------------------------------------


@dataclass(frozen=True)
class Figure:
    """A mean and, where several seeds were run, its standard deviation over them."""

    mean: float | None
    spread: float | None = None


def _or_infinity(value: float | None) -> float:
    return math.inf if value is None or math.isnan(value) else value


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _mean_rmse(rows: Iterable[Row]) -> Figure:
    """Mean over cycles, then over seeds. A row without RMSE leaves none at all: failures do not hide."""
    by_seed: dict[int, list[float]] = {}
    for row in rows:
        by_seed.setdefault(row.seed, []).append(math.nan if row.rmse is None else row.rmse)
    means = [sum(values) / len(values) for values in by_seed.values()]
    if not means or any(math.isnan(mean) for mean in means):
        return Figure(None)
    mean = sum(means) / len(means)
    several = len(means) > 1 and math.isfinite(mean)
    return Figure(mean, statistics.stdev(means) if several else None)


def _at(model: ModelRun, ambient: float | None) -> Figure:
    return _mean_rmse(row for row in model.test if row.ambient_degC == ambient)


def _overall(model: ModelRun) -> Figure:
    return Figure(model.overall.rmse, model.overall.rmse_std)


def _number(value: float | None, digits: int = 1) -> str:
    if value is None or math.isnan(value):
        return "–"
    text = "∞" if math.isinf(value) else f"{abs(value):,.{digits}f}"
    return f"−{text}" if value < 0 and text.strip("0.") else text


def _degrees(ambient: float | None) -> str:
    return "ambient unknown" if ambient is None else f"{_number(ambient, 0 if ambient == round(ambient) else 1)} °C"


def _figure(figure: Figure, digits: int = 1) -> str:
    spread = f" ± {_number(figure.spread, digits)}" if figure.spread is not None else ""
    return _number(figure.mean, digits) + spread


def _label(row: Row) -> str:
    return " · ".join(part for part in (row.cell, row.cycle, _degrees(row.ambient_degC)) if part)


# --- predictions --------------------------------------------------------------------------------------------


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
_FACTS = ("record", "cycle", "ambient_degC", "split")


def _read_predictions(path: Path) -> list[Trace]:
    """The records of one file, in the file's order; none if there is no such file."""
    if not path.is_file():
        return []
    try:
        names = pq.read_schema(path).names
        missing = [name for name in (*_FACTS, *_NUMERIC.values()) if name not in names]
        if missing:
            raise CelltwinError(
                f"{path} lacks columns",
                got=", ".join(names),
                expected=f"also {', '.join(missing)}",
                fix="run the benchmark again",
            )
        table = pq.read_table(path, columns=[*_FACTS, *_NUMERIC.values()])
        columns = {
            ours: table[theirs].cast(pa.float64()).to_numpy(zero_copy_only=False) for ours, theirs in _NUMERIC.items()
        }
        labels = table["record"].cast(pa.string()).combine_chunks().dictionary_encode()
    except (pa.ArrowException, OSError) as error:
        raise CelltwinError(
            f"cannot read {path}",
            got=" ".join(str(error).split())[:200],
            expected="the predictions of one model as parquet",
            fix="run the benchmark again, or remove the file to leave its figures out",
        ) from error
    code = labels.indices.to_numpy(zero_copy_only=False)
    traces = []
    for number, label in enumerate(labels.dictionary.to_pylist()):
        rows = np.flatnonzero(code == number)
        cycle, ambient, split = (table[name][int(rows[0])].as_py() for name in _FACTS[1:])
        ambient = math.nan if ambient is None else float(ambient)
        arrays = {name: values[rows] for name, values in columns.items()}
        traces.append(Trace(label=label, cycle=str(cycle), ambient_degC=ambient, split=str(split), **arrays))
    return traces


def _thin(y: np.ndarray, points: int) -> np.ndarray:
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


def _packed(values: np.ndarray) -> str:
    """Base64 of little-endian float32: half the size of decimal text, and read at once by the browser."""
    with np.errstate(over="ignore"):
        return base64.b64encode(values.astype("<f4").tobytes()).decode("ascii")


def _curve(time_second: np.ndarray, y: np.ndarray, points: int) -> dict[str, str]:
    chosen = _thin(y, points)
    return {"x": _packed(time_second[chosen] / SECONDS_PER_MINUTE), "y": _packed(y[chosen])}


def _outside(trace: Trace) -> list[list[float]]:
    """[start, end] in minutes of the stretches outside the training domain; gaps too short to see close."""
    minute = trace.time_second / SECONDS_PER_MINUTE
    nearest = (minute[-1] - minute[0]) / 500.0
    stretches: list[list[float]] = []
    for k in np.flatnonzero(trace.in_domain == 0.0):
        if stretches and minute[k] - stretches[-1][1] <= nearest:
            stretches[-1][1] = float(minute[k])
        else:
            stretches.append([float(minute[max(k - 1, 0)]), float(minute[k])])
    return [[round(start, 3), round(end, 3)] for start, end in stretches]


def _bands(x: np.ndarray, error: np.ndarray) -> dict[str, list[float]] | None:
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
        found = [row for row in found if row.cell and trace.label.startswith(f"{row.cell}/")]
    return found[0] if len(found) == 1 else None


@dataclass(frozen=True)
class Figures:
    """What the page's figures are drawn from, and what reading the predictions showed."""

    records: list[dict[str, Any]]
    residuals: dict[str, dict[str, Any]]
    points: int  # most points a curve
    compared: int  # records whose RMSE could be held against metrics.json
    differing: list[str]  # those where the two differ


def _figures(run: Path, metrics: Metrics) -> Figures:
    scored = {(row.split, *row.record) for model in metrics.models for row in model.rows}
    curves = max(len(scored), 1) * (2 * len(metrics.models) + 2)
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
                    "measured": _curve(trace.time_second, trace.measured_volt, points),
                    "current": _curve(trace.time_second, trace.current_ampere, points),
                    "models": {},
                },
            )
            if row is not None:
                record["key"] = list(row.record)
            record["models"][model.name] = {
                "simulated": _curve(trace.time_second, trace.simulated_volt, points),
                "error": _curve(trace.time_second, trace.error_millivolt, points),
                "outside": _outside(trace),
                "rmse": row.rmse if row is not None else None,
            }
        test = [trace for trace in traces if trace.split == "test"]
        if test:
            error = np.concatenate([trace.error_millivolt for trace in test])
            residuals[model.name] = {
                name: _bands(np.concatenate([getattr(trace, name) for trace in test]), error)
                for name in ("soc", "current_ampere", "temperature_celsius")
            }
    order = {"test": 0, "validate": 1}
    ordered = sorted(
        records.values(),
        key=lambda r: (order.get(r["split"], 2), _or_infinity(r["ambient"]), r["cycle"], r["label"]),
    )
    return Figures(ordered, residuals, points, compared, differing)


# --- what the reader should think of it ---------------------------------------------------------------------

Finding = tuple[Literal["good", "warn", "bad", "note"], str]


def _findings(metrics: Metrics, figures: Figures) -> list[Finding]:
    """Why to trust the first of the leaderboard, or why not: plain text from the run folder's numbers."""
    trained = [model for model in metrics.ranked if model.trained and _finite(model.overall.rmse)]
    baselines = [model for model in metrics.ranked if not model.trained and _finite(model.overall.rmse)]
    best = next(iter(trained or baselines), None)
    findings: list[Finding] = []
    if best is not None:
        if best.trained and baselines:
            findings.append(_against_baseline(best, baselines[0]))
        if len(trained) > 1:
            findings.append(_lead(best, trained[1]))
        findings += [finding for finding in (_generalisation(best), _domain(best), _weakest(metrics, best)) if finding]
    for model in metrics.ranked:
        failed = sum(not _finite(row.rmse) for row in model.test)
        if failed or not model.test:
            found = f"{failed} of {len(model.test)} test rows have no finite RMSE" if failed else "no test rows"
            findings.append(("bad", f"{model.name}: {found}."))
    findings += _split_findings(metrics.dataset.split)
    if figures.differing:
        some = "; ".join(figures.differing[:5]) + ("; …" if len(figures.differing) > 5 else "")
        findings.append(("bad", f"The stored predictions give another RMSE than metrics.json for {some}."))
    elif figures.compared:
        findings.append(
            (
                "good",
                f"The stored predictions give the RMSE of metrics.json in all {figures.compared} cases.",
            )
        )
    return findings


def _against_baseline(best: ModelRun, baseline: ModelRun) -> Finding:
    ours, theirs = _or_infinity(best.overall.rmse), _or_infinity(baseline.overall.rmse)
    numbers = f"{baseline.name} ({_number(theirs)} mV)"
    if ours >= theirs or ours == 0.0:
        return "bad", f"No trained model beats the baseline {numbers}."
    return (
        "good",
        f"{best.name} has {_number(theirs / ours)} times less error than the best baseline, {numbers}.",
    )


def _lead(best: ModelRun, second: ModelRun) -> Finding:
    gap = _or_infinity(second.overall.rmse) - _or_infinity(best.overall.rmse)
    lead = f"The lead over {second.name} is {_number(gap, 2)} mV"
    spreads = [model.overall.rmse_std for model in (best, second) if model.overall.rmse_std is not None]
    if not spreads:
        return "warn", f"{lead}, from one seed each: how much of it is chance is not known."
    spread = math.hypot(*spreads)
    if gap > SEEDS_FOR_A_LEAD * spread:
        return "good", f"{lead}, more than twice the spread over seeds ({_number(spread, 2)} mV)."
    return "warn", f"{lead}, within twice the spread over seeds ({_number(spread, 2)} mV): not settled."


def _generalisation(best: ModelRun) -> Finding | None:
    test = _mean_rmse(best.test).mean
    validate = _mean_rmse(row for row in best.rows if row.split == "validate").mean
    if test is None or validate is None or not math.isfinite(test):
        return None
    text = f"Mean RMSE per cycle: {_number(test)} mV on test, {_number(validate)} mV on validation cycles."
    return ("good" if test <= 1.5 * validate else "warn"), text


def _domain(best: ModelRun) -> Finding | None:
    rows = [(row.out_of_domain, row.n) for row in best.test if row.out_of_domain is not None and row.n]
    if not rows:
        return None
    share = sum(out * n for out, n in rows) / sum(n for _, n in rows)
    text = f"{_number(100 * share, 2)} % of the test samples lie outside the training domain of {best.name}."
    return ("good" if share <= OUT_OF_DOMAIN_WARNING else "warn"), text


def _weakest(metrics: Metrics, best: ModelRun) -> Finding | None:
    at = [(figure.mean, ambient) for ambient in metrics.ambients if _finite((figure := _at(best, ambient)).mean)]
    if len(at) < 2:
        return None
    worst, where = max(at, key=lambda pair: _or_infinity(pair[0]))
    return "note", f"{best.name} is weakest at {_degrees(where)}: {_number(worst)} mV."


def _split_findings(split: Split) -> list[Finding]:
    if not split.test:
        return []
    seen = sorted(set(split.test) & {*split.train, *split.validate_})
    if seen:
        return [("bad", f"Test cycles that training or validation saw too: {', '.join(seen)}.")]
    return [("good", f"None of the {len(split.test)} test cycles is among those of training and validation.")]


# --- HTML ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading (units included), each item's value to sort by, and its text."""

    heading: str
    value: Callable[[Any], float | str | None]
    text: Callable[[Any], str] | None = None
    digits: int = 1
    least_is_best: bool = False


def _cell(column: Column, item: Any, best: float | None) -> str:
    value = column.value(item)
    if isinstance(value, str):
        return f"<td>{escape(value)}</td>"
    text = column.text(item) if column.text else _number(value, column.digits)
    mark = ' class="best"' if best is not None and value == best else ""
    text = re.sub(r"( ± .*)", r"<small>\1</small>", escape(text))
    return f'<td data-v="{value if _finite(value) else ""}"{mark}>{text}</td>'


def _table(
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
        values = [value for item in first if not isinstance(value := column.value(item), str) and _finite(value)]
        if column.least_is_best and len(values) > 1:
            best[column.heading] = min(value for value in values if value is not None)
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


def _swatch(metrics: Metrics, model: ModelRun) -> str:
    rank = [ranked.name for ranked in metrics.ranked].index(model.name)
    return f'<i class="swatch" data-colour="{rank}"></i>'


def _leaderboard_html(metrics: Metrics) -> str:
    def head(model: ModelRun) -> str:
        title = f"<small>{escape(model.title)}</small>" if model.title else ""
        return f'<th scope="row">{_swatch(metrics, model)}<b>{escape(model.name)}</b>{title}</th>'

    def at(ambient: float | None) -> Column:
        return Column(
            f"{_degrees(ambient)} (mV)",
            lambda model: _at(model, ambient).mean,
            lambda model: _figure(_at(model, ambient)),
            least_is_best=True,
        )

    columns = [
        Column("RMSE, all (mV)", lambda m: m.overall.rmse, lambda m: _figure(_overall(m)), least_is_best=True),
        *(at(ambient) for ambient in metrics.ambients),
        Column("Worst sample (mV)", lambda m: m.overall.max, least_is_best=True),
        Column("p99 (mV)", lambda m: m.overall.p99, least_is_best=True),
        Column("MAE (mV)", lambda m: m.overall.mae, least_is_best=True),
        Column("Parameters", lambda m: m.parameters, digits=0, least_is_best=True),
        Column("Training (s)", lambda m: m.training_seconds, least_is_best=True),
        Column("Step (µs)", lambda m: m.microseconds_per_step, digits=2, least_is_best=True),
    ]
    trained = [model for model in metrics.ranked if model.trained]
    baselines = [model for model in metrics.ranked if not model.trained]
    return _table(columns, [("", trained), ("Baselines, not trained", baselines)], heads=head, attributes='id="board"')


def _cycles_html(metrics: Metrics, records: Sequence[Mapping[str, Any]]) -> str:
    """RMSE of every model on every test cycle; a line leads to its record's figure."""
    rows = [row for model in metrics.models for row in model.test]
    keys = sorted({row.record for row in rows}, key=lambda key: (_or_infinity(key[1]), key[2], key[0]))
    several_cells = len({key[0] for key in keys}) > 1
    number_of = {tuple(record["key"]): k for k, record in enumerate(records) if "key" in record}
    body = []
    for key in keys:
        figures = [_mean_rmse(row for row in model.test if row.record == key) for model in metrics.ranked]
        least = min((_or_infinity(figure.mean) for figure in figures), default=math.inf)
        cells = []
        for figure in figures:
            best = figure.mean is not None and figure.mean == least
            # How many times the line's best, on a scale of colour from 1 to 10 times.
            heat = math.log10(figure.mean / least) if _finite(figure.mean) and figure.mean and least else 0.0
            style = f' style="--heat:{min(heat, 1.0):.2f}"'
            text = re.sub(r"( ± .*)", r"<small>\1</small>", _figure(figure))
            value = figure.mean if _finite(figure.mean) else ""
            cells.append(f'<td data-v="{value}"{style}{" class=best" if best else ""}>{text}</td>')
        cell, ambient, cycle = key
        target = f' data-record="{number_of[key]}"' if key in number_of else ""
        name = f"{cell} · {cycle}" if several_cells else cycle
        name = escape(name)
        label = f'<button class="link">{name}</button>' if target else name
        body.append(
            f'<tr{target}><th scope="row">{label}</th><td data-v="{"" if ambient is None else ambient}">'
            f"{_degrees(ambient)}</td>{''.join(cells)}</tr>"
        )
    names = "".join(
        f'<th scope="col"><button>{_swatch(metrics, model)}{escape(model.name)} (mV)</button></th>'
        for model in metrics.ranked
    )
    return (
        '<div class="scroll"><table class="sortable heat" id="cycles"><thead><tr>'
        '<th scope="col"><button>Test cycle</button></th><th scope="col"><button>Ambient</button></th>'
        f"{names}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _rows_html(metrics: Metrics) -> str:
    pairs = [(model, row) for model in metrics.ranked for row in model.rows]

    def of(heading: str, name: str, digits: int = 1) -> Column:
        return Column(heading, lambda pair: getattr(pair[1], name), digits=digits)

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
        Column(
            "Out of domain (%)",
            lambda pair: pair[1].out_of_domain,
            lambda pair: _number(None if pair[1].out_of_domain is None else 100 * pair[1].out_of_domain, 2),
        ),
        of("Samples", "n", 0),
    ]
    return _table(columns, [("", pairs)], attributes='id="rows"')


def _header_html(metrics: Metrics, environment: Any) -> str:
    dataset, cell = metrics.dataset, metrics.dataset.cell
    limits = " – ".join(f"{_number(limit, 2)}" for limit in cell.voltage_limits_volt)
    python = environment.get("python") if isinstance(environment, dict) else None
    minutes = None if metrics.seconds is None else metrics.seconds / SECONDS_PER_MINUTE
    facts = {
        "Cell": ", ".join(part for part in (cell.name, cell.chemistry) if part),
        "Capacity": _capacity(cell),
        "Voltage limits": f"{limits} V" if limits else "",
        "Run": metrics.created.replace("T", " ").replace("Z", " UTC"),
        "Took": "" if minutes is None else f"{_number(minutes)} min",
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
        f'<header><p class="kicker">Voltage benchmark</p><h1>{escape(dataset.name)}</h1><dl>{listed}</dl>'
        "<p>Every score is closed loop: from a known initial state of charge a model simulates the voltage from "
        "current and temperature alone, never seeing the measured voltage on the way, over the whole cycle from "
        f"its first sample. Data are split by whole cycle, never by window.{counts} Error is simulated minus "
        "measured.</p></header>"
    )


def _capacity(cell: CellFacts) -> str:
    parts = [("nominal", cell.nominal_capacity_ah), ("reference", cell.reference_capacity_ah)]
    return ", ".join(f"{_number(value, 3)} Ah {name}" for name, value in parts if value is not None)


def _verdict_html(metrics: Metrics, findings: Sequence[Finding]) -> str:
    best = next((model for model in metrics.ranked if _finite(model.overall.rmse)), None)
    if best is None:
        tiles = '<div class="tile"><span>Best model</span><b>none with a finite RMSE</b></div>'
    else:
        cycles = len({row.record for row in best.test})
        parameters = f"{_number(best.parameters, 0)} parameters" if best.parameters is not None else ""
        seeds = f"{len(best.seeds)} seed{'s' if len(best.seeds) != 1 else ''}" if best.seeds else ""
        tiles = "".join(
            f'<div class="tile"><span>{name}</span><b>{escape(value)}</b><small>{escape(note)}</small></div>'
            for name, value, note in (
                ("Best model", best.name, best.title),
                (
                    "RMSE, test",
                    f"{_figure(_overall(best))} mV",
                    f"{cycles} cycles at {len(metrics.ambients)} ambients",
                ),
                (
                    "Worst sample",
                    f"{_number(best.overall.max)} mV",
                    f"99 % within {_number(best.overall.p99)} mV",
                ),
                (
                    "Cost",
                    f"{_number(best.microseconds_per_step, 2)} µs a step",
                    ", ".join(part for part in (parameters, seeds) if part),
                ),
            )
        )
    listed = "".join(f'<li class="{level}">{escape(text)}</li>' for level, text in findings)
    return (
        f'<section id="verdict"><div class="tiles">{tiles}</div><h2>Can it be trusted?</h2><ul>{listed}</ul></section>'
    )


def _split_html(split: Split) -> str:
    parts = (("Train", split.train), ("Validate", split.validate_), ("Test", split.test))
    return "".join(f"<h3>{name}</h3><p>{escape(', '.join(cycles) or '–')}</p>" for name, cycles in parts)


def _folded(title: str, content: Any) -> str:
    if content is None:
        return f'<p class="muted">{title} is not in the run folder.</p>'
    text = json.dumps(content, indent=2, ensure_ascii=False)
    return f"<details><summary>{title}</summary><pre>{escape(text)}</pre></details>"


def _figure_html(name: str, present: bool, absent: str, controls: str = "") -> str:
    if not present:
        return f'<p class="muted">{absent}</p>'
    return f'{controls}<div class="figure" id="{name}-figure"></div>'


def _safe(value: Any) -> Any:
    """The same without NaN and infinity, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_safe(item) for item in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None


def _page(metrics: Metrics, figures: Figures, config: Any, environment: Any) -> str:
    here = Path(__file__)
    ranked = metrics.ranked
    histories = {
        m.name: {s: [e.model_dump() for e in h] for s, h in m.history.items() if h} for m in ranked if m.history
    }
    curves = {m.name: m.curves.model_dump() for m in ranked if m.curves and m.curves.soc}
    data = {
        "models": [{"name": m.name, "trained": m.trained, "scored": _finite(m.overall.rmse)} for m in ranked],
        "records": figures.records,
        "residuals": figures.residuals,
        "history": histories,
        "curves": curves,
    }
    # `<` never occurs in the block, so no text in it can end the script element.
    block = json.dumps(_safe(data), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    dataset = metrics.dataset
    absent = "The run folder holds no predictions, so there is nothing to draw here."
    choose_record = (
        '<div class="controls"><label>Record <select id="record"></select></label>'
        '<button id="previous" aria-label="previous record">‹</button>'
        '<button id="next" aria-label="next record">›</button>'
        '<span class="muted">Click a name in the legend to show or hide a model; drag to zoom, double-click to '
        f"return. At most {_number(figures.points, 0)} points a curve, extremes kept.</span></div>"
    )
    choose_model = '<div class="controls"><label>Band of <select id="residual-model"></select></label></div>'
    choose_curves = '<div class="controls"><label>Model <select id="curve-model"></select></label></div>'
    sections = [
        (
            "leaderboard",
            "Leaderboard",
            "RMSE on the test cycles, overall and as the mean over the cycles of each ambient temperature; ± is the "
            "standard deviation over seeds. The best of the trained models is marked in each column.",
            _leaderboard_html(metrics),
        ),
        (
            "per-cycle",
            "Cycle by cycle",
            "RMSE per test cycle, mean over seeds. Colour: how many times the best of the line, full at ten "
            "times. A cycle's name opens its curves.",
            _cycles_html(metrics, figures.records),
        ),
        (
            "simulated",
            "Measured and simulated",
            "",
            _figure_html("record", bool(figures.records), absent, choose_record),
        ),
        (
            "residuals",
            "Where the error is",
            "Error of all test samples in bins of state of charge, current (positive on charge) and "
            "temperature: medians of every model, and the 5–95 % band of one.",
            _figure_html("residual", bool(figures.residuals), absent, choose_model),
        ),
        (
            "learned",
            "What the models learned of the cell",
            "Open-circuit voltage and resistance per temperature, as the trained model holds them.",
            _figure_html("curve", bool(curves), "No model in this run holds curves of the cell.", choose_curves),
        ),
        (
            "training",
            "Training",
            "RMSE per epoch: validation solid, training dotted, one line a seed.",
            _figure_html("history", bool(histories), "No training history in this run."),
        ),
        (
            "all-rows",
            "All rows",
            "",
            '<div class="controls"><label>Filter <input id="filter" type="search" '
            'placeholder="model, cycle, split"></label></div>' + _rows_html(metrics),
        ),
        (
            "details",
            "Split, settings and source",
            "",
            f"{_split_html(dataset.split)}"
            f"{_folded('config.json', config)}{_folded('environment.json', environment)}"
            f"<h3>Citation of the data</h3><p>{escape(dataset.citation) or '–'}</p>"
            f"<h3>Licence of the data</h3><p>{escape(dataset.licence) or '–'}</p>",
        ),
    ]
    links = "".join(f'<a href="#{name}">{title}</a>' for name, title, _, _ in sections)
    body = "".join(
        f'<section id="{name}"><h2>{title}</h2>{f"<p>{text}</p>" if text else ""}{content}</section>'
        for name, title, text, content in sections
    )
    # A plotly.js of another version might hold the end tag in a string.
    plotly = get_plotlyjs().replace("</script", "<\\/script")
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(dataset.name)} · celltwin</title>"
        f"<style>{here.with_suffix('.css').read_text(encoding='utf-8')}</style></head><body>"
        f"<nav>{links}</nav><main>{_header_html(metrics, environment)}"
        f"{_verdict_html(metrics, _findings(metrics, figures))}{body}</main>"
        f'<script type="application/json" id="data">{block}</script>'
        f"<script>{plotly}</script>"
        f"<script>{here.with_suffix('.js').read_text(encoding='utf-8')}</script></body></html>"
    )


def write(run: Path, out: Path | None = None) -> Path:
    """Write the page of the run folder `run` to `out` (default: `report.html` in it); returns its path.

    The file appears whole or not at all. `config.json`, `environment.json` and the predictions may be missing:
    the page says so in their place.

    Raises:
        CelltwinError: `metrics.json` is missing, or a file of the run folder is not what it should be.
    """
    run = Path(run)
    out = run / "report.html" if out is None else Path(out)
    metrics = _read_metrics(run)
    config, environment = (
        _read_json(path) if (path := run / name).is_file() else None for name in ("config.json", "environment.json")
    )
    _replace(out, _page(metrics, _figures(run, metrics), config, environment))
    return out


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


# --- terminal -----------------------------------------------------------------------------------------------


def _brief(figure: Figure) -> str:
    digits = 0 if _or_infinity(figure.mean) >= 1000.0 else 1
    return _figure(figure, digits).replace(" ± ", " ±")


def leaderboard(metrics: dict[str, Any]) -> Table:
    """The leaderboard of a loaded `metrics.json` as a table for the terminal, errors in mV.

    Trained models first, best overall RMSE on top, baselines apart. Fits in 110 columns with up to six
    ambient temperatures and names of up to 12 letters.

    Raises:
        CelltwinError: `metrics` is not the content of a voltage benchmark's `metrics.json`.
    """
    checked = _check(metrics, "metrics")
    ambients = checked.ambients
    table = Table(
        title=Text(f"{checked.dataset.name}: RMSE in mV on the test cycles, closed loop"),
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
        header_style="bold",
        title_justify="left",
    )
    table.add_column("Model", no_wrap=True)
    headings = ["Params", *(_degrees(ambient) for ambient in ambients), "All", "Worst", "Train s", "µs/step"]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    trained = [model for model in checked.ranked if model.trained]
    columns: list[Callable[[ModelRun], tuple[float | None, str]]] = [
        lambda m: (m.parameters, _number(m.parameters, 0)),
        *((lambda m, at=ambient: (_at(m, at).mean, _brief(Figure(_at(m, at).mean)))) for ambient in ambients),
        lambda m: (m.overall.rmse, _brief(_overall(m))),
        lambda m: (m.overall.max, _number(m.overall.max, 0)),
        lambda m: (m.training_seconds, _number(m.training_seconds, 0)),
        lambda m: (m.microseconds_per_step, _number(m.microseconds_per_step, 2)),
    ]
    least = [min((_or_infinity(column(model)[0]) for model in trained), default=math.inf) for column in columns]
    for model in checked.ranked:
        cells = [Text(model.name, style="bold" if model is checked.ranked[0] else "" if model.trained else "dim")]
        for column, best in zip(columns, least, strict=True):
            value, text = column(model)
            mark = model.trained and len(trained) > 1 and value == best and math.isfinite(best)
            cells.append(Text(text, style="bold green" if mark else "" if model.trained else "dim"))
        table.add_row(*cells, end_section=model is (trained[-1] if trained else None))
    return table


def leaderboard_svg(metrics: dict[str, Any], path: Path) -> None:
    """Write the terminal leaderboard as a picture that loads no font or anything else from outside.

    Raises:
        CelltwinError: as `leaderboard`.
    """
    table = leaderboard(metrics)
    width = Console(width=1000, file=io.StringIO()).measure(table).maximum
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(table)
    picture = console.export_svg(title="celltwin benchmark", unique_id="celltwin")
    _replace(Path(path), re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL))
