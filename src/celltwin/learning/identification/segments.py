"""What happens in a log: rests, pulses, steps and slow discharges, found by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from scipy.ndimage import median_filter

from celltwin.data.record import SECONDS_PER_HOUR, Record

REST = 0.01  # of capacity per hour: less current than this is a rest
STEADY = 0.03  # relative change of the current between samples that still counts as constant
PULSE = 120.0  # s: a constant current no longer than this is a pulse
SLOW = 0.12  # of capacity per hour: a constant current below this gives a quasi-open-circuit curve ...
SLOW_SHARE = 0.5  # ... where it moves at least this share of the capacity
PAUSE = 120.0  # s: a slow discharge goes on after a shorter interruption
ALIKE = 0.1  # relative difference of a slow current's samples that is its noise ...
STEADY_SHARE = 0.9  # ... where this share of them is no further apart
CHARGED = 0.15  # share of the capacity that a charge must bring to end a run: more than a step of GITT or HPPC
UNLOGGED = 0.02  # share of the capacity that a counter must have moved in a gap for the log not to go on
SETTLED = 600.0  # s of rest after which the RC pairs of a new run are taken as discharged


@dataclass(frozen=True)
class Segment:
    """Samples `start` to before `stop` of a record, at rest, at constant current or neither."""

    kind: str  # "rest", "pulse", "step", "slow" or "varying"
    start: int
    stop: int
    duration: float  # s
    current: float  # A, mean, positive = charge
    charge_ah: float


def capacity_estimate(records: Sequence[Record]) -> float:
    """A first guess of the capacity in Ah: the largest span of charge in any record."""
    return max(float(np.ptp(_counter(record))) for record in records)


def _counter(record: Record) -> np.ndarray:
    return record.charge_ah if record.net_capacity is None else record.net_capacity


def _slow_stretches(record: Record, capacity_ah: float) -> list[tuple[int, int]]:
    """Samples from and to before which one slow current moves a good share of the capacity.

    Noise of the sensor, and pauses and samples that stray for less than PAUSE, do not end it.
    """
    current, time = record.current, record.time
    smooth = median_filter(current, 5, mode="nearest")
    size = np.abs(smooth)
    sign = np.where((size > REST * capacity_ah) & (size < SLOW * capacity_ah), np.sign(smooth), 0.0)
    edges = np.r_[0, np.flatnonzero(np.diff(sign)) + 1, len(record)].tolist()
    joined: list[tuple[int, int]] = []
    for start, stop in pairwise(edges):
        if not sign[start]:
            continue
        level = np.median(current[start:stop])
        if joined and time[start - 1] - time[joined[-1][1] - 1] < PAUSE:
            before = np.median(current[slice(*joined[-1])])
            if abs(level - before) < ALIKE * abs(before):
                start = joined.pop()[0]
        joined.append((start, stop))
    found: list[tuple[int, int]] = []
    for start, stop in joined:
        level = np.median(current[start:stop])
        close = np.flatnonzero(np.abs(current[start:stop] - level) < ALIKE * abs(level))
        if not len(close):
            continue
        start, stop = start + int(close[0]), start + int(close[-1]) + 1
        charge = float(np.sum((current * record.dt)[start + 1 : stop])) / SECONDS_PER_HOUR
        if len(close) > STEADY_SHARE * (stop - start) and abs(charge) > SLOW_SHARE * capacity_ah:
            found.append((start, stop))
    return found


def segments(record: Record, capacity_ah: float) -> list[Segment]:
    """The record cut wherever the current changes, in order and without gaps between them."""
    current, rest = record.current, np.abs(record.current) < REST * capacity_ah
    size = np.maximum(np.abs(current[1:]), np.abs(current[:-1]))
    moved = np.abs(np.diff(current)) > np.maximum(STEADY * size, 0.5 * REST * capacity_ah)
    cut = (rest[1:] != rest[:-1]) | (~rest[1:] & moved)
    for start, stop in _slow_stretches(record, capacity_ah):
        rest[start:stop], cut[start : stop - 1] = False, False
        cut[[k for k in (start - 1, stop - 1) if 0 <= k < len(cut)]] = True
    edges = np.r_[0, np.flatnonzero(cut) + 1, len(record)]
    found: list[Segment] = []
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        duration = float(np.sum(record.dt[max(start, 1) : stop]))
        charge = float(np.sum((current * record.dt)[max(start, 1) : stop])) / SECONDS_PER_HOUR
        mean = float(np.mean(current[start:stop]))
        kind = "rest" if rest[start] else "varying" if stop - start < 3 else "step"
        if kind == "step" and duration <= PULSE:
            kind = "pulse"
        elif kind == "step" and abs(mean) < SLOW * capacity_ah and abs(charge) > SLOW_SHARE * capacity_ah:
            kind = "slow"
        if kind == "varying" and found and found[-1].kind == "varying":
            last = found.pop()
            start, duration, charge = last.start, duration + last.duration, charge + last.charge_ah
            mean = float(np.mean(current[start:stop]))
        found.append(Segment(kind, start, stop, duration, mean, charge))
    return found


def runs(record: Record, capacity_ah: float) -> list[Record]:
    """Stretches that start rested and hold no gap, no slow discharge and no charge worth the name.

    What a circuit is identified from: each can be simulated from its first sample with RC pairs at zero. The first
    sample after a gap, where it is under load, is taken to have begun one sampling period before.
    """
    gaps = _gaps(record, capacity_ah)
    parts: list[tuple[int, int]] = []
    begin: int | None = 0
    last_rest = 0
    pieces: list[Segment] = []
    for segment in segments(record, capacity_ah):  # a gap may lie inside a rest or a step
        inside = sorted(g for g in gaps if segment.start < g < segment.stop)
        bounds = [segment.start, *inside, segment.stop]
        pieces += [replace(segment, start=a, stop=b) for a, b in pairwise(bounds)]
    for piece in pieces:
        charged = _charge_of(record, piece) > CHARGED * capacity_ah
        if piece.start in gaps or charged or piece.kind == "slow":
            if begin is not None and piece.start - begin > 2:
                parts.append((begin, piece.start))
            begin = piece.start if piece.start in gaps and not charged and piece.kind != "slow" else None
        if piece.kind == "rest":
            last_rest = piece.stop - 1
            if begin is None and _length(record, piece) >= SETTLED:
                begin = last_rest
    if begin is not None and len(record) - begin > 2:
        parts.append((begin, len(record)))
    return [_lead_in(record.between(a, b), capacity_ah) for a, b in parts if _worth(record, a, b, capacity_ah)]


def _gaps(record: Record, capacity_ah: float) -> set[int]:
    """Samples that follow a gap: by their distance, or because the tester counted charge that the log does not show."""
    found = set(record.gaps.tolist())
    if record.net_capacity is not None:
        unseen = (
            np.diff(record.net_capacity, prepend=record.net_capacity[0]) - record.current * record.dt / SECONDS_PER_HOUR
        )
        found |= set(np.flatnonzero((np.abs(unseen) > UNLOGGED * capacity_ah) & (record.dt > 30.0)).tolist())
    return found


def _length(record: Record, piece: Segment) -> float:
    return float(record.time[piece.stop - 1] - record.time[piece.start])


def _charge_of(record: Record, piece: Segment) -> float:
    inside = slice(piece.start + 1, piece.stop)
    return float(np.sum((record.current * record.dt)[inside])) / SECONDS_PER_HOUR


def _worth(record: Record, start: int, stop: int, capacity_ah: float) -> bool:
    return bool((np.abs(record.current[start:stop]) > REST * capacity_ah).any()) and stop - start > 3


def _lead_in(run: Record, capacity_ah: float) -> Record:
    """Put a sample before a run that begins under load, one period earlier, with its voltage unknown."""
    if abs(run.current[0]) < REST * capacity_ah or len(run) < 3:
        return run
    period = float(run.dt[1])
    columns = {
        "time": np.r_[run.time[0] - period, run.time],
        "voltage": np.r_[np.nan, run.voltage],
        "current": np.r_[0.0, run.current],
        "temperature": np.r_[run.temperature[0], run.temperature],
    }
    if run.net_capacity is not None:
        before = run.net_capacity[0] - run.current[0] * period / SECONDS_PER_HOUR
        columns["net_capacity"] = np.r_[before, run.net_capacity]
    soc = float("nan")
    if run.cell is not None:
        soc = run.initial_soc - run.current[0] * period / (SECONDS_PER_HOUR * run.cell.reference_capacity_ah)
    return replace(run, **columns, initial_soc=soc)


def thinned(record: Record, capacity_ah: float, ratio: float = 1.3, longest: float = 120.0) -> Record:
    """The samples that tell most: both sides of every change of the current, then ever sparser.

    A sample that stands for others has the voltage of a straight line through them: their noise is averaged.
    Current becomes the mean over the step that ends at the kept sample, so charge is conserved; for a current that is
    constant between changes a circuit simulates the same voltages at the kept samples.
    """
    change = np.abs(np.diff(record.current)) > 0.5 * REST * capacity_ah
    edges = np.r_[0, np.flatnonzero(change) + 1]
    since = (
        record.time - record.time[np.maximum(edges - 1, 0)][np.searchsorted(edges, np.arange(len(record)), "right") - 1]
    )
    slot = np.floor(np.log(np.maximum(since, 0.05) / 0.05) / np.log(ratio))
    slot += np.floor(record.time / longest) * 1e3 * (since > longest)  # in the long run at even distances
    alone = np.zeros(len(record), bool)
    alone[edges], alone[np.maximum(edges - 1, 0)], alone[-1] = True, True, True
    start = np.flatnonzero(np.r_[True, np.diff(slot) != 0] | alone | np.r_[False, alone[:-1]])
    stop = np.r_[start[1:], len(record)]
    index = (start + stop - 1) // 2
    charge = np.cumsum(record.current * record.dt)
    time = record.time[index]
    current = np.r_[record.current[0], np.diff(charge[index]) / np.diff(time)]
    columns = {"time": time, "current": current, "voltage": _averaged(record, start, stop, index)}
    columns["temperature"] = record.temperature[index]
    if record.net_capacity is not None:
        columns["net_capacity"] = record.net_capacity[index]
    return replace(record, **columns)


def _averaged(record: Record, start: np.ndarray, stop: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Voltage at the samples `index`, by a straight line through those from `start` to before `stop` of each."""
    known = np.isfinite(record.voltage)
    since = record.time - np.repeat(record.time[index], stop - start)

    def total(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(np.where(known, values, 0.0), start)

    count, voltage = total(np.ones(len(record))), total(record.voltage)
    first, second, moment = total(since), total(since**2), total(since * record.voltage)
    spread = count * second - first**2
    enough = (count > 2) & (spread > 1e-9 * count * second)
    line = (second * voltage - first * moment) / np.where(enough, spread, 1.0)
    return np.where(enough, line, record.voltage[index])
