"""Any log to a checked Record: seconds, volts, amperes, degC, and current positive on charge.

`load` finds out the format, reads the columns, puts the rows right and refuses what it cannot trust: an
unknown unit, a second log in the same file, a current whose sign contradicts the voltage. What it changed is
in `Record.notes`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from celltwin.data import repair
from celltwin.data.columns import (
    BOTH_WAYS,
    UNNAMED,
    Column,
    Told,
    any_match,
    check_told,
    numbers,
    of_both_ways,
    recognise,
    seconds,
    split_header,
)
from celltwin.data.record import Cell, PackRecord, Record
from celltwin.data.sheets import (
    Sheet,
    decode,
    find_header,
    read_cycler,
    read_frame,
    read_matlab,
    read_parquet,
    read_text,
)
from celltwin.data.sign import SignVerdict, check_sign, counter_ratio
from celltwin.errors import CelltwinError

__all__ = [
    "FORMATS",
    "Format",
    "SignVerdict",
    "ambient_from_path",
    "check_sign",
    "from_frame",
    "load",
    "load_ocv_table",
]

LEAST_CELL_VOLTAGE = 1.0  # V; a table that stays below is one of hysteresis

Chosen = tuple[tuple[str, Column], ...]  # role and column of all that is read of a sheet


@dataclass(frozen=True)
class Format:
    """One kind of file: how to tell it by its path and first bytes, and how to read it."""

    name: str
    recognises: Callable[[Path, bytes], bool]
    read: Callable[[Path, Told], Sheet]
    signed: bool = False  # documents that current and Ah counter are negative on discharge


# Bitrode leaves the header out when a program is continued.
_BITRODE_ROW = re.compile(rb"(No|Yes),[\d.]+(,\d+){5},[\d.]+(,-?[\d.]+){5},[A-Z]+,")
_BITRODE_HEADER = [
    "Exclude",
    "Time(s)",
    "Cycle",
    "Loop",
    "Loop",
    "Loop",
    "Step",
    "StepTime(s)",
    "Current(A)",
    "Voltage(V)",
    "Power(W)",
    "Capacity(Ah)",
    "Energy(Wh)",
    "Mode",
    "Data",
    "",
]
_CYCLER_SUFFIXES = {".nda", ".ndax", ".mpr", ".xlsx", ".xls"}

# In order of recognition; the last reads any text.
FORMATS: dict[str, Format] = {
    fmt.name: fmt
    for fmt in (
        Format("parquet", lambda path, head: head[:4] == b"PAR1" or path.suffix == ".parquet", read_parquet),
        Format("matlab", lambda path, head: head[:6] == b"MATLAB" or path.suffix == ".mat", read_matlab),
        Format("digatron", lambda path, head: b"Measurement ID" in head and b"Prog Time" in head, read_text, True),
        Format(
            "bitrode-no-header",
            lambda path, head: _BITRODE_ROW.match(head) is not None,
            lambda path, told: read_text(path, told, _BITRODE_HEADER),
            True,
        ),
        Format(
            "bitrode",
            lambda path, head: head.startswith(b"Exclude,") or b"Data Acquisition Flag" in head,
            read_text,
            True,
        ),
        Format("cycler", lambda path, head: path.suffix.lower() in _CYCLER_SUFFIXES, read_cycler, True),
        Format("bdf", lambda path, head: b"test_time_second" in head or b"Test Time / s" in head, read_text, True),
        Format("csv", lambda path, head: True, read_text),
    )
}


class WrongSign(CelltwinError):
    """A log whose voltage says that its current has the other sign."""


@dataclass(frozen=True)
class Examined:
    """A log as it was read, and what its reader made of the file."""

    record: Record | PackRecord
    format: str  # a key of FORMATS
    columns: Chosen
    unused: tuple[str, ...]  # headers of the others


def load(
    path: str | Path,
    *,
    format: str | None = None,
    current_sign: str | None = None,
    columns: Told = None,
    cell: Cell | None = None,
    ambient_degC: float | None = None,
    name: str | None = None,
) -> Record | PackRecord:
    """Read a log of one cell, or of one string with a column of voltage for each group (then a PackRecord).

    `format` is a key of FORMATS and found out if None. `current_sign` says what positive current does in the
    file: "charge", "discharge" (it is then turned) or None, what the format documents; it is checked against
    the voltage in any case. `columns` names columns that cannot be recognised, {"voltage": "Vbat [mV]"}, as they
    stand in the file (or several, of which a file has one), with a unit where it gives none. `cell` sharpens the
    unit checks. `ambient_degC` is by default read from the folder's name ("n10degC"), else from a chamber column;
    `name` is by default the file's. Raises CelltwinError for whatever cannot be trusted.
    """
    return examine(
        path,
        format=format,
        current_sign=current_sign,
        columns=columns,
        cell=cell,
        ambient_degC=ambient_degC,
        name=name,
    ).record


def examine(
    path: str | Path,
    *,
    format: str | None = None,
    current_sign: str | None = None,
    columns: Told = None,
    cell: Cell | None = None,
    ambient_degC: float | None = None,
    name: str | None = None,
) -> Examined:
    """As `load`, and which columns of the file were taken for what."""
    path = Path(path)
    _refuse_unknown(current_sign, columns)
    fmt = _format(path, format)
    try:
        sheet = fmt.read(path, columns)
    except CelltwinError as error:
        _refuse_ocv_table(path, fmt)
        if path.suffix.lower() not in {".mpt", ".txt", ".dat"}:
            raise
        try:
            sheet = read_cycler(path, columns)
        except CelltwinError:
            raise error from None
    name = name or path.name.removesuffix(path.suffix).removesuffix(".bdf")
    signed = fmt.signed or path.suffix == ".parquet"
    chosen = _chosen(sheet, columns)
    record = _record(sheet, chosen, path, signed, current_sign, cell, ambient_degC, name)
    taken = {column.index for _, column in chosen}
    unused = tuple(header for at, header in enumerate(sheet.headers) if at not in taken and header.strip())
    return Examined(record, fmt.name, chosen, unused)


def from_frame(
    frame: Any,
    *,
    current_sign: str | None = None,
    columns: Told = None,
    cell: Cell | None = None,
    ambient_degC: float | None = None,
    name: str = "frame",
) -> Record | PackRecord:
    """The log in a table of pandas, polars, Arrow, or whatever else has Arrow's stream interface.

    Columns are recognised by their names as those of a file are, and the log is checked in the same way; see `load`
    for the options. The way back: `record.table().to_pandas()`, `polars.DataFrame(record)`.
    """
    _refuse_unknown(current_sign, columns)
    sheet = read_frame(frame, name, columns)
    return _record(sheet, _chosen(sheet, columns), Path(name), True, current_sign, cell, ambient_degC, name)


def _refuse_unknown(current_sign: str | None, columns: Told) -> None:
    check_told(columns)
    if current_sign not in (None, "charge", "discharge"):
        raise CelltwinError("unknown current_sign", got=current_sign, expected="charge or discharge")


def refuse_missing(path: Path) -> None:
    """Raises CelltwinError where there is no file to read."""
    if path.is_dir():
        raise CelltwinError(
            f"{path}: is a folder", expected="the path of a log", fix="name its files, or give it a dataset.toml"
        )
    if not path.is_file():
        raise CelltwinError(
            f"{path}: no such file", got="nothing to read", expected="the path of a log", fix="check the path"
        )


def _format(path: Path, wanted: str | None) -> Format:
    refuse_missing(path)
    with path.open("rb") as file:
        head = file.read(1 << 16)
    if not head.strip():
        raise CelltwinError(f"{path.name}: is empty", got="0 bytes", expected="a log", fix="export or copy it again")
    if wanted is None:
        return next(fmt for fmt in FORMATS.values() if fmt.recognises(path, head))
    if wanted not in FORMATS:
        raise CelltwinError(
            "unknown format", got=wanted, expected=", ".join(FORMATS), fix="leave it out to find it out"
        )
    return FORMATS[wanted]


def _record(
    sheet: Sheet,
    chosen: Chosen,
    path: Path,
    signed: bool,
    current_sign: str | None,
    cell: Cell | None,
    ambient_degC: float | None,
    name: str,
) -> Record:
    rows, notes = _rows(sheet, chosen)
    notes += sheet.notes
    rows = repair.drop_unknown(rows, notes)
    if not signed and current_sign is None:
        rows["current"] = _signed_by_mode(rows, notes)
    rows.pop("mode", None)
    if len(rows["time"]):
        rows = repair.in_order(rows, notes, path.name)
    if len(rows["time"]) < 2:
        raise CelltwinError(
            f"{path.name}: too few rows",
            got=_count_and_notes(len(rows["time"]), notes),
            expected="at least 2 samples",
            fix="export the measured rows as well",
        )
    if current_sign == "discharge":
        rows["current"] = -rows["current"]
        notes.append("turned the sign of the current")
    counter = repair.net_counter(rows, signed=signed, notes=notes)
    if counter is None:
        rows = repair.paused(rows, notes)
    columns: dict[str, Any] = {
        "name": name,
        "time": rows["time"],
        "current": rows["current"],
        "net_capacity": counter,
        "ambient_degC": _ambient(path, rows, ambient_degC),
        "cell": cell,
        "source": str(path),
    }
    if "group" in rows:
        record = _pack(rows, notes, columns)
    else:
        temperature = rows.get("temperature", np.full(len(rows["time"]), np.nan))
        record = Record(
            voltage=repair.plausible_voltage(rows["voltage"], notes),
            temperature=repair.plausible_temperature(temperature, notes, name),
            **columns,
        )
    repair.check_plausible(record, cell)
    return _checked_sign(replace(record, notes=tuple(notes)), current_sign)


def _count_and_notes(n: int, notes: list[str]) -> str:
    return "; ".join([f"{n} usable rows", *notes])


ROLES = ("time", "voltage", "current", "charging", "discharging", "temperature", "ambient", *repair.COUNTERS)


def _chosen(sheet: Sheet, told: Told) -> Chosen:
    """Role and column of all that is read of a sheet: one of each role, but every cell group and sensor."""
    found = recognise(sheet.headers, sheet.units, told)
    found["time"] = found.get("time") or found.get("step_time") or []
    if found.get("current"):
        found = {role: columns for role, columns in found.items() if role not in BOTH_WAYS}
    groups = found.get("group", [])
    sensors = found.get("sensor", []) if len(groups) > 1 else []
    sensors = [column for column in sensors if "sensor" in column.header.lower()] or sensors
    chosen = [(role, found[role][0]) for role in (*ROLES, "mode") if found.get(role)]
    chosen += [("group", column) for column in (groups if len(groups) > 1 else [])]
    return (*chosen, *(("sensor", column) for column in sensors))


def _rows(sheet: Sheet, chosen: Chosen) -> tuple[repair.Rows, list[str]]:
    """Columns of a sheet by role in s, V, A, Ah and degC, and what had to be assumed."""
    groups, sensors, mode = ([c for role, c in chosen if role == which] for which in ("group", "sensor", "mode"))
    best = {role: column for role, column in chosen if role not in ("group", "sensor", "mode")}
    wanted = sorted({column.index for _, column in chosen})
    cells = dict(zip(wanted, sheet.cells(wanted), strict=True))

    def read(column: Column) -> np.ndarray:
        return numbers(cells[column.index]) * column.factor + column.offset

    assumed = [
        f"{role} in {unit}"
        for role, unit in (("time", "s"), ("voltage", "V"), ("current", "A"), ("temperature", "degC"))
        if (column := best.get(role)) and not column.unit and _numeric(cells[column.index])
    ]
    notes = [f"took {', '.join(assumed)}, as no unit is given"] if assumed else []
    notes += [
        f"took '{column.header}' for the {role}, as the only column of such a unit"
        for role, column in best.items()
        if column.rank == UNNAMED
    ]
    rows = {role: read(column) for role, column in best.items() if role != "time"}
    rows["time"] = seconds(cells[best["time"].index], best["time"].factor)
    if rows.keys() >= BOTH_WAYS:
        rows["current"] = of_both_ways(rows.pop("charging"), rows.pop("discharging"))
        notes.append(f"took '{best['charging'].header}' less '{best['discharging'].header}' for the current")
    if len(groups) > 1:
        rows["group"] = np.column_stack([read(column) for column in groups])
        rows["sensor"] = np.column_stack([read(column) for column in sensors]) if sensors else rows["group"][:, :0]
    if mode:
        rows["mode"] = np.asarray(cells[mode[0].index].cast(pa.string()).to_pylist(), dtype=object)
    return rows, notes


def _numeric(cells: pa.Array) -> bool:
    """Whether a column holds plain numbers, whose unit matters; clock times speak for themselves."""
    return not pa.types.is_temporal(cells.type) and not (pa.types.is_string(cells.type) and any_match(cells, ":"))


def _signed_by_mode(rows: repair.Rows, notes: list[str]) -> np.ndarray:
    """Current with the sign of the mode column, where the file logs its size alone."""
    current = rows["current"]
    if "mode" not in rows or (current < 0).any():
        return current
    words = [str(word).upper().replace(" ", "").replace("_", "") for word in rows["mode"]]
    discharging = np.array([re.search(r"DCH|DISCH|^D$|放电", word) is not None for word in words], bool)
    if not (current[discharging] > 0).any():
        return current
    notes.append(f"gave the current its sign by the mode column ({np.count_nonzero(discharging)} rows of discharge)")
    return np.where(discharging, -current, current)


def _pack(rows: repair.Rows, notes: list[str], columns: dict[str, Any]) -> PackRecord:
    groups, sensors = rows["group"], rows["sensor"]
    total, string = np.nanmedian(groups.sum(axis=1)), np.nanmedian(rows["voltage"])
    if abs(total - string) > 0.05 * abs(string):
        raise CelltwinError(
            f"{columns['name']}: the groups do not add up to the string",
            got=f"{groups.shape[1]} groups of {total:.4g} V together, string of {string:.4g} V",
            expected="a difference of a few percent",
            fix="check the units and that a column is there for each group",
        )
    sensors = repair.plausible_temperature(sensors, notes, columns["name"])
    known = np.isfinite(sensors).sum(axis=1)
    mean = np.where(known > 0, np.nansum(sensors, axis=1) / np.maximum(known, 1), np.nan)
    return PackRecord(
        voltage=rows["voltage"],
        temperature=mean,
        group_voltage=repair.plausible_voltage(groups, notes),
        sensor_temperature=sensors,
        **columns,
    )


SAY_DISCHARGE = 'say --current-sign discharge (current_sign = "discharge" under [records] of a dataset.toml)'


def _checked_sign(record: Record, current_sign: str | None) -> Record:
    """The record with its counter along its current; raises CelltwinError where voltage contradicts it."""
    ratio, clear = counter_ratio(record)
    if clear and ratio < 0 and record.net_capacity is not None:
        by_voltage = check_sign(replace(record, net_capacity=None)).verdict
        if current_sign == "discharge" or by_voltage == "charge":
            turned = (*record.notes, "turned the sign of the Ah counter, which ran against the current")
            record = replace(record, net_capacity=-record.net_capacity, notes=turned)
    sign = check_sign(record)
    if sign.verdict == "contradiction":
        raise WrongSign(
            f"{record.name}: positive current does not charge in this file",
            got=sign.because,
            expected="a voltage (and an Ah counter) that rises with positive current",
            fix="leave out --current-sign discharge: the file's current is positive on charge already"
            if current_sign == "discharge"
            else f"{SAY_DISCHARGE}: its current is positive on discharge",
        )
    if sign.verdict == "undecided":
        record = replace(record, notes=(*record.notes, f"the sign of the current could not be checked: {sign.because}"))
    return record


def ambient_from_path(path: str | Path) -> float:
    """Ambient in degC that the parent folder's name gives ("25degC", "n10degC", "-10C", "T25"); NaN if none.

    "2C" and "25" are none: a rate, and a number of anything.
    """
    name = Path(path).parent.name
    below = r"(?:n|m|minus|[-−])_?"
    match = re.fullmatch(
        rf"(?:T_?)?({below})?(\d+(?:\.\d+)?)\s*_?(?:deg|°)_?C?|({below})(\d+(?:\.\d+)?)\s*_?C"
        rf"|T_?({below})?(\d+(?:\.\d+)?)(?:_?C)?",
        name,
        re.IGNORECASE,
    )
    if match is None:
        return float("nan")
    sign, number = next((match[i], match[i + 1]) for i in (1, 3, 5) if match[i + 1])
    return -float(number) if sign else float(number)


def _ambient(path: Path, rows: repair.Rows, given: float | None) -> float:
    if given is not None:
        return float(given)
    ambient = ambient_from_path(path)
    if np.isnan(ambient) and "ambient" in rows and np.isfinite(rows["ambient"]).any():
        return float(np.nanmedian(rows["ambient"]))
    return ambient


# --- OCV tables -----------------------------------------------------------------------------------


def load_ocv_table(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """SOC (fraction, increasing) and open-circuit voltage (V) of a table of text with such columns.

    Raises CelltwinError for files without them and for tables of a hysteresis, which are no voltages of a cell.
    """
    soc, voltage = load_soc_table(path)
    if voltage.max() < LEAST_CELL_VOLTAGE:
        raise CelltwinError(
            f"{Path(path).name}: is no OCV table, perhaps one of hysteresis",
            got=f"{voltage.min():.3g} to {voltage.max():.3g} V",
            expected="the voltages of one cell",
        )
    return soc, voltage


def load_soc_table(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """SOC (fraction, increasing) and a voltage (V) over it, of a cell or of its hysteresis.

    Raises CelltwinError for files without such columns.
    """
    path = Path(path)
    _format(path, None)
    columns = _ocv_columns(path)
    if columns is None:
        raise CelltwinError(
            f"{path.name}: is no OCV table",
            got="no columns of SOC and voltage alone",
            expected="columns such as soc_values and voltage_values",
            fix="load a log with load()",
        )
    header, separator, at_soc, at_voltage = columns
    lines = [line.split(separator) for line in decode(path).splitlines()[header + 1 :] if line.strip()]
    width = max(at_soc, at_voltage)
    cells = [(line[at_soc], line[at_voltage]) for line in lines if len(line) > width]
    soc, voltage = (numbers(pa.array([pair[k] for pair in cells], pa.string())) for k in (0, 1))
    known = np.isfinite(soc) & np.isfinite(voltage)
    soc, first = np.unique(soc[known], return_index=True)
    voltage = voltage[known][first]
    if len(soc) < 2:
        raise CelltwinError(f"{path.name}: too few rows", got=f"{len(soc)} points", expected="at least 2")
    if soc[-1] > 1.5:
        soc = soc / 100.0  # percent
    if soc[0] < -0.05 or soc[-1] > 1.05 or voltage.max() > 10.0:
        raise CelltwinError(
            f"{path.name}: is no table over state of charge",
            got=f"SOC {soc[0]:.3g} to {soc[-1]:.3g}, {voltage.min():.3g} to {voltage.max():.3g} V",
            expected="SOC of 0 to 1 and the voltages of one cell",
        )
    return soc, voltage


def _ocv_columns(path: Path) -> tuple[int, str, int, int] | None:
    """Header line, separator and places of SOC and voltage in a table that has no time and no current."""
    lines = decode(path).splitlines()[:50]
    number, separator, roles = find_header(lines)
    for number, line in enumerate(lines):
        for separator in ",;\t":
            names = [split_header(cell)[0].lower().removesuffix("values") for cell in line.split(separator)]
            soc = [i for i, name in enumerate(names) if name in ("soc", "stateofcharge")]
            voltage = [
                i for i, name in enumerate(names) if name in ("voltage", "ocv", "emf", "u", "v", "opencircuitvoltage")
            ]
            if soc and voltage and not roles & {"time", "current"}:
                return number, separator, soc[0], voltage[0]
    return None


def _refuse_ocv_table(path: Path, fmt: Format) -> None:
    if fmt.read is read_text and _ocv_columns(path) is not None:
        raise CelltwinError(
            f"{path.name}: is an OCV or hysteresis table, not a log",
            got="columns of SOC and voltage",
            expected="columns of time, voltage and current",
            fix="read an OCV table with load_ocv_table()",
        )
