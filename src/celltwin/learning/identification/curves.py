"""Capacity, state of charge and open-circuit voltage of identification logs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.interpolate import PchipInterpolator

from celltwin.data.record import Cell, Record
from celltwin.errors import CelltwinError
from celltwin.learning.identification.segments import REST, Segment, capacity_estimate, segments
from celltwin.physics.tables import MERGE

REFERENCE = 25.0  # degC, where the capacity is read if a slow discharge was measured there
RESTED = 900.0  # s: a rest this long gives a point of the open-circuit curve
NEAR_FULL = 0.15  # V: a log that starts this close to the highest voltage starts full
TAPERED = 0.1  # of capacity per hour: a charge at the highest voltage that ends below this current ends full
UNSEEN = 0.3  # share of the charge span: a larger jump of the counter in a gap is a charge that was not logged
LONG = 300.0  # s, of such a gap
AMISS = 0.05  # relative difference of two capacities that is worth a note
BESIDE = 0.03  # V: rests that lie further beside the slow discharge began at another charge ...
NEAR = 10.0  # K ... where both were measured at one temperature
APART = 0.03  # states of charge closer than this share a level
ENDS = (0.02, 0.05)  # of charge, at the lower and upper end: over which the slope is taken that goes on beyond them


@dataclass(frozen=True)
class SlowCurve:
    """Voltage of a quasi-static discharge or charge over state of charge."""

    label: str
    temperature: float  # degC, mean
    current: float  # A, positive = charge
    soc: np.ndarray  # increasing
    voltage: np.ndarray  # V
    charge_ah: float


@dataclass(frozen=True)
class Rest:
    """A relaxed voltage."""

    label: str
    temperature: float  # degC, mean
    ambient: float
    soc: float
    voltage: float  # V, of the last samples
    duration: float  # s
    drift: float  # V, by how much the voltage still moved in the second half of the rest


def describe(records: Sequence[Record], cell: Cell | None) -> tuple[Cell, list[Record], list[str]]:
    """The cell and its records, each with ambient and initial state of charge, and notes on what was inferred.

    What a dataset says is kept. Without one, the capacity is that of the slow discharge nearest 25 degC, else the
    largest discharge; a record starts full where its first voltage is near the highest and its rests do not say
    otherwise, counts from full where its counter says so, passes full where a charge at the highest voltage tapers
    off, else starts where its rested voltages lie on the slow discharge.
    """
    notes: list[str] = []
    records = [_with_ambient(_first_pass(_without_dead_samples(record, notes), notes), notes) for record in records]
    if cell is None:
        cell = _cell(records, notes)
        full = min(cell.voltage_limits_volt[1], max(_highest_at_rest(r, cell.reference_capacity_ah) for r in records))
    else:
        full = cell.voltage_limits_volt[1]
    known = [replace(r, cell=cell) for r in records]
    placed = [r if np.isfinite(r.initial_soc) else _anchored(r, cell, full) for r in known]
    curves = [c for r in placed if np.isfinite(r.initial_soc) for c in slow_curves(r)]
    slow = [c for c in curves if c.current < 0]
    for k, (given, record) in enumerate(zip(known, placed, strict=True)):
        if not np.isfinite(given.initial_soc) and record.initial_soc == 1.0:
            placed[k] = _less_than_full(record, curves, notes)
    for curve in slow:
        passed, told = -curve.charge_ah, cell.reference_capacity_ah
        if (
            abs(passed - told) > AMISS * told
            and curve.soc[-1] > 1.0 - AMISS
            and abs(curve.temperature - REFERENCE) < 10.0
        ):
            notes.append(
                f"{curve.label}: a slow discharge from full passes {passed:.4g} Ah, the capacity is {told:.4g} Ah"
            )
    return cell, [r if np.isfinite(r.initial_soc) else _matched(r, curves) for r in placed], notes


def _highest_at_rest(record: Record, capacity_ah: float) -> float:
    """The highest voltage that no charge raised, in V; minus infinity where there is none."""
    voltage = record.voltage[record.current < REST * capacity_ah]
    return float(np.nanmax(voltage)) if np.isfinite(voltage).any() else -np.inf


def _less_than_full(record: Record, slow: Sequence[SlowCurve], notes: list[str]) -> Record:
    """A log that was taken to start full, started where its rests lie on the slow discharge if they do nowhere else."""
    found, near = rests(record), [c for c in slow if abs(c.temperature - record.ambient_degC) < NEAR]
    if len(found) < 3 or not any(c.current < 0 for c in near):
        return record
    start, beside, least = _best_start(record, found, near)
    if start > 1.0 - APART or beside < BESIDE or least > beside / 3.0:
        return record
    notes.append(
        f"{record.label} starts at {100 * start:.1f} %: if full, as its first voltage is near the highest, its rests "
        f"would lie {1e3 * beside:.0f} mV beside the slow discharge, so {1e3 * least:.0f} mV"
    )
    return replace(record, initial_soc=start)


def _without_dead_samples(record: Record, notes: list[str]) -> Record:
    """Voltages far below anything a cell shows are a sensor that was off."""
    typical = np.nanmedian(record.voltage)
    dead = record.voltage < max(0.3 * typical, 0.5)
    if not dead.any():
        return record
    notes.append(f"{record.label}: {np.count_nonzero(dead)} voltages near zero ignored (sensor off)")
    return replace(record, voltage=np.where(dead, np.nan, record.voltage))


def _first_pass(record: Record, notes: list[str]) -> Record:
    """What comes before a charge that the log does not show: how far that charge went is unknown."""
    if record.net_capacity is None:
        return record
    gained = np.diff(record.net_capacity, prepend=record.net_capacity[0])
    jumps = np.flatnonzero((gained > UNSEEN * np.ptp(record.net_capacity)) & (record.dt > LONG))
    if not len(jumps) or jumps[0] < 3:
        return record
    share = 100.0 * (1.0 - jumps[0] / len(record))
    notes.append(f"{record.label}: {share:.0f} % of the log, after a charge that it does not show, left out")
    return record.between(0, int(jumps[0]))


def _with_ambient(record: Record, notes: list[str]) -> Record:
    if np.isfinite(record.ambient_degC):
        return record
    if np.isfinite(record.temperature).any():
        return replace(record, ambient_degC=float(np.round(np.nanmedian(record.temperature))))
    notes.append(f"{record.label}: no temperature known, {REFERENCE:g} degC assumed (--ambient says otherwise)")
    return replace(record, ambient_degC=REFERENCE)


def _cell(records: Sequence[Record], notes: list[str]) -> Cell:
    """What the logs themselves tell about the cell."""
    guess = capacity_estimate(records)
    shown = np.concatenate([r.voltage[np.isfinite(r.voltage)] for r in records])
    low, high = (float(shown.min()), float(shown.max())) if shown.size else (np.nan, np.nan)
    if not (high > low and guess > 0.0):
        raise CelltwinError(
            "the logs hold nothing but rest" if guess == 0.0 else "the logs hold no voltage that moves",
            got=f"{low:.4g} to {high:.4g} V, {1000.0 * guess:.3g} mAh passed",
            expected="pulses, steps or discharges, with rests between them",
            fix="give the logs of an HPPC, GITT or drive test",
        )
    best: tuple[bool, float, float, str] | None = None
    for record in records:
        for segment in segments(record, guess):
            if segment.charge_ah > -0.5 * guess or segment.kind not in ("slow", "step"):
                continue
            # Slow before fast, then near the reference temperature.
            rank = (segment.kind != "slow", abs(record.ambient_degC - REFERENCE), -segment.charge_ah, record.label)
            best = rank if best is None or rank < best else best
    if best is not None:
        capacity, where = best[2], f"{'slow ' if not best[0] else ''}discharge of {best[3]}"
    else:
        capacity, where = guess, "the largest charge passed in any log"
    notes.append(f"capacity {capacity:.4g} Ah: {where}")
    if guess > (1.0 + 2.0 * AMISS) * capacity:
        notes.append(f"but a log passes {guess:.4g} Ah: if that is no charge and discharge together, name the capacity")
    return Cell("cell", capacity, (low, high), capacity)


def _anchored(record: Record, cell: Cell, full: float) -> Record:
    """The initial state of charge where the log itself shows a cell that is full (`full` V); NaN where it does not."""
    capacity, high = cell.reference_capacity_ah, cell.voltage_limits_volt[1]
    counter = record.charge_ah if record.net_capacity is None else record.net_capacity - record.net_capacity[0]
    first = record.net_capacity[0] if record.net_capacity is not None else 0.0
    counts = record.net_capacity is not None and -capacity < first < -0.002 * capacity
    if counts and record.net_capacity is not None and record.net_capacity.max() < 0.02 * capacity:
        return replace(record, initial_soc=1.0 + float(first) / capacity)
    voltage = record.voltage[np.isfinite(record.voltage)][0]
    if voltage > full - NEAR_FULL and record.current[0] < REST * capacity:
        return replace(record, initial_soc=1.0)
    # A charge that is held at the highest voltage until its current has tapered off ends full.
    top = (record.voltage > high - 0.01) & (record.current > 0) & (record.current < TAPERED * capacity)
    ends = top & np.r_[record.current[1:] < REST * capacity, True]
    if ends.any():
        return replace(record, initial_soc=1.0 - float(counter[np.flatnonzero(ends)[0]]) / capacity)
    return record


def _matched(record: Record, slow: Sequence[SlowCurve]) -> Record:
    """The initial state of charge that puts the rests onto the slow discharge of the nearest temperature."""
    found = rests(replace(record, initial_soc=0.0))
    if not any(c.current < 0 for c in slow) or not found:
        raise CelltwinError(
            f"where record '{record.label}' starts is unknown",
            got=f"first voltage {record.voltage[0]:.3f} V, {len(found)} rests, {len(slow)} slow discharges",
            expected="a log that starts full, charges to full, or rests and a slow discharge of the same cell",
            fix="add a slow discharge (C/10 or slower), or describe the records' initial_soc in a dataset.toml",
        )
    return replace(record, initial_soc=_best_start(replace(record, initial_soc=0.0), found, slow)[0])


def _best_start(record: Record, found: Sequence[Rest], slow: Sequence[SlowCurve]) -> tuple[float, float, float]:
    """Where a record starts that puts its rests onto the slow discharge of the nearest temperature, or halfway to the
    charge of the same log; the median distance (V) of the rests from it, as the record is and so."""
    curve = min((c for c in slow if c.current < 0), key=lambda c: abs(c.temperature - record.ambient_degC))
    back = next((charge for discharge, charge in cycles(slow) if discharge is curve), None)
    if back is not None:
        curve = replace(curve, voltage=0.5 * (curve.voltage + np.interp(curve.soc, back.soc, back.voltage)))
    seen, relative = np.array([r.voltage for r in found]), np.array([r.soc for r in found]) - record.initial_soc

    def misfit(start: float) -> float:
        return float(np.median(np.abs(seen - np.interp(start + relative, curve.soc, curve.voltage))))

    grid = np.linspace(0.0, 1.3, 521)
    best = float(min(grid, key=misfit))
    return best, misfit(record.initial_soc), misfit(best)


def cycles(slow: Sequence[SlowCurve]) -> list[tuple[SlowCurve, SlowCurve]]:
    """Slow discharges, each with a charge of the same log that passes all the states of charge that it passes."""
    return [
        (discharge, charge)
        for discharge in slow
        for charge in slow
        if discharge.label == charge.label
        and discharge.charge_ah < 0 < charge.charge_ah
        and charge.soc[-1] > discharge.soc[-1] - APART
        and charge.soc[0] < discharge.soc[0] + APART
    ]


def slow_curves(record: Record) -> list[SlowCurve]:
    """The quasi-static discharges and charges of a record."""
    assert record.cell is not None
    found: list[SlowCurve] = []
    for segment in segments(record, record.cell.reference_capacity_ah):
        if segment.kind != "slow":
            continue
        inside = slice(segment.start, segment.stop)
        soc, voltage = record.soc[inside], record.voltage[inside]
        known = np.isfinite(voltage)
        soc, index = np.unique(soc[known], return_index=True)
        temperature = float(np.mean(record.filled_temperature[inside]))
        found.append(
            SlowCurve(record.label, temperature, segment.current, soc, voltage[known][index], segment.charge_ah)
        )
    return found


def rests(record: Record, least: float = RESTED) -> list[Rest]:
    """Relaxed voltages of a record: rests of at least `least` s, and its first sample if that is at rest."""
    assert record.cell is not None
    found: list[Rest] = []
    for segment in segments(record, record.cell.reference_capacity_ah):
        if segment.kind != "rest" or (segment.duration < least and segment.start > 0):
            continue
        point = _relaxed(record, segment)
        if point is not None:
            found.append(point)
    return found


def _relaxed(record: Record, segment: Segment) -> Rest | None:
    inside = slice(segment.start, segment.stop)
    time, voltage = record.time[inside], record.voltage[inside]
    known = np.isfinite(voltage)
    if not known.any():
        return None
    time, voltage = time[known], voltage[known]
    late = voltage[time >= time[-1] - 0.05 * (time[-1] - time[0])]
    half = np.interp(0.5 * (time[0] + time[-1]), time, voltage)
    temperature = float(np.mean(record.filled_temperature[inside][-3:]))
    soc = float(record.soc[segment.stop - 1])
    drift = float(late.mean() - half)
    return Rest(record.label, temperature, record.ambient_degC, soc, float(late.mean()), segment.duration, drift)


def open_circuit(
    points: Sequence[Rest], slow: Sequence[SlowCurve], temperatures: Sequence[float], grid: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Open-circuit voltage [grid, temperatures] in V: relaxed voltages, between them shaped as the slow discharge.

    Also the levels, the states of charge of the rests merged over temperatures, and how far the relaxed voltage may be
    trusted at each, [levels, temperatures] in V. Without a slow curve a monotone cubic joins the rests; a temperature
    that has neither takes its neighbour's curve.
    """
    levels = merged(np.array([p.soc for p in points]), APART) if points else np.array([0.0, 1.0])
    voltage = np.full((len(grid), len(temperatures)), np.nan)
    trust = np.full((len(levels), len(temperatures)), 0.02)
    for column, temperature in enumerate(temperatures):
        here = [p for p in points if abs(p.ambient - temperature) < MERGE]
        discharges = [c for c in slow if c.current < 0] or list(slow)
        shape = min(discharges, key=lambda c: abs(c.temperature - temperature)) if discharges else None
        if here:
            soc, relaxed, drift = (
                np.array(x) for x in zip(*sorted((p.soc, p.voltage, p.drift) for p in here), strict=True)
            )
            soc, where = np.unique(np.round(soc, 3), return_inverse=True)
            count = np.bincount(where)
            relaxed, drift = (np.bincount(where, x) / count for x in (relaxed, drift))
            voltage[:, column] = _joined(grid, soc, relaxed, shape)
            trust[:, column] = 1e-3 + np.interp(levels, soc, np.abs(drift))
        elif shape is not None:
            voltage[:, column] = _smoothed(grid, shape.soc, shape.voltage)
    known = np.flatnonzero(np.isfinite(voltage).all(axis=0))
    if not len(known):
        raise CelltwinError(
            "no open-circuit voltage in these logs",
            got="no rest of 15 min or more, and no slow discharge",
            expected="one of them at least",
            fix="add the HPPC or GITT log with its rests, or a discharge at C/10 or slower",
        )
    for column in range(len(temperatures)):
        if column not in known:
            voltage[:, column] = voltage[:, known[np.argmin(np.abs(known - column))]]
    seen = np.concatenate([[p.soc for p in points], *([c.soc[0], c.soc[-1]] for c in slow)])
    return _going_on(grid, voltage, min(0.0, seen.min()), max(1.0, seen.max())), levels, trust


