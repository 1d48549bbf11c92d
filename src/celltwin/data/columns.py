"""Columns of a log: which column is which, in what unit, and its cells as numbers.

Testers name the same quantity "Voltage(V)", "U[V]", "Ewe/V", "voltage_volt" or "Potential, mV". A header is
read as a name and a unit, the name is looked up in `_NAMES` and the unit in `UNITS`; whatever stays unknown
is left alone.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from celltwin.errors import CelltwinError

pc: Any = pyarrow.compute  # its functions are made at import, unseen by type checkers

# Unit -> (factor, offset) to s, V, A, Ah and degC.
UNITS: dict[str, dict[str, tuple[float, float]]] = {
    "time": {
        **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), (1.0, 0.0)),
        **dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), (1e-3, 0.0)),
        **dict.fromkeys(("us", "µs", "microseconds"), (1e-6, 0.0)),
        **dict.fromkeys(("min", "mins", "minute", "minutes"), (60.0, 0.0)),
        **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), (3600.0, 0.0)),
        **dict.fromkeys(("d", "day", "days"), (86400.0, 0.0)),
    },
    "voltage": {
        **dict.fromkeys(("v", "volt", "volts"), (1.0, 0.0)),
        **dict.fromkeys(("mv", "millivolt", "millivolts"), (1e-3, 0.0)),
        **dict.fromkeys(("uv", "µv", "microvolt"), (1e-6, 0.0)),
    },
    "current": {
        **dict.fromkeys(("a", "amp", "amps", "ampere", "amperes"), (1.0, 0.0)),
        **dict.fromkeys(("ma", "milliamp", "milliamps", "milliampere"), (1e-3, 0.0)),
        **dict.fromkeys(("ua", "µa", "microampere"), (1e-6, 0.0)),
    },
    "charge": {
        **dict.fromkeys(("ah", "amperehour", "ampereh", "amphour", "amphr"), (1.0, 0.0)),
        **dict.fromkeys(("mah", "milliamperehour"), (1e-3, 0.0)),
        **dict.fromkeys(("c", "as", "coulomb"), (1.0 / 3600.0, 0.0)),
    },
    "temperature": {
        **dict.fromkeys(("c", "°c", "℃", "degc", "deg", "cel", "celsius", "degcelsius", "degreecelsius"), (1.0, 0.0)),
        **dict.fromkeys(("k", "degk", "kelvin"), (1.0, -273.15)),
        **dict.fromkeys(("f", "°f", "degf", "fahrenheit"), (5.0 / 9.0, -160.0 / 9.0)),
    },
    "text": {},
}
_EVERY_UNIT = frozenset(unit for units in UNITS.values() for unit in units)

# Role -> dimension and names in order of preference, in lower case without blanks and signs.
_NAMES = {
    "time": (
        "time",
        "testtime totaltime elapsedtime runtime progtime programtime programduration experimenttime "
        "recordtime test time t elapsed timestamp unixtime epochtime datetime absolutetime "
        "absolutetimestamp realtime "
        "dateandtime dateandtimeiso date zeit prüfzeit testzeit messzeit laufzeit 总时间 测试时间",
    ),
    "step_time": ("time", "steptime stepduration relativetime statetime"),
    "voltage": (
        "voltage",
        "voltage cellvoltage terminalvoltage batteryvoltage measuredvoltage voltagemeasured v u volt "
        "volts potential ewe ecell ucell vcell vbat vbatt ubat ubatt battvoltage vt stringvoltage packvoltage "
        "spannung zellspannung klemmenspannung 电压",
    ),
    "current": (
        "current",
        "current cellcurrent batterycurrent measuredcurrent currentmeasured i amps amp icell ibat ibatt battcurrent "
        "stringcurrent packcurrent strom zellstrom batteriestrom 电流",
    ),
    "charging": ("current", "chargecurrent chargingcurrent currentcharge currentcharging ladestrom 充电电流"),
    "discharging": (
        "current",
        "dischargecurrent dischargingcurrent currentdischarge currentdischarging entladestrom 放电电流",
    ),
    "temperature": (
        "temperature",
        "temperaturet1 surfacetemperaturet1 surfacetemperature celltemperature celltemp batterytemperature "
        "batterytemp casetemperature skintemperature tcell tsurf temperature temp temperature1 temp1 t1 "
        "auxtemperature1 temperaturemeasured T thermocouple surfacetemp temperatur "
        "zelltemperatur oberflächentemperatur 温度",
    ),
    "ambient": (
        "temperature",
        "ambienttemperature ambienttemp chambertemperature chambertemp tamb tambient tchamber",
    ),
    "net_charge": ("charge", "netcapacity netcharge qqo"),
    "counter": ("charge", "capacity amphours ah ahaccu q cap charge amphr 容量"),
    "charged": (
        "charge",
        "chargingcapacity chargecapacity capacitycharge amphourscharge chgcapacity chgcap qcharge",
    ),
    "discharged": (
        "charge",
        "dischargingcapacity dischargecapacity capacitydischarge amphoursdischarge dchgcapacity dchgcap qdischarge",
    ),
    "mode": ("text", "mode status steptype state workmode stepmode md 工步类型"),
}
_ROLES = {
    name: (role, dimension, rank)
    for role, (dimension, names) in _NAMES.items()
    for rank, name in enumerate(names.split())
}
_GROUP = re.compile(r"(?:cellvoltage|groupvoltage|voltagecell|vcell|ucell)([a-z]?\d+)")
_SENSOR = re.compile(r"(?:surface|sensor)?(?:temperature|temp)([a-z]?\d+)")
_WITH_UNIT = re.compile(r"\s*~?(.+?)\s*(?:[(\[{]\s*(.*?)\s*[)\]}]|/\s*([^/]+?))\s*(?:[._]?\d+)?\s*")

REQUIRED = ("time", "voltage", "current")
BOTH_WAYS = frozenset(("charging", "discharging"))  # a current in two columns; one alone is no role
EXAMPLE_UNIT = {"time": "s", "voltage": "mV", "current": "A", "charge": "Ah", "temperature": "degC"}
TOLD, UNNAMED = -1, 1000  # rank of a column that somebody named, and of one that its unit alone tells


@dataclass(frozen=True)
class Column:
    """One recognised column: where it stands and what turns its numbers into s, V, A, Ah or degC."""

    index: int
    header: str
    rank: int  # place among the names of its role; the lowest is preferred
    factor: float
    offset: float
    unit: str  # "" where the header gives none


def _plain(text: str) -> str:
    return re.sub(r"[^\w°℃]|_", "", text)


def split_header(header: str) -> tuple[str, str]:
    """Name and unit of a header: "I [mA]", "Time / h" and "time_min" give ("I", "mA"), ("Time", "h"),
    ("time", "min").

    The unit is "" where none is given; a unit in brackets that is not known is returned as it stands.
    """
    if match := _WITH_UNIT.fullmatch(header):
        return _plain(match[1]), _plain(match[2] if match[2] is not None else match[3])
    words = [word for word in re.split(r"[\s_.,:]+", header.strip(" ~\"'")) if word]
    if len(words) > 1 and _plain(words[-1]).lower() in _EVERY_UNIT - {"deg"}:
        return _plain("".join(words[:-1])), _plain(words[-1])
    return _plain("".join(words)), ""


def _role(name: str, unit: str) -> tuple[str, str, int] | None:
    """Role, dimension and rank of a column name."""
    if name in ("t", "T"):  # a letter for two quantities: the unit decides, else the case
        hot = unit.lower() in UNITS["temperature"] if unit else name == "T"
        return _ROLES["T" if hot else "t"]
    return _ROLES.get(name.lower())


def _roles_of(split: Sequence[tuple[str, str]]) -> list[tuple[str, str, int] | None]:
    """Role, dimension and rank of each of a file's columns."""
    found = [_role(*each) for each in split]
    whole = {match[0] for match in found if match} >= BOTH_WAYS
    return [match if whole or not match or match[0] not in BOTH_WAYS else None for match in found]


