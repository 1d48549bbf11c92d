"""FOBSS: logs of a battery of several subunits, with the voltage of every cell and an inverter's current.

"Frequent Observations from a Battery System with Subunits" (doi:10.1145/3307772.3331020, data at
doi:10.5445/IR/1000094469) is downloaded by the user. A profile is a folder of csv files without headers, `;` between
columns, the clock of the bus in seconds in the first:

    inverter/Inverter_Current.csv                   A, positive = charge
    cells/Slave_<k>_Cell_Voltages.csv               V, a column for each cell of a subunit
    cells/Slave_<k>_Cell_Temperatures.csv           degC, a column for each sensor

This reader is written from how published scripts read these files (github.com, Energy-Theory-Guided-Data-Science,
Battery-System) and was tried on files made in that form, not on the data set itself.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from celltwin.data.record import PackRecord
from celltwin.data.sign import check_sign
from celltwin.errors import CelltwinError

MILLIVOLTS = 100.0  # a cell's voltage above this is one in mV


def load_fobss(folder: str | Path, *, ambient_degC: float = float("nan")) -> PackRecord:
    """One profile as the log of a string, its subunits in series in the order of their numbers.

    Samples are those of the first subunit's voltages; a step's current is the mean over it, so that no charge is lost.
    Raises CelltwinError where files are missing or are not tables of numbers, and where the current's sign contradicts
    the voltages.
    """
    folder = Path(folder)
    voltages, temperatures = _of_slaves(folder, "Cell_Voltages"), _of_slaves(folder, "Cell_Temperatures")
    found = sorted(folder.rglob("Inverter_Current.csv"))
    if not voltages or not found:
        raise CelltwinError(
            f"{folder} is no profile of FOBSS",
            got=f"{len(voltages)} files of cell voltages, {len(found)} of inverter current",
            expected="cells/Slave_<k>_Cell_Voltages.csv and inverter/Inverter_Current.csv",
            fix="give the folder of one profile, such as data/profile_-10A_25A_19_11_18",
        )
    clock, current = _table(found[0])[:, 0], _table(found[0])[:, 1]
    time = voltages[0][:, 0]
    time = time[(time >= clock[0]) & (time <= clock[-1])]
    if len(time) < 2:
        raise CelltwinError(f"{folder}: clocks do not overlap", got="voltages and current at other times")
    charge = np.r_[0.0, np.cumsum(current[1:] * np.diff(clock))]
    passed = np.interp(time, clock, charge)
    mean = np.diff(passed, prepend=passed[0]) / np.r_[1.0, np.diff(time)]
    mean[0] = np.interp(time[0], clock, current)
    groups = np.concatenate([_at(time, table) for table in voltages], axis=1)
    if np.nanmedian(groups) > MILLIVOLTS:
        groups = groups / 1e3
    sensors = [_at(time, table) for table in temperatures]
    sensed = np.concatenate(sensors, axis=1) if sensors else groups[:, :0]
    record = PackRecord(
        name=folder.name,
        time=time - time[0],
        voltage=groups.sum(axis=1),
        current=mean,
        temperature=sensed.mean(axis=1) if sensors else np.full(len(time), np.nan),
        ambient_degC=ambient_degC,
        source=str(folder),
        group_voltage=groups,
        sensor_temperature=sensed,
    )
    sign = check_sign(record)
    if sign.verdict == "contradiction":
        raise CelltwinError(f"{folder}: positive current does not charge", got=sign.because, expected="as documented")
    return record


def _of_slaves(folder: Path, kind: str) -> list[np.ndarray]:
    found = {}
    for path in folder.rglob(f"Slave_*_{kind}.csv"):
        match = re.fullmatch(rf"Slave_(\d+)_{kind}\.csv", path.name)
        if match:
            found[int(match[1])] = _table(path)
    return [found[number] for number in sorted(found)]


def _table(path: Path) -> np.ndarray:
    """Rows of time and values, in order of time and once for each."""
    try:
        rows = np.loadtxt(path, delimiter=";", ndmin=2)
    except ValueError as error:
        raise CelltwinError(
            f"{path} is no table of numbers", got=error, expected="columns between semicolons"
        ) from error
    if rows.shape[0] < 2 or rows.shape[1] < 2:
        raise CelltwinError(f"{path} is too small", got=rows.shape, expected="at least 2 rows of time and values")
    _, first = np.unique(rows[:, 0], return_index=True)
    return rows[first]


def _at(time: np.ndarray, table: np.ndarray) -> np.ndarray:
    return np.stack([np.interp(time, table[:, 0], column) for column in table[:, 1:].T], axis=1)
