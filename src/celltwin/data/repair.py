"""Rows put right: repeated and backward times, unknown values, counters that start again. Every change is
noted.
"""

from __future__ import annotations

from bisect import bisect_left

import numpy as np

from celltwin.data.record import SECONDS_PER_HOUR, Cell, PackRecord, Record, longest_step
from celltwin.data.sheets import count
from celltwin.data.sign import counter_ratio
from celltwin.errors import CelltwinError

Rows = dict[str, np.ndarray]  # by role; the first axis is the sample

COUNTERS = ("net_charge", "counter", "charged", "discharged")
MAX_LOST = 0.1  # share of rows that may be dropped for running backward; beyond, the file is no single log
MIN_VOLT, MAX_VOLT = -0.5, 10.0  # of one cell; an ammeter's shunt may pull a disconnected one below zero
MAX_AMPERE, MAX_AMPERE_STRING = 1e3, 1e4


def take(rows: Rows, keep: np.ndarray) -> Rows:
    return {role: column[keep] for role, column in rows.items()}


def drop_unknown(rows: Rows, notes: list[str]) -> Rows:
    """Rows without a time or a current say nothing; a missing voltage stays as NaN."""
    known = np.isfinite(rows["time"]) & np.isfinite(rows["current"])
    if not known.all():
        notes.append(f"dropped {count(np.count_nonzero(~known), 'row')} without a time or a current")
    unmeasured = np.count_nonzero(~np.isfinite(rows["voltage"][known]))
    if unmeasured:
        notes.append(f"kept {count(unmeasured, 'row')} without a voltage")
    return take(rows, known)


def in_order(rows: Rows, notes: list[str], name: str) -> Rows:
    """Rows with strictly increasing time: the first of repeated ones, and the longest increasing run of the
    rest.

    Raises CelltwinError for a file whose time starts again, as two logs in one file or a clock of single
    steps do.
    """
    rows = _distinct(rows, notes)
    time = rows["time"]
    backward = np.flatnonzero(np.diff(time) < 0)
    if len(backward) == 0:
        return rows
    run = longest_increasing(time)
    lost = len(time) - len(run)
    if lost <= max(1, MAX_LOST * len(time)):
        notes.append(f"dropped {count(lost, 'row')} whose time runs backward")
        return take(rows, run)
    if len(backward) > 0.5 * MAX_LOST * len(time):  # not a few parts but rows out of order
        notes.append(f"sorted the rows by time, which ran backward {len(backward)} times")
        return _distinct(take(rows, np.argsort(time, kind="stable")), notes)
    at = backward[0]
    raise CelltwinError(
        f"{name}: time starts again {count(len(backward), 'time')}",
        got=f"{time[at]:g} s then {time[at + 1]:g} s",
        expected="one log with increasing test time",
        fix="save each part as a file of its own, or export the total test time",
    )


def _distinct(rows: Rows, notes: list[str]) -> Rows:
    # Of two rows at one instant the first still belongs to the step that ends there.
    new = np.diff(rows["time"], prepend=-np.inf) != 0
    if not new.all():
        notes.append(f"dropped {count(np.count_nonzero(~new), 'row')} with a repeated time")
    return take(rows, new)


def longest_increasing(values: np.ndarray) -> np.ndarray:
    """Indices of a longest strictly increasing subsequence, in O(n log n): one wild time costs one row, not
    the rest.
    """
    ends: list[float] = []  # smallest last value of a run of each length
    owner: list[int] = []  # and where it stands
    before = np.full(len(values), -1)
    for index, value in enumerate(values.tolist()):
        length = bisect_left(ends, value)
        before[index] = owner[length - 1] if length else -1
        ends[length : length + 1] = [value]
        owner[length : length + 1] = [index]
    run = [owner[-1]]
    while before[run[-1]] >= 0:
        run.append(int(before[run[-1]]))
    return np.array(run[::-1])


def paused(rows: Rows, notes: list[str]) -> Rows:
    """Rows with a rest put into each gap through which the current after it cannot have flowed: held through the gap,
    it would pass more charge than all the rest of the log. For logs without a counter, which would tell.
    """
    dt = np.diff(rows["time"], prepend=rows["time"][0])
    typical = float(np.median(dt[1:]))
    gap = dt > longest_step(dt[1:])
    moved = rows["current"] * dt
    span = float(np.ptp(np.cumsum(np.where(gap, 0.0, moved))))
    at = np.flatnonzero(gap & (np.abs(moved) > span) & (span > 0.0))
    if not len(at):
        return rows
    held = float(np.abs(moved[at]).max()) / SECONDS_PER_HOUR
    notes.append(
        f"took {count(len(at), 'gap')} for rest: the current after it, held through it, would be {held:.3g} Ah, "
        f"more than the {span / SECONDS_PER_HOUR:.3g} Ah of the log"
    )
    rested: Rows = {}
    for role, column in rows.items():
        blank = rows["time"][at] - typical if role == "time" else 0.0 if role == "current" else np.nan
        rested[role] = np.insert(
            np.asarray(column, float), at, np.reshape(blank, (-1, *[1] * (column.ndim - 1))), axis=0
        )
    return rested