def of_both_ways(charging: Any, discharging: Any) -> Any:
    """Current, positive on charge, from its size in either direction; a column is empty while the other counts."""
    idle = np.isnan(charging) & np.isnan(discharging)
    return np.where(idle, np.nan, np.abs(np.nan_to_num(charging)) - np.abs(np.nan_to_num(discharging)))


def _completed(roles: set[str]) -> set[str]:
    """Roles and what they stand in for: the time of a step for the time, a current in two columns for the current."""
    return roles | ({"time"} if "step_time" in roles else set()) | ({"current"} if roles >= BOTH_WAYS else set())


def _conversion(dimension: str, unit: str) -> tuple[float, float] | None:
    """Factor and offset of a unit; units of clock times ("hh:mm:ss", "AM/PM") are left to the cells."""
    if (
        not unit
        or dimension == "text"
        or (dimension == "time" and re.fullmatch(r"[hmsdyin.]+", unit) and len(unit) > 4)
    ):
        return 1.0, 0.0
    return UNITS[dimension].get(unit)


Told = Mapping[str, str | Sequence[str]] | None  # header by role, or several of which a file has one


def roles_in(headers: Iterable[str], told: Told = None) -> set[str]:
    """Roles that a line of headers names, that somebody told, or that the unit of a single column tells; completed."""
    headers = list(headers)
    split = [split_header(header) for header in headers]
    somebody = {role: found[0] for role, names in (told or {}).items() if (found := _place(headers, names))}
    named = {match[0] for match in _roles_of(split) if match}
    return _completed(named | set(_told_by_unit(split, somebody)) | set(somebody))


