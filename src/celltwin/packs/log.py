"""PackLog: one log of one pack, with the wiring of its cells and what its BMS knows of each at the start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from celltwin.data.record import Cell, PackRecord
from celltwin.errors import CelltwinError
from celltwin.physics.pack import PackInput
from celltwin.physics.topology import Topology, join, parse


class Known(NamedTuple):
    """What a BMS knows of each cell when it wakes, [cells]. Capacity and resistance are NaN where it does not."""

    voltage: Any  # V, at rest
    temperature: Any  # degC
    capacity: Any  # factor on the nominal one, as some earlier test has it
    resistance: Any  # likewise, on that of the cell's circuit


@dataclass(frozen=True, eq=False)
class PackLog:
    """One log of one pack on an even grid of time. Current is positive on charge and holds over the step that ends."""

    name: str
    topology: Topology
    cell: Cell
    known: Known
    current: np.ndarray  # [time] A of the pack
    ambient: np.ndarray  # [time] degC
    dt: float  # s
    voltage: np.ndarray  # [time, cells] V; NaN where not measured
    temperature: np.ndarray  # [time, cells] degC; likewise
    truth: dict[str, Any] = field(default_factory=dict)  # of a simulated pack, for scores only

    def __post_init__(self) -> None:
        time, cells = len(self.current), self.topology.cells
        shapes = {"ambient": (time,), "voltage": (time, cells), "temperature": (time, cells)}
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise CelltwinError(
                    f"'{name}' of pack log '{self.name}'", got=getattr(self, name).shape, expected=shape
                )
        for name, value in self.known._asdict().items():
            if np.shape(value) != (cells,):
                raise CelltwinError(f"known {name} of pack log '{self.name}'", got=np.shape(value), expected=(cells,))
        if not (np.isfinite(self.current).all() and np.isfinite(self.known.voltage).all() and self.dt > 0.0):
            raise CelltwinError(f"pack log '{self.name}'", got="a current or rest voltage that is not known")

    def __len__(self) -> int:
        return len(self.current)

    def forgetting(self) -> PackLog:
        """The log of a BMS that knows no cell's capacity or resistance."""
        unknown = np.full(self.topology.cells, np.nan)
        return replace(self, known=self.known._replace(capacity=unknown, resistance=unknown))

    def until(self, samples: int) -> PackLog:
        """Its first samples."""
        cut = {name: getattr(self, name)[:samples] for name in ("current", "ambient", "voltage", "temperature")}
        return replace(self, **cut)


class PackBatch(NamedTuple):
    """Pack logs side by side as one graph, the short ones padded with rest."""

    known: Known  # [cells of all]
    inputs: PackInput  # [time, packs], dt [time]
    voltage: np.ndarray  # [time, cells] V
    temperature: np.ndarray  # [time, cells] degC
    mask: np.ndarray  # [time, cells], where the voltage is known
    mask_temperature: np.ndarray


def side_by_side(logs: Sequence[PackLog], multiple: int = 1) -> tuple[Topology, PackBatch]:
    """One graph of several logs of equal dt. Raises CelltwinError where steps differ."""
    steps = {log.dt for log in logs}
    if len(steps) != 1:
        raise CelltwinError("pack logs of different steps", got=sorted(steps), fix="resample them to one")
    time = -(-max(map(len, logs)) // multiple) * multiple
    single = np.float32

    def padded(name: str, fill: float | None) -> np.ndarray:
        rows = [getattr(log, name).reshape(len(log), -1) for log in logs]
        how: Any = {"mode": "edge"} if fill is None else {"constant_values": fill}
        return np.concatenate([np.pad(x, ((0, time - len(x)), (0, 0)), **how) for x in rows], axis=1).astype(single)

    known = Known(*(np.concatenate(x).astype(single) for x in zip(*(log.known for log in logs), strict=True)))
    dt = np.full(time, steps.pop(), single)
    dt[0] = 0.0
    inputs = PackInput(padded("current", 0.0), padded("ambient", None), dt)  # pyright: ignore[reportArgumentType]
    voltage, temperature = padded("voltage", np.nan), padded("temperature", np.nan)
    mask, warm = np.isfinite(voltage), np.isfinite(temperature)
    batch = PackBatch(known, inputs, np.nan_to_num(voltage), np.nan_to_num(temperature), mask, warm)
    return join([log.topology for log in logs]), batch


def of_record(
    record: PackRecord,
    cell: Cell,
    topology: str | None = None,
    dt: float = 1.0,
    capacity: np.ndarray | None = None,
    resistance: np.ndarray | None = None,
) -> PackLog:
    """A measured string as a pack log, on an even grid of `dt` s; each group of the record is one cell of it.

    `cell` holds the facts of one group. The first sample must be at rest: its voltages are what the BMS knows, beside
    the factors `capacity` and `resistance` of each group where given. Sensors of temperature are dealt out evenly along
    the string; the ambient is what they show at the start, for a BMS knows no more.

    Raises CelltwinError for a record that starts under load or without a voltage of some group.
    """
    groups = record.group_voltage.shape[1]
    wiring = parse(topology or f"{groups}s")
    if wiring.cells != groups:
        raise CelltwinError(f"topology of '{record.name}'", got=f"{wiring.cells} cells", expected=f"{groups}, measured")
    if abs(record.current[0]) > cell.nominal_capacity_ah / 50 or not np.isfinite(record.group_voltage[0]).all():
        raise CelltwinError(
            f"'{record.name}' does not start at rest",
            got=f"{record.current[0]:.2f} A, {np.isnan(record.group_voltage[0]).sum()} voltages missing",
            expected="a first sample at rest with every group measured",
            fix="cut the record to where it rests",
        )
    time = np.arange(record.time[0], record.time[-1] + 1e-6, dt)
    # The charge that passed is kept: a step's current is the mean over it.
    charge = np.interp(time, record.time, record.charge_ah * 3600.0)
    current = np.diff(charge, prepend=charge[0]) / dt

    def resampled(column: np.ndarray) -> np.ndarray:
        known = np.isfinite(column)
        if not known.any():
            return np.full(len(time), np.nan)
        return np.interp(time, record.time[known], column[known])

    voltage = np.stack([resampled(column) for column in record.group_voltage.T], axis=1)
    sensors = record.sensor_temperature.shape[1]
    if sensors:
        measured = np.stack([resampled(column) for column in record.sensor_temperature.T], axis=1)
        temperature = measured[:, np.arange(groups) * sensors // groups]
        begin = float(np.nanmean(temperature[0]))
    else:
        begin = 25.0 if np.isnan(record.ambient_degC) else record.ambient_degC
        temperature = np.full_like(voltage, np.nan)
    at_start = np.where(np.isfinite(temperature[0]), temperature[0], begin)
    unknown = np.full(groups, np.nan)
    known = Known(
        voltage[0],
        at_start,
        unknown if capacity is None else capacity,
        unknown if resistance is None else resistance,
    )
    return PackLog(record.name, wiring, cell, known, current, np.full(len(time), begin), dt, voltage, temperature)
