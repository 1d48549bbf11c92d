"""The protocol: how good a twin is, on whole cycles, in closed loop, from the first sample.

The model gets the start of the record (first voltage, current and temperature, known SOC), then current, temperature
and dt alone. Errors are simulated minus measured voltage in mV. Segments: *rest* is no current (under C/50) for
30 s and more; *transient* is every sample within 10 s of a change of current by more than C/10.

A twin with bands says how far the voltage may stray (celltwin.learning.bands): `coverage` is the share of the measured
samples within, `half_width` the mean of the band's half in mV.

An estimator gets voltage, current and temperature, a sample at a time, and no state of charge. Errors are estimated
minus labelled state of charge in points, the label counted by the tester over the cell's one reference capacity.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from celltwin.adaptation import adapt, rest_of
from celltwin.data.record import SECONDS_PER_HOUR, Record
from celltwin.errors import CelltwinError
from celltwin.estimators.kalman import Innovations, Kalman
from celltwin.interface import CHUNK, POINT, estimate_records, simulate_records
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


def score_band(record: Record, band: tuple[np.ndarray, np.ndarray]) -> Row:
    """Share of the measured samples within a band, `coverage`, and its mean `half_width` in mV."""
    low, high = band
    known = np.isfinite(record.voltage)
    inside = (low <= record.voltage) & (record.voltage <= high)
    return {"coverage": float(np.mean(inside[known])), "half_width": MILLIVOLT * float(np.mean(high - low)) / 2}


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


SETTLED = 100.0  # s after waking, from which the worst sample counts
NORMAL_95 = 1.96  # standard deviations that hold 95 % of a normal distribution


def score_soc(record: Record, estimated: Any) -> Row:
    """Figures of one record in points of state of charge: errors as of `score`, and how honest the doubt is.

    `max_settled` is the worst sample later than 100 s. `coverage` is the share of samples within the stated 95 % band,
    `nees` the mean of (error / std)^2, 1 for an honest estimator, `mean_std` the mean of the stated std.
    """
    error = POINT * (np.asarray(estimated.soc, np.float64) - record.soc)
    std = POINT * np.asarray(estimated.std, np.float64)
    size = np.abs(error)
    settled = record.time - record.time[0] >= SETTLED
    return {
        "rmse": _rms(error),
        "mae": float(np.mean(size)),
        "max": float(np.max(size)),
        "p99": float(np.quantile(size, 0.99)),
        "n": len(error),
        "bias": float(np.mean(error)),
        "max_settled": float(np.max(size[settled])) if settled.any() else float("nan"),
        "coverage": float(np.mean(size <= NORMAL_95 * std)),
        "nees": float(np.mean((error / std) ** 2)),
        "mean_std": float(np.mean(std)),
    }


def evaluate(twin: Twin, records: Sequence[Record], faults: Mapping[str, float] | None = None) -> list[Row]:
    """Run a twin over whole records and score each: one row a record, its `record` and `output` arrays beside.

    A voltage model starts from the record's state of charge. An estimator starts knowing none, or what the fault
    `soc_offset` makes of it. `faults` are errors of what the twin sees (see FAULTS); it is scored against the truth.
    """
    faults = dict(faults or {})
    refuse_unknown(faults)
    for name in SAMPLINGS.keys() & faults.keys():
        records = [SAMPLINGS[name](record, faults[name]) for record in records]
    records = [twin.with_facts(record) for record in records]
    errors = {name: value for name, value in faults.items() if name in FAULTS}
    seen = [with_faults(record, errors) for record in records]
    if twin.task == "soc":
        stored = [float(np.clip(record.initial_soc, 0.0, 1.0)) for record in seen] if "soc_offset" in faults else None
        outputs: Sequence[Any] = estimate_records(twin.runner, seen, stored)
        scored = [score_soc(record, output) for record, output in zip(records, outputs, strict=True)]
    else:
        outputs = simulate_records(twin.runner, seen)
        scored = [score(record, output.voltage) for record, output in zip(records, outputs, strict=True)]
    rows = []
    for record, given, output, row in zip(records, seen, outputs, scored, strict=True):
        band = twin.band(given, output)
        inside = twin.in_domain(given, output.soc)
        rows.append(
            {"cycle": record.name, "cell": record.group, "ambient_degC": record.ambient_degC}
            | row
            | (score_band(record, band) if band else {})
            | {"out_of_domain": float(np.mean(~inside))}
            | {"record": record, "output": output, "in_domain": inside, "band": band}
        )
    return rows


def evaluate_adapted(twin: Twin, records: Sequence[Record], seconds: float) -> list[Row]:
    """As `evaluate`, each record by the twin that is adapted to its first `seconds`, and scored on the rest.

    A row says beside it what was found of the cell, and `rmse_before`, of the twin as it was on the same samples.
    """
    rows = []
    for record in records:
        adapted, found = adapt(twin, record, seconds)
        rest = rest_of(record, seconds)
        before = evaluate(twin, [rest])[0]["rmse"]
        age = {"capacity": found.capacity, "resistance": found.resistance, "soc_shift": found.soc}
        rows += [row | {"rmse_before": before} | age for row in evaluate(adapted, [rest])]
    return rows


def nis(twin: Twin, records: Sequence[Record]) -> float | None:
    """Mean normalised innovation squared of a Kalman filter over records, its start unknown; 1 is honest.

    None for an estimator that has no innovations.
    """
    if not isinstance(twin.model, Kalman):
        return None
    innovations: Any = Innovations(twin.model)
    outputs: list[Any] = list(estimate_records(innovations, [twin.with_facts(record) for record in records]))
    return float(np.mean([np.nanmean(output.squared) for output in outputs]))


ARRAYS = ("record", "output", "in_domain", "band")


def figures(row: Row) -> Row:
    """A row without its arrays: what is written as JSON."""
    return {k: v for k, v in row.items() if k not in ARRAYS}


def columns(row: Row) -> dict[str, np.ndarray]:
    """The columns that a simulation adds to its log: voltage, its band where the twin has one, and the domain."""
    band = dict(zip(("voltage_low_volt", "voltage_high_volt"), row["band"] or (), strict=False))
    return {"simulated_voltage_volt": row["output"].voltage} | band | {"in_domain": row["in_domain"]}


def overall(rows: Sequence[Row]) -> Row:
    """Figures over all rows: means over cycles, and of `max` the worst sample of all, with the mean beside it."""
    if not rows:
        return {}
    keys = [
        k for k in ("rmse", "mae", "p99", "rmse_before", "coverage", "half_width", "nees", "mean_std") if k in rows[0]
    ]
    mean = {k: float(np.mean([row[k] for row in rows])) for k in keys}
    for k in ("max", "max_settled"):
        if k in rows[0]:
            worst = [row[k] for row in rows if not np.isnan(row[k])] or [float("nan")]
            mean |= {k: float(np.max(worst)), f"mean_{k}": float(np.mean(worst))}
    return mean | {"n": sum(row["n"] for row in rows)}


LAPSES, LAPSE_SECONDS = (0.15, 0.35, 0.55, 0.75, 0.95), 60.0  # when, as shares of a record, a sensor lapses; how long


def _lapses(record: Record) -> np.ndarray:
    """True where a sensor has lapsed: [time]."""
    passed = record.time - record.time[0]
    begins = np.asarray(LAPSES)[:, None] * passed[-1]
    return ((passed >= begins) & (passed < begins + LAPSE_SECONDS)).any(axis=0)


def _stuck(record: Record, does: float) -> Record:
    """Voltage, five times for a minute, as it was when the sensor stuck; 0 where it does not."""
    stuck = _lapses(record) & (does > 0)
    last = np.maximum.accumulate(np.where(stuck, 0, np.arange(len(record))))
    return replace(record, voltage=record.voltage[last])


def _noisy(record: Record, volts: float) -> Record:
    """White noise of `volts` on the voltage, of a hundredth of 1C on the current, of 0.1 K on the temperature."""
    draw = np.random.default_rng(len(record))
    capacity = record.cell.nominal_capacity_ah if record.cell else 1.0
    noise = draw.standard_normal((3, len(record)))
    return replace(
        record,
        voltage=record.voltage + volts * noise[0],
        current=record.current + 0.01 * capacity * noise[1],
        temperature=record.temperature + 0.1 * noise[2],
    )


# What may be wrong with what a twin sees of a record. Only the seen current changes: the label stays.
FAULTS: dict[str, Callable[[Record, float], Record]] = {
    "current_offset": lambda r, x: replace(r, current=r.current + x),  # A
    "current_gain": lambda r, x: replace(r, current=r.current * (1 + x)),  # 0.02 = 2 % too much
    "temperature_offset": lambda r, x: replace(r, temperature=r.temperature + x),  # K
    "voltage_offset": lambda r, x: replace(r, voltage=r.voltage + x),  # V
    "soc_offset": lambda r, x: replace(r, initial_soc=r.initial_soc + x),  # fraction, of the stored state of charge
    "noise": _noisy,  # V
    "voltage_step": lambda r, x: replace(r, voltage=np.round(r.voltage / x) * x),  # V, of the converter
    "current_step": lambda r, x: replace(r, current=np.round(r.current / x) * x),  # A, of the converter
    "stuck": _stuck,  # 1: the voltage sensor sticks five times for 60 s
    "dropout": lambda r, x: replace(r, voltage=np.where(_lapses(r) & (x > 0), np.nan, r.voltage)),  # 1: it is silent
    # A cell of capacity (1 - x) Q at (1 - x) I goes through what the fresh one goes through at I: the faded cell.
    "fade": lambda r, x: replace(r, current=r.current * (1 - x)),  # fraction of the capacity lost
}


def _resampled(record: Record, at: np.ndarray) -> Record:
    """The record at other times, charge conserved: current is the mean over each step, the rest is interpolated."""
    soc = record.soc

    def between(column: np.ndarray) -> np.ndarray:
        return np.interp(at, record.time, column)

    charge = between(record.charge_ah)
    current = np.diff(charge, prepend=charge[0]) * SECONDS_PER_HOUR / np.diff(at, prepend=at[0] - 1.0)
    current[0] = record.current[0]
    assert record.cell is not None
    return replace(
        record,
        time=at,
        voltage=between(record.voltage),
        current=current,
        temperature=between(record.filled_temperature),
        net_capacity=between(soc) * record.cell.reference_capacity_ah,
        initial_soc=float(soc[0]),
    )


def _sampled(record: Record, seconds: float) -> Record:
    return _resampled(record, np.arange(record.time[0], record.time[-1], seconds))


def _irregular(record: Record, seconds: float) -> Record:
    """Steps drawn between a tenth of and twice `seconds`."""
    draw = np.random.default_rng(len(record))
    span = record.time[-1] - record.time[0]
    steps = draw.uniform(0.1 * seconds, 2.0 * seconds, int(3 * span / seconds))
    at = record.time[0] + np.r_[0.0, np.cumsum(steps)]
    return _resampled(record, at[at <= record.time[-1]])


# How else a record may be sampled; its truth is sampled with it.
SAMPLINGS: dict[str, Callable[[Record, float], Record]] = {
    "sampling": _sampled,  # s
    "irregular": _irregular,  # s, the mean step
}


# What the size of a fault has to be; the others may have any.
POSSIBLE: dict[str, tuple[Callable[[float], bool], str]] = {
    "current_gain": (lambda x: x > -1, "above -1, where no current is left"),
    "soc_offset": (lambda x: -1 <= x <= 1, "a fraction, from -1 to 1"),
    "noise": (lambda x: x >= 0, "a standard deviation in V, 0 or more"),
    "fade": (lambda x: 0 <= x < 1, "the fraction of the capacity that is lost, from 0 to below 1"),
    **dict.fromkeys(("stuck", "dropout"), (lambda x: x in (0, 1), "1, or 0 for none")),
    **dict.fromkeys(("voltage_step", "current_step"), (lambda x: x > 0, "V or A, above 0")),
    **dict.fromkeys(("sampling", "irregular"), (lambda x: x > 0, "seconds, above 0")),
}


def refuse_unknown(faults: Mapping[str, float]) -> None:
    """Raise CelltwinError for a fault that there is none of, or that cannot be of such a size."""
    for name, size in faults.items():
        if name not in FAULTS and name not in SAMPLINGS:
            expected = ", ".join([*FAULTS, *SAMPLINGS])
            raise CelltwinError(f"there is no fault '{name}'", expected=expected, fix="use NAME=VALUE")
        possible, expected = POSSIBLE.get(name, (math.isfinite, "a number"))
        if not (math.isfinite(size) and possible(size)):
            raise CelltwinError(f"fault '{name}' cannot be of that size", got=size, expected=expected)


def with_faults(record: Record, faults: Mapping[str, float]) -> Record:
    """The record as faulty sensors log it. Raises CelltwinError for an unknown fault."""
    refuse_unknown(faults)
    for name, value in faults.items():
        record = FAULTS[name](record, value)
    return replace(record, net_capacity=None) if faults else record


def from_fraction(record: Record, fraction: float) -> Record:
    """The record from a point inside: 0.25 leaves its first quarter of samples out. SOC there is as counted."""
    if not 0.0 <= fraction < 1.0:
        raise CelltwinError("--start is no fraction", got=fraction, expected="0 up to below 1", fix="e.g. --start 0.5")
    return record.between(int(fraction * len(record))) if fraction else record


def microseconds_per_step(twin: Twin, record: Record, repeats: int = 5) -> float:
    """Median time of one step of one simulated cell in microseconds, compiled, on this machine."""
    record = twin.with_facts(record)
    times = []
    work = estimate_records if twin.task == "soc" else simulate_records
    for _ in range(repeats + 1):  # the first run compiles
        began = time.perf_counter()
        work(twin.runner, [record])
        times.append(time.perf_counter() - began)
    steps = -(-len(record) // CHUNK) * CHUNK
    return 1e6 * float(np.median(times[1:])) / steps