def check_told(told: Told) -> None:
    """Raise CelltwinError where a column is named for a role that there is not."""
    for role, names in (told or {}).items():
        if role not in _NAMES or not all(name.strip() for name in _several(names)):
            raise CelltwinError(
                "a column is named for what celltwin does not read",
                got=f"{role}={', '.join(_several(names))}",
                expected=", ".join(_NAMES),
                fix="name columns as in voltage='Vbat [mV]'",
            )


def refuse_missing(headers: Sequence[str], told: Told) -> None:
    """Raise CelltwinError where none of the columns named for a role is there."""
    for role, names in (told or {}).items():
        if _place(headers, names) is None:
            wanted = "' or '".join(_several(names))
            near = difflib.get_close_matches(_several(names)[0], headers, 1, 0.0)
            raise CelltwinError(
                f"there is no column '{wanted}' to take for the {role}",
                got=", ".join(name for name in headers if name)[:200],
                expected="a header as it stands in the file",
                fix=f"did you mean '{near[0]}'? Where files differ, name both" if near else "name another",
            )


def in_unit_of(role: str, headers: Sequence[str]) -> list[str]:
    """Headers without a role of their own that are in a unit of voltage or current."""
    split = [split_header(header) for header in headers]
    return [headers[place] for place in _places_in_unit(role, split, {})]


def _several(names: str | Sequence[str]) -> Sequence[str]:
    return (names,) if isinstance(names, str) else names


def _place(headers: Sequence[str], wanted: str | Sequence[str]) -> tuple[int, str] | None:
    """The column with one of these headers, or with its name where a unit in brackets was added; and that unit."""
    plain = [header.strip().casefold() for header in headers]
    for name in _several(wanted):
        if name.strip().casefold() in plain:
            return plain.index(name.strip().casefold()), ""
        bare = re.sub(r"\s*\[[^]]*\]\s*$", "", name).strip().casefold()
        if bare in plain:
            return plain.index(bare), split_header(name)[1].lower()
    return None


def _told_by_unit(split: Sequence[tuple[str, str]], somebody: Mapping[str, int]) -> dict[str, int]:
    """Voltage and current where no name tells them: the place of the one column without a role in such a unit."""
    known = _completed({match[0] for match in _roles_of(split) if match} | set(somebody))
    told: dict[str, int] = {}
    for role in ("voltage", "current"):
        if role in known:
            continue
        places = _places_in_unit(role, split, somebody)
        if len(places) == 1:
            told[role] = places[0]
    return told


def _places_in_unit(role: str, split: Sequence[tuple[str, str]], somebody: Mapping[str, int]) -> list[int]:
    return [
        place
        for place, ((name, unit), match) in enumerate(zip(split, _roles_of(split), strict=True))
        if match is None
        and place not in somebody.values()
        and unit.lower() in UNITS[role]
        and not _GROUP.fullmatch(name.lower())
    ]