def _going_on(grid: np.ndarray, voltage: np.ndarray, low: float, high: float) -> np.ndarray:
    """Curves [grid, temperatures] in V that go on straight below the charge `low` and above `high`.

    So a discharge that goes on, or a voltage that is held, comes to its end as that of a cell does.
    """
    curves = []
    for curve in voltage.T:
        ends = np.interp([low, low + ENDS[0], high - ENDS[1], high], grid, curve)
        below, above = max(ends[1] - ends[0], 0.0) / ENDS[0], max(ends[3] - ends[2], 0.0) / ENDS[1]
        curve = np.where(grid < low, ends[0] + below * (grid - low), curve)
        curves.append(np.where(grid > high, ends[3] + above * (grid - high), curve))
    return np.stack(curves, axis=1)


def _joined(grid: np.ndarray, soc: np.ndarray, relaxed: np.ndarray, shape: SlowCurve | None) -> np.ndarray:
    if shape is not None:
        curve = _smoothed(grid, shape.soc, shape.voltage)
        return curve + np.interp(grid, soc, relaxed - np.interp(soc, grid, curve))
    if len(soc) == 1:
        return np.full(len(grid), relaxed[0])
    inside = PchipInterpolator(soc, relaxed)(np.clip(grid, soc[0], soc[-1]))
    low, high = np.diff(relaxed)[[0, -1]] / np.diff(soc)[[0, -1]]
    return inside + low * np.minimum(grid - soc[0], 0.0) + high * np.maximum(grid - soc[-1], 0.0)


def _smoothed(grid: np.ndarray, soc: np.ndarray, voltage: np.ndarray) -> np.ndarray:
    """The curve at `grid`: a straight line through the samples of half a spacing to either side, held beyond its ends.

    Single noisy samples would tilt the curve between neighbouring nodes, where a pulse moves the charge.
    """
    found = np.interp(grid, soc, voltage)
    gaps = np.diff(grid)
    reach = 0.5 * np.maximum(np.r_[gaps, gaps[-1]], np.r_[gaps[0], gaps])
    for k, (at, wide) in enumerate(zip(grid, reach, strict=True)):
        near = np.abs(soc - at) <= wide
        if np.count_nonzero(near) > 3 and np.ptp(soc[near]) > 0:
            found[k] = np.polynomial.Polynomial.fit(soc[near] - at, voltage[near], 1)(0.0)
    return found


def merged(values: np.ndarray, apart: float) -> np.ndarray:
    """Values that lie closer than `apart` replaced by their mean, increasing."""
    groups: list[list[float]] = []
    for value in np.sort(values).tolist():
        if groups and value - groups[-1][0] < apart:
            groups[-1].append(value)
        else:
            groups.append([value])
    return np.array([float(np.mean(group)) for group in groups])
