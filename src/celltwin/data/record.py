"""Record: one checked log of one cell, in SI units and with current positive on charge."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from celltwin import files
from celltwin.errors import CelltwinError

# Battery Data Format machine names of the columns a record holds.
TIME, VOLTAGE, CURRENT = "test_time_second", "voltage_volt", "current_ampere"
TEMPERATURE, NET_CAPACITY = "temperature_t1_celsius", "net_capacity_ah"

SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True)
class Cell:
    """Facts of a cell that its data sheet or first test gives.

    `reference_capacity_ah` is the one denominator of state of charge for every record of the cell.
    """

    name: str
    reference_capacity_ah: float
    voltage_limits_volt: tuple[float, float]
    nominal_capacity_ah: float
    chemistry: str = ""

    def __post_init__(self) -> None:
        low, high = self.voltage_limits_volt
        if not 0.0 <= low < high <= 10.0:
            raise CelltwinError(
                f"voltage limits of cell '{self.name}' make no sense",
                got=self.voltage_limits_volt,
                expected="[lower, upper] in volt of one cell",
                fix="correct voltage_limits_volt in dataset.toml",
            )
        for what in ("reference_capacity_ah", "nominal_capacity_ah"):
            if not 0.0 < getattr(self, what) < 1e5:
                raise CelltwinError(
                    f"{what} of cell '{self.name}' makes no sense",
                    got=getattr(self, what),
                    expected="a positive capacity in Ah",
                    fix=f"correct {what} in dataset.toml",
                )


@dataclass(frozen=True, eq=False)
class Record:
    """One log of one cell. Arrays are float64 of one length n >= 2; time strictly increases.

    Current is positive on charge and holds over the step that *ends* at its sample. NaN is allowed where a
    voltage or temperature was not measured, never in time or current.
    """

    name: str  # the test or drive cycle, e.g. "LA92"
    time: np.ndarray  # s
    voltage: np.ndarray  # V
    current: np.ndarray  # A, positive = charge
    temperature: np.ndarray  # degC at the cell's surface; NaN where not measured
    net_capacity: np.ndarray | None = None  # Ah, the tester's own counter, positive = charge
    ambient_degC: float = float("nan")
    cell: Cell | None = None
    initial_soc: float = float("nan")  # fraction, at the first sample
    group: str = ""  # which of the dataset's cells, where it has several
    source: str = ""
    notes: tuple[str, ...] = field(default=())  # what the importer had to put right

    def __post_init__(self) -> None:
        n = len(self.time)
        if n < 2:
            raise CelltwinError(f"record '{self.name}' is too short", got=f"{n} samples", expected="at least 2")
        for what in ("time", "voltage", "current", "temperature", "net_capacity"):
            column = getattr(self, what)
            if column is None:
                continue
            column = np.ascontiguousarray(column, dtype=np.float64)
            if column.shape != (n,):
                raise CelltwinError(
                    f"column '{what}' of record '{self.name}' has the wrong shape",
                    got=column.shape,
                    expected=(n,),
                )
            if what in ("time", "current") and not np.isfinite(column).all():
                raise CelltwinError(
                    f"{what} of record '{self.name}' is not finite",
                    got=f"{np.count_nonzero(~np.isfinite(column))} NaN or infinite values",
                    expected="a number at every sample",
                    fix="drop or repair these rows",
                )
            column.setflags(write=False)
            object.__setattr__(self, what, column)
        if (np.diff(self.time) <= 0).any():
            at = int(np.argmax(np.diff(self.time) <= 0))
            raise CelltwinError(
                f"time of record '{self.name}' does not increase",
                got=f"{self.time[at]:g} s then {self.time[at + 1]:g} s at row {at + 1}",
                expected="strictly increasing seconds",
                fix="load the file through celltwin.data.importers, which sorts this out",
            )

    def __len__(self) -> int:
        return len(self.time)

    @property
    def label(self) -> str:
        """Cell, cycle and ambient in a few words, as reports print it."""
        cell = f"{self.group} " if self.group else ""
        ambient = "" if np.isnan(self.ambient_degC) else f" {self.ambient_degC:g}degC"
        return f"{cell}{self.name}{ambient}"

    @property
    def key(self) -> str:
        """<cell>/<ambient>/<cycle>, what the patterns of a split are compared with."""
        ambient = "" if np.isnan(self.ambient_degC) else f"{self.ambient_degC:g}degC".replace("-", "n")
        return f"{self.group}/{ambient}/{self.name}"

    @cached_property
    def dt(self) -> np.ndarray:
        """Length in s of the step that ends at each sample; 0 for the first."""
        return np.diff(self.time, prepend=self.time[0])

    @cached_property
    def charge_ah(self) -> np.ndarray:
        """Charge passed since the first sample, integrated from current, Ah, positive = charge."""
        return np.cumsum(self.current * self.dt) / SECONDS_PER_HOUR

    @cached_property
    def filled_temperature(self) -> np.ndarray:
        """Temperature with unmeasured samples interpolated; the ambient, else 25 degC, where nothing was measured."""
        known = np.isfinite(self.temperature)
        if known.all():
            return self.temperature
        if not known.any():
            return np.full(len(self), 25.0 if np.isnan(self.ambient_degC) else self.ambient_degC)
        return np.interp(self.time, self.time[known], self.temperature[known])

    @cached_property
    def soc(self) -> np.ndarray:
        """State of charge (fraction) by the tester's counter where there is one, else by integrated current."""
        if self.cell is None or np.isnan(self.initial_soc):
            raise CelltwinError(
                f"state of charge of record '{self.name}' is unknown",
                got="no reference capacity or no initial SOC",
                expected="both",
                fix="describe the cell and the records' initial_soc in a dataset.toml",
            )
        counter = self.charge_ah if self.net_capacity is None else self.net_capacity - self.net_capacity[0]
        return self.initial_soc + counter / self.cell.reference_capacity_ah

    @cached_property
    def gaps(self) -> np.ndarray:
        """Indices of samples that follow a gap: a step longer than 90 s and 20 times the median step."""
        return np.flatnonzero(self.dt > longest_step(self.dt[1:]))

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the measured content (not of name or origin): equal logs have equal hashes."""
        digest = hashlib.sha256()
        for column in (self.time - self.time[0], self.voltage, self.current):
            # Through single precision and rounded, so that a copy stored in either is recognised; + 0 makes -0 equal 0.
            rounded = np.round(column.astype(np.float32).astype(np.float64), 3) + 0.0
            digest.update(rounded.astype(np.float32).tobytes())
        return digest.hexdigest()

    def between(self, start: int, stop: int | None = None) -> Record:
        """The part of the record from sample `start` to before `stop`; its initial SOC is moved along."""
        soc = float("nan") if self.cell is None or np.isnan(self.initial_soc) else float(self.soc[start])
        columns = {name: getattr(self, name)[start:stop] for name in _columns(self)}
        return replace(self, **columns, initial_soc=soc)

    def table(self, extra: Mapping[str, np.ndarray] | None = None) -> pa.Table:
        """Arrow table with Battery Data Format names, and `extra` columns beside them."""
        columns = {
            TIME: self.time,
            VOLTAGE: self.voltage,
            CURRENT: self.current,
            TEMPERATURE: self.temperature,
        }
        if self.net_capacity is not None:
            columns[NET_CAPACITY] = self.net_capacity
        return pa.table(columns | dict(extra or {}))

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """So that `polars.DataFrame(record)`, `pyarrow.table(record)` and others take a record as it is."""
        return self.table().__arrow_c_stream__(requested_schema)

    def save(self, path: str | Path) -> None:
        """Write the record as Battery Data Format, parquet or csv by the name. Raises CelltwinError for other names."""
        files.write_table(path, self.table())


def longest_step(dt: np.ndarray) -> float:
    """Steps longer than this (s) are gaps, of a log whose steps are `dt`."""
    # Testers that log drive cycles at 0.1 s log rest at "60 s", which is 60.007 s: no gap.
    return max(90.0, 20.0 * float(np.median(dt)))


def _columns(record: Record) -> list[str]:
    """Names of the fields that hold one value or row a sample."""
    return [field.name for field in fields(record) if isinstance(getattr(record, field.name), np.ndarray)]


@dataclass(frozen=True, eq=False)
class PackRecord(Record):
    """One log of one string of cell groups in series: a Record of the string, and its groups and sensors.

    `voltage` is the string's and `temperature` the mean of the sensors. NaN where not measured.
    """

    group_voltage: np.ndarray = field(kw_only=True)  # V, [n, groups] in series order
    sensor_temperature: np.ndarray = field(kw_only=True)  # degC, [n, sensors]; zero sensors are allowed

    def __post_init__(self) -> None:
        super().__post_init__()
        for what in ("group_voltage", "sensor_temperature"):
            column = np.ascontiguousarray(getattr(self, what), dtype=np.float64)
            if column.ndim != 2 or len(column) != len(self):
                raise CelltwinError(
                    f"'{what}' of record '{self.name}' has the wrong shape",
                    got=column.shape,
                    expected=f"({len(self)}, groups or sensors)",
                )
            column.setflags(write=False)
            object.__setattr__(self, what, column)

    def table(self, extra: Mapping[str, np.ndarray] | None = None) -> pa.Table:
        """As of a Record, then `cell_voltage_<i>_volt` and `sensor_temperature_<i>_celsius` with i from 1."""
        groups = {f"cell_voltage_{i}_volt": column for i, column in enumerate(self.group_voltage.T, 1)}
        sensors = {f"sensor_temperature_{i}_celsius": c for i, c in enumerate(self.sensor_temperature.T, 1)}
        return super().table(groups | sensors | dict(extra or {}))