def recognise(headers: Sequence[str], units: Sequence[str] = (), told: Told = None) -> dict[str, list[Column]]:
    """Columns by role, the preferred first; cell groups under "group" and temperature sensors under "sensor".

    `units` is the row of units below the header, where there is one. `told` names the header of a role as it stands
    in the file, or several of which a file has one, with the unit in brackets behind it where the file gives none
    ("Vbat [mV]"): it wins over all that is found out. Raises CelltwinError where there is no such column, and for a
    unit that is not known.
    """
    found: dict[str, list[Column]] = {}
    refused: dict[str, str] = {}
    split = [split_header(header) for header in headers]

    def unit_of(index: int) -> str:
        unit = split[index][1] or (_plain(units[index]) if index < len(units) else "")
        return unit.lower()

    refuse_missing(headers, told)
    roles = _roles_of([(name, unit_of(index)) for index, (name, _) in enumerate(split)])
    somebody: dict[str, int] = {}
    for role, names in (told or {}).items():
        index, added = _place(headers, names) or (0, "")
        somebody[role], unit = index, added or unit_of(index)
        dimension = _NAMES[role][0]
        conversion = _conversion(dimension, unit)
        if conversion is None and not added and not re.search(r"[(\[{/]", headers[index]):
            unit, conversion = "", (1.0, 0.0)  # the last word of a name, no unit: "Fühler A"
        if conversion is None:
            raise _unknown_unit(
                role, headers[index], dimension, f"{role}='{headers[index]} [{EXAMPLE_UNIT[dimension]}]'"
            )
        found[role] = [Column(index, headers[index], TOLD, *conversion, unit)]
    for role, index in _told_by_unit(split, somebody).items():
        unit = split[index][1].lower()
        found[role] = [Column(index, headers[index], UNNAMED, *UNITS[role][unit], unit)]
    for index, header in enumerate(headers):
        if index in somebody.values():
            continue
        name, unit = split[index][0], unit_of(index)
        matches = [roles[index]]
        if group := _GROUP.fullmatch(name.lower()):
            matches.append(("group", "voltage", _order(group[1])))
        if sensor := _SENSOR.fullmatch(name.lower()):
            matches.append(("sensor", "temperature", _order(sensor[1])))
        for role, dimension, rank in filter(None, matches):
            conversion = _conversion(dimension, unit)
            if conversion is None:
                refused[role] = header
            else:
                found.setdefault(role, []).append(Column(index, header, rank, *conversion, unit))
    for role in REQUIRED:
        if role in refused and role not in found:
            raise _unknown_unit(role, refused[role], role, f"{role}=HEADER with its unit in brackets")
    return {role: sorted(columns, key=lambda column: column.rank) for role, columns in found.items()}


def _unknown_unit(role: str, header: str, dimension: str, how: str) -> CelltwinError:
    return CelltwinError(
        f"unit of the {role} column is not known",
        got=f"'{header}'",
        expected="one of " + ", ".join(sorted(UNITS[dimension])),
        fix=f"rename the column, for example 'Current (A)', or tell it: --column {how}",
    )


def _order(label: str) -> int:
    """Sorting key of "A10" after "A9"."""
    letter = label[0] if label[0].isalpha() else ""
    return 1000 * (ord(letter) if letter else 0) + int(label.removeprefix(letter))


def is_unit_row(cells: Iterable[str]) -> bool:
    """Whether a row below the header holds units ("[V]", "mA", "s") and nothing else."""
    cells = [cell.strip() for cell in cells if cell.strip()]
    return (
        len(cells) >= 2
        and not any(re.fullmatch(_NUMBER, cell) for cell in cells)
        and any(_plain(cell).lower() in _EVERY_UNIT for cell in cells)
    )


# --- cells ----------------------------------------------------------------------------------------

_NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_DURATION = r"^(?:(?P<d>\d+)\s*(?:d|days?|\.|-)?,?\s*)??(?P<h>\d+):(?P<m>\d{1,2}):(?P<s>\d{1,2}(?:\.\d*)?)$"
_SHORT = r"^(?P<m>\d+):(?P<s>\d{1,2}\.\d*)$"
_TIMESTAMP = (
    r"^(?P<date>\d+[-/.]\d+[-/.]\d+)[T ]+(?P<clock>\d{1,2}:\d{2}(?::\d{2})?)(?P<part>\.\d+)?"
    r"\s*(?P<half>[AaPp][Mm])?\s*(?P<zone>Z|[+-]\d{2}:?\d{2})?$"
)
_DATES = ("%Y-%m-%d", "%m-%d-%Y", "%d-%m-%Y", "%m-%d-%y", "%d-%m-%y")
_DAY = 86400.0


def numbers(cells: pa.Array) -> np.ndarray:
    """Cells as float64; NaN where a cell is empty or not a number. A decimal comma is understood."""
    if not pa.types.is_string(cells.type):
        return cells.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    text = _decimal_point(pc.utf8_trim_whitespace(cells))
    good = pc.match_substring_regex(text, f"^{_NUMBER}$")
    text = pc.replace_substring(text, "+", "", max_replacements=1) if _any(pc.starts_with(text, "+")) else text
    return pc.if_else(good, text, None).cast(pa.float64()).to_numpy(zero_copy_only=False)


def _any(mask: pa.Array) -> bool:
    return bool(pc.any(mask).as_py())


