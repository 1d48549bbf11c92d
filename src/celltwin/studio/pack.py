"""Packs of unequal cells of the twin in hand, driven with the current of a record: what spreads, and how far."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from celltwin.data.record import SECONDS_PER_HOUR, PackRecord, Record
from celltwin.errors import CelltwinError
from celltwin.packs.draw import demo_circuit
from celltwin.physics.operation import rested
from celltwin.physics.pack import Pack, inputs, simulate_pack
from celltwin.physics.thevenin import Thevenin
from celltwin.physics.topology import parse
from celltwin.twin import Twin

MOST_CELLS, MOST_STEPS = 400, 1500


@dataclass(frozen=True, eq=False)
class Cells:
    """Voltages of the cells of a pack, or of the groups of a string, over time."""

    title: str
    time: np.ndarray  # s
    voltage: np.ndarray  # [time, cells] V


def of_record(record: PackRecord) -> Cells:
    """The groups of a measured string."""
    known = np.flatnonzero(np.isfinite(record.group_voltage).any(axis=1))
    if not len(known):
        raise CelltwinError(f"'{record.name}' holds no measured voltage", expected="one of some group, at least")
    at = known[np.unique(np.linspace(0, len(known) - 1, MOST_STEPS).astype(int))]
    title = f"{record.label}: {record.group_voltage.shape[1]} measured groups"
    return Cells(title, record.time[at] - record.time[0], record.group_voltage[at])


@dataclass(frozen=True)
class Spread:
    """What a pack to be simulated is like."""

    wiring: str = "12s1p"
    capacity: float = 0.03  # standard deviation over the cells, a fraction
    resistance: float = 0.08
    seed: int = 0


def simulated(one: Twin | None, record: Record, spread: Spread) -> Cells:
    """A pack of cells as `one` says them (of the demo's circuit without a voltage twin), under a record's current.

    The cells start at the record's state of charge, else full. Raises CelltwinError for wiring that is none, and for
    more cells than a page can show.
    """
    topology = parse(spread.wiring)
    if topology.cells > MOST_CELLS:
        raise CelltwinError("the pack is too large", got=f"{topology.cells} cells", expected=f"at most {MOST_CELLS}")
    if one is not None and one.task == "voltage":
        model, capacity, name = one.model, one.cell.reference_capacity_ah, one.name
    else:
        circuit = demo_circuit()
        model, capacity, name = Thevenin.of(circuit), circuit.capacity_ah, "the demo's circuit"
    dice = np.random.default_rng(spread.seed)
    normal = dice.standard_normal((2, topology.cells)).clip(-3.0, 3.0)
    sizes = capacity * np.clip(1.0 + spread.capacity * normal[0], 0.3, 2.0)
    pack = Pack.of(topology, model, capacity_ah=sizes, resistance=np.exp(spread.resistance * normal[1]))
    length = float(record.time[-1] - record.time[0])
    time = np.linspace(0.0, length, min(len(record), MOST_STEPS))
    charge = np.interp(time, record.time - record.time[0], record.charge_ah * SECONDS_PER_HOUR)
    current = np.diff(charge, prepend=charge[0]) / np.r_[1.0, np.diff(time)] / float(topology.share.max())
    degrees = float(np.mean(record.filled_temperature))
    soc = 1.0 if np.isnan(record.initial_soc) else float(np.clip(record.initial_soc, 0.0, 1.0))
    cell = record.cell or (one.cell if one is not None else None)
    voltage = None
    if not hasattr(model, "ocv"):
        assert cell is not None
        voltage = np.full(topology.cells, float(rested(model, cell, soc, degrees).voltage))
    state = pack.init(soc, degrees, voltage)
    dt = np.diff(time, prepend=0.0)
    _, out = simulate_pack(pack, state, inputs(current, degrees, dt))
    title = f"{spread.wiring} of {name} under the current of {record.label}"
    return Cells(title, time, np.asarray(out.voltage, float))