def net_counter(rows: Rows, *, signed: bool, notes: list[str]) -> np.ndarray | None:
    """The tester's Ah counter as one line over the whole log, positive for charge, or None.

    A counter that each step sets to zero is joined up. One that counts charge and discharge alike upward
    (`signed` is False for formats that do not say) gets its direction from the current.
    """
    dt = np.diff(rows["time"])
    moved = np.abs(rows["current"][1:]) * dt / SECONDS_PER_HOUR
    # Over a long pause nobody knows what passed: a counter that starts again there is left as it stands.
    moved[dt > longest_step(dt)] = np.inf
    lines = {
        role: _joined(_whole(rows[role]), moved, notes)
        for role in COUNTERS
        if role in rows and 2 * np.count_nonzero(np.isfinite(rows[role])) > len(dt)
    }
    if all(np.ptp(line) == 0.0 for line in lines.values()) and rows["current"].any():
        if lines:
            notes.append("left out the Ah counter, which stands still")
        return None
    if "net_charge" in lines:
        return lines["net_charge"]
    if "charged" in lines and "discharged" in lines:
        charged, discharged = lines["charged"], lines["discharged"]
        return charged - discharged * (1.0 if discharged[-1] >= discharged[0] else -1.0)
    line = lines.get("counter")
    if line is None or signed or (np.diff(line) < 0).any() or not (rows["current"] < 0).any():
        return line
    notes.append("the Ah counter counts upward both ways: gave it the direction of the current")
    return np.cumsum(np.diff(line, prepend=line[0]) * np.sign(rows["current"]))


def _whole(counter: np.ndarray) -> np.ndarray:
    known = np.isfinite(counter)
    return counter if known.all() else np.interp(np.arange(len(counter)), np.flatnonzero(known), counter[known])


def _joined(counter: np.ndarray, moved: np.ndarray, notes: list[str]) -> np.ndarray:
    """Add to a counter what it had counted before it was set to zero. `moved` is the Ah of the step that
    ends.
    """
    jump = np.abs(np.diff(counter))
    resolution = jump[jump > 0].min() if (jump > 0).any() else 0.0
    slack = max(3.0 * resolution, 1e-3 * np.abs(counter).max()) + 1.5 * moved
    resets = np.flatnonzero((jump > slack) & (np.abs(counter[1:]) <= slack)) + 1
    if len(resets) == 0:
        return counter
    notes.append(f"joined the Ah counter where it was set to zero ({count(len(resets), 'time')})")
    offset = np.zeros(len(counter))
    offset[resets] = counter[resets - 1]
    return counter + np.cumsum(offset)


def check_plausible(record: Record, cell: Cell | None) -> None:
    """Raise CelltwinError where a column must be in another unit than it says."""
    name = record.name
    voltages = record.group_voltage if isinstance(record, PackRecord) else record.voltage
    known = voltages[np.isfinite(voltages)]
    if known.size == 0:
        raise CelltwinError(
            f"{name}: no voltage was measured",
            got="NaN everywhere",
            expected="voltages in V",
            fix="check the column, or name another with --column voltage=HEADER",
        )
    if known.min() < MIN_VOLT or known.max() > MAX_VOLT or known.max() < 0.1:
        raise CelltwinError(
            f"{name}: voltage is not that of one cell",
            got=f"{known.min():.4g} to {known.max():.4g} V",
            expected="0 to 10 V",
            fix="correct the unit in the header, for example 'Voltage (mV)', or tell it: "
            "--column voltage='HEADER [mV]'; a string of cells needs columns "
            "'Cell Voltage 1', 'Cell Voltage 2', ...",
        )
    largest = float(np.abs(record.current).max())
    most = (
        100.0 * cell.nominal_capacity_ah
        if cell
        else MAX_AMPERE_STRING
        if isinstance(record, PackRecord)
        else MAX_AMPERE
    )
    least = 0.002 * cell.nominal_capacity_ah if cell and np.ptp(known) > 0.3 else 0.0
    if not (least < largest <= most) and largest > 0.0:
        raise _wrong_unit(name, "current", f"up to {largest:.4g} A", f"{least:g} to {most:g} A", "Current (mA)")
    ratio, clear = counter_ratio(record)
    if clear and not 0.02 < abs(ratio) < 50.0:
        raise _wrong_unit(
            name,
            "current, time or Ah counter",
            f"the counter moves {ratio:.4g} Ah per Ah of current",
            "near 1",
            "Current (mA)",
        )


def _wrong_unit(name: str, what: str, got: str, expected: str, example: str) -> CelltwinError:
    return CelltwinError(
        f"{name}: {what} must be in another unit",
        got=got,
        expected=expected,
        fix=f"correct the unit in the header, for example '{example}'",
    )


def plausible_voltage(voltage: np.ndarray, notes: list[str]) -> np.ndarray:
    """Cell voltages in V with a few glitches, at most 1 %, as NaN; more are left for `check_plausible` to
    refuse.
    """
    wild = np.isfinite(voltage) & ((voltage < MIN_VOLT) | (voltage > MAX_VOLT))
    if not 0 < np.count_nonzero(wild) <= 0.01 * voltage.size:
        return voltage
    notes.append(f"blanked {count(np.count_nonzero(wild), 'voltage')} outside 0 to {MAX_VOLT:g} V")
    return np.where(wild, np.nan, voltage)


def plausible_temperature(temperature: np.ndarray, notes: list[str], name: str) -> np.ndarray:
    """Temperatures in degC with those of a broken sensor as NaN; refuses kelvin that is called degC."""
    known = temperature[np.isfinite(temperature)]
    if len(known) and 200.0 < np.median(known) < 400.0:
        raise _wrong_unit(
            name, "temperature", f"about {np.median(known):.4g} degC", "-80 to 200 degC", "Temperature (K)"
        )
    wild = np.isfinite(temperature) & ((temperature < -80.0) | (temperature > 200.0))
    if wild.any():
        notes.append(f"blanked {count(np.count_nonzero(wild), 'temperature')} outside -80 to 200 degC")
    return np.where(wild, np.nan, temperature)