def any_match(text: pa.Array, pattern: str) -> bool:
    """Whether any cell holds the pattern."""
    return _any(pc.match_substring_regex(text, pattern))


def _decimal_point(text: pa.Array) -> pa.Array:
    """A comma is a decimal sign where no cell has a point as well, else it parts thousands (or the point
    does).
    """
    if not any_match(text, ","):
        return text
    if any_match(text, r"\..*,"):
        text = pc.replace_substring(text, ".", "")
    elif any_match(text, r"\."):
        return pc.replace_substring(text, ",", "")
    return pc.replace_substring(text, ",", ".")


def seconds(cells: pa.Array, factor: float = 1.0) -> np.ndarray:
    """Cells of a time column in s: numbers times `factor`, "hh:mm:ss.s", or timestamps counted from the
    first.
    """
    if pa.types.is_timestamp(cells.type):
        return _from_first(cells.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy(zero_copy_only=False) * 1e-6)
    if pa.types.is_duration(cells.type):
        return cells.cast(pa.duration("us")).cast(pa.int64()).to_numpy(zero_copy_only=False) * 1e-6
    time = numbers(cells)
    if not pa.types.is_string(cells.type) or 2 * np.count_nonzero(np.isfinite(time)) >= len(time):
        known = time[np.isfinite(time)] * factor
        return _from_first(time * factor) if known.size and np.median(known) > 1e8 else time * factor
    text = pc.replace_substring(pc.utf8_trim_whitespace(cells), ",", ".")
    readings = (_durations(text, _DURATION), _durations(text, _SHORT), _timestamps(text))
    return max(readings, key=lambda reading: np.count_nonzero(np.isfinite(reading)))


def _from_first(time: np.ndarray) -> np.ndarray:
    """Seconds since the first known sample; absolute times are too long for a float32 and mean nothing to a
    cell.
    """
    known = time[np.isfinite(time)]
    return time - known[0] if len(known) else time


def _durations(text: pa.Array, pattern: str) -> np.ndarray:
    parts = pc.extract_regex(text, pattern)
    time = np.zeros(len(text))
    for key, factor in (("d", _DAY), ("h", 3600.0), ("m", 60.0), ("s", 1.0)):
        if f"P<{key}>" in pattern:
            part = numbers(pc.struct_field(parts, key))
            time += factor * (np.nan_to_num(part) if key == "d" else part)
    # A clock of 24 h starts again at midnight.
    if np.nanmax(time, initial=0.0) < _DAY and len(time) > 1:
        time = time + _DAY * np.cumsum(np.diff(time, prepend=time[0]) < -0.5 * _DAY)
    return time


def _timestamps(text: pa.Array) -> np.ndarray:
    """Dates with clock times. Where day and month cannot be told apart, the reading with the shortest log
    wins.
    """
    parts = pc.extract_regex(text, _TIMESTAMP)
    date = pc.replace_substring_regex(pc.struct_field(parts, "date"), r"[/.]", "-")
    half = pc.utf8_upper(pc.struct_field(parts, "half"))
    clock = pc.struct_field(parts, "clock")
    twelve = _any(pc.not_equal(half, ""))
    short = not any_match(clock, r":\d+:")
    stamp = pc.binary_join_element_wise(date, clock, *([half] if twelve else []), " ")
    clock_format = ("%I:%M" if twelve else "%H:%M") + ("" if short else ":%S") + (" %p" if twelve else "")
    best = np.full(len(text), np.nan)
    for date_format in _DATES:
        whole = pc.strptime(stamp, format=f"{date_format} {clock_format}", unit="s", error_is_null=True)
        time = numbers(whole.cast(pa.int64()))
        if (time > -6e10).any() and _better(time, best):
            best = time
    return _from_first(best + np.nan_to_num(numbers(pc.struct_field(parts, "part"))) - _zone(parts))


def _better(time: np.ndarray, best: np.ndarray) -> bool:
    known, known_best = np.isfinite(time).sum(), np.isfinite(best).sum()
    return known > known_best or (
        known == known_best and bool(np.ptp(time[np.isfinite(time)]) < np.nanmax(best) - np.nanmin(best))
    )


def _zone(parts: pa.Array) -> np.ndarray:
    zone = pc.struct_field(parts, "zone")
    offset = pc.extract_regex(zone, r"^(?P<h>[+-]\d{2}):?(?P<m>\d{2})$")
    hours, minutes = (numbers(pc.struct_field(offset, key)) for key in ("h", "m"))
    return np.nan_to_num(3600.0 * hours + np.copysign(60.0 * minutes, hours))
