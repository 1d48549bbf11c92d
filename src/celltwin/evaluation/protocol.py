"""The protocol: how good a twin is, on whole cycles, in closed loop, from the first sample.

The model gets the start of the record (first voltage, current and temperature, known SOC), then current, temperature
and dt alone. Errors are simulated minus measured voltage in mV. Segments: *rest* is no current (under C/50) for
30 s and more; *transient* is every sample within 10 s of a change of current by more than C/10.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from celltwin.data.record import Record
from celltwin.errors import CelltwinError
from celltwin.interface import CHUNK, simulate_records
from celltwin.learning.tasks import MILLIVOLT
from celltwin.twin import Twin

REST_SECONDS, REST_RATE = 30.0, 1 / 50
TRANSIENT_SECONDS, TRANSIENT_RATE = 10.0, 1 / 10

Row = dict[str, Any]


def score(record: Record, simulated: Any) -> Row:
    """Figures of one record: rmse, mae, max, p99, bias and the segments' rmse in mV; nrmse of the measured range; r2.

    Samples without a measured voltage are left out. A figure that is not defined (no rest in the record) is NaN.
    """
    known = np.isfinite(record.voltage)
    measured = record.voltage[known]
    error = MILLIVOLT * (np.asarray(simulated, np.float64)[known] - measured)
    spread = MILLIVOLT * np.std(measured)
    span = MILLIVOLT * (measured.max() - measured.min())
    rest, transient = (segment[known] for segment in segments(record))
    rmse = _rms(error)
    return {
        "rmse": rmse,
        "mae": float(np.mean(np.abs(error))),
        "max": float(np.max(np.abs(error))),
        "p99": float(np.quantile(np.abs(error), 0.99)),
        "n": int(known.sum()),
        "bias": float(np.mean(error)),
        "nrmse": rmse / span if span > 0 else float("nan"),
        "r2": 1.0 - (rmse / spread) ** 2 if span > 0 else float("nan"),
        "rmse_transient": _rms(error[transient]),
        "rmse_rest": _rms(error[rest]),
    }


def segments(record: Record) -> tuple[np.ndarray, np.ndarray]:
    """Which samples are at rest and which in a transient: two boolean arrays [time]."""
    capacity = record.cell.nominal_capacity_ah if record.cell else float(np.max(np.abs(record.current)))
    loaded = np.abs(record.current) > REST_RATE * capacity
    stepped = np.abs(np.diff(record.current, prepend=record.current[0])) > TRANSIENT_RATE * capacity
    return _since(record.time, loaded) >= REST_SECONDS, _since(record.time, stepped) <= TRANSIENT_SECONDS


def _since(time: np.ndarray, event: np.ndarray) -> np.ndarray:
    """Seconds since the last sample with an event; infinite before the first."""
    last = np.maximum.accumulate(np.where(event, time, -np.inf))
    return time - last


def _rms(error: np.ndarray) -> float:
    return float(np.sqrt(np.mean(error**2))) if error.size else float("nan")


def evaluate(twin: Twin, records: Sequence[Record], faults: Mapping[str, float] | None = None) -> list[Row]:
    """Simulate whole records and score each: one row a record, with its `record` and `simulated` arrays beside.

    `faults` are errors of the sensors that the twin sees (see FAULTS); it is scored against the true voltage.
    """
    records = [twin.with_facts(record) for record in records]
    seen = [with_faults(record, faults or {}) for record in records]
    rows = []
    for record, given, output in zip(records, seen, simulate_records(twin.model, seen), strict=True):
        inside = twin.in_domain(given, output.soc)
        rows.append(
            {"cycle": record.name, "cell": record.group, "ambient_degC": record.ambient_degC}
            | score(record, output.voltage)
            | {"out_of_domain": float(np.mean(~inside))}
            | {"record": record, "simulated": output, "in_domain": inside}
        )
    return rows


def figures(row: Row) -> Row:
    """A row without its arrays: what is written as JSON."""
    return {k: v for k, v in row.items() if k not in ("record", "simulated", "in_domain")}


def overall(rows: Sequence[Row]) -> Row:
    """Figures over all rows: means over cycles, and of `max` the worst sample of all, with the mean beside it."""
    if not rows:
        return {}
    mean = {k: float(np.mean([row[k] for row in rows])) for k in ("rmse", "mae", "p99")}
    worst = [row["max"] for row in rows]
    return mean | {"max": float(np.max(worst)), "mean_max": float(np.mean(worst)), "n": sum(row["n"] for row in rows)}


# What may be wrong with a sensor: applied to the record that the twin sees.
FAULTS = {
    "current_offset": lambda r, x: replace(r, current=r.current + x, net_capacity=None),  # A
    "current_gain": lambda r, x: replace(r, current=r.current * (1 + x), net_capacity=None),  # 0.02 = 2 % too much
    "temperature_offset": lambda r, x: replace(r, temperature=r.temperature + x),  # K
    "voltage_offset": lambda r, x: replace(r, voltage=r.voltage + x),  # V
    "soc_offset": lambda r, x: replace(r, initial_soc=r.initial_soc + x),  # fraction
}


def with_faults(record: Record, faults: Mapping[str, float]) -> Record:
    """The record as faulty sensors log it. Raises CelltwinError for an unknown fault."""
    for name, value in faults.items():
        if name not in FAULTS:
            raise CelltwinError(f"there is no fault '{name}'", expected=", ".join(FAULTS), fix="use NAME=VALUE")
        record = FAULTS[name](record, value)
    return record


def from_fraction(record: Record, fraction: float) -> Record:
    """The record from a point inside: 0.25 leaves its first quarter of samples out. SOC there is as counted."""
    if not 0.0 <= fraction < 1.0:
        raise CelltwinError("--start is no fraction", got=fraction, expected="0 up to below 1", fix="e.g. --start 0.5")
    return record.between(int(fraction * len(record))) if fraction else record


def microseconds_per_step(twin: Twin, record: Record, repeats: int = 5) -> float:
    """Median time of one step of one simulated cell in microseconds, compiled, on this machine."""
    record = twin.with_facts(record)
    times = []
    for _ in range(repeats + 1):  # the first run compiles
        began = time.perf_counter()
        simulate_records(twin.model, [record])
        times.append(time.perf_counter() - began)
    steps = -(-len(record) // CHUNK) * CHUNK
    return 1e6 * float(np.median(times[1:])) / steps
