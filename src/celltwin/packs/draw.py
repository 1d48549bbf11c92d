"""Packs of unequal cells, drawn at random and driven by real currents: data for training and tests of pack models.

Cells of one type differ as cells of one batch do, and from the cell that their circuit was identified from. One in two
packs has a weak cell, one in four a loosely joined one. The coolant warms along its way. Sensors are noisy. What the
BMS is told of capacity and resistance is an earlier measurement, with its error; what is at rest, the first sample.

Sizes are those of Baumann et al. (J. Power Sources 396 (2018) 2: capacity 1 %, resistance 2 to 7 % in batches of new
cells) for cells that have aged apart a little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files as package_files
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from celltwin.data.record import Cell, Record
from celltwin.exchange import ecm_ps
from celltwin.packs.log import Known, PackLog
from celltwin.physics.circuit import Circuit
from celltwin.physics.pack import Cooling, Pack, PackInput, simulate_pack
from celltwin.physics.thevenin import Thevenin
from celltwin.physics.topology import Topology, join, parse

CUT_OFF = 3.0  # V, where a discharge ends; logs go on to LAST, so that a late forecast can be seen to be late
LAST = 2.7
STEP = 6.0  # s
SAMPLES = 1200  # at most


@dataclass(frozen=True)
class Spread:
    """Standard deviations of cells and sensors, and means that differ from the cell in the laboratory."""

    capacity: float = 0.025
    resistance: float = 0.08
    soc: float = 0.01
    mean_capacity: float = 0.985
    mean_resistance: float = 1.08
    told_capacity: float = 0.01  # error of what the BMS is told
    told_resistance: float = 0.04
    voltage: float = 0.002  # V, of a sensor's noise
    rest_voltage: float = 0.001  # V, averaged at rest
    temperature: float = 0.3  # K
    current: float = 0.002  # of the reading
    weak: float = 0.5  # share of packs with a weak cell
    loose: float = 0.25  # with a loosely joined one


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one cell, some seconds after the start."""

    kind: Literal["resistance", "self-discharge", "loose joint"]
    size: float  # factor on the resistance; ohm across the cell; ohm in series with it
    begin: float = 0.0  # s


@dataclass(frozen=True)
class Order:
    """What to draw: wiring, seed, and the log of one cell whose current the pack is driven with.

    The same seed on another day is the same pack, of which a BMS was told the same, otherwise charged and in other
    weather.
    """

    topology: str
    seed: int
    cycle: Record
    fault: Fault | None = None
    day: int = 0


def demo_circuit() -> Circuit:
    """The circuit of the bundled demo's cell, as `celltwin identify demo` finds it."""
    return ecm_ps.load(str(package_files("celltwin.data") / "demo" / "circuit.json"))


def draw(orders: Sequence[Order], circuit: Circuit, spread: Spread | None = None) -> list[PackLog]:
    """Logs of packs, each drawn anew from its order's seed, simulated side by side.

    Orders of the same topologies in the same sequence reuse one compiled program.
    """
    spread = spread or Spread()
    parts = [_Drawn(order, circuit, spread) for order in orders]
    topology = join([part.topology for part in parts])

    def column(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts]).astype(np.float32)

    def built(fault: str) -> Pack:
        return Pack.of(
            topology,
            circuit,
            capacity_ah=column("capacity"),
            resistance=column(f"{fault}resistance"),
            contact=column(f"{fault}contact"),
            link=np.concatenate([np.full(part.topology.groups, part.link) for part in parts]),
            leak=column(f"{fault}leak"),
            cooling=Cooling.of(topology, 65.0, 0.12, 0.35),
        )

    pack, faulty = built(""), built("fault_")
    current = np.stack([part.current for part in parts], axis=1).astype(np.float32)
    dt = np.full(SAMPLES, STEP, np.float32)
    dt[0] = 0.0
    coolant = np.broadcast_to(column("coolant"), (SAMPLES, topology.cells))
    whole = PackInput(jnp.asarray(current), jnp.asarray(coolant), jnp.asarray(dt))
    begins = {part.begin for part in parts if part.begin > 0}
    edge = begins.pop() if begins else 0
    assert not begins, "faults of one call begin together"
    state, pieces = pack.init(column("soc"), column("coolant")), []
    for which, part in ((pack, slice(0, edge)), (faulty, slice(edge, SAMPLES))):
        if part.stop > part.start:
            state, out = simulate_pack(which, state, jax.tree.map(lambda x, part=part: x[part], whole))
            pieces.append(jax.tree.map(np.asarray, out))
    out = jax.tree.map(lambda *x: np.concatenate(x), *pieces)
    return [part.log(out, topology.pack == number) for number, part in enumerate(parts)]


class _Drawn:
    """One pack as it was drawn, all [cells]."""

    def __init__(self, order: Order, circuit: Circuit, spread: Spread):
        self.order, self.circuit, self.spread = order, circuit, spread
        self.topology: Topology = parse(order.topology)
        cells, dice = self.topology.cells, np.random.default_rng([order.seed, 20])
        normal = dice.standard_normal((4, cells)).clip(-3.0, 3.0)
        capacity = spread.mean_capacity * (1.0 + spread.capacity * normal[0])
        # Resistance rises as capacity fades, in part.
        aged = 0.8 * normal[1] - 0.6 * normal[0]
        resistance = spread.mean_resistance * np.exp(spread.resistance * aged)
        contact = dice.uniform(3e-4, 8e-4, cells)
        chance, at = dice.random(2), dice.integers(cells, size=3)
        if chance[0] < spread.weak:
            capacity[at[0]] *= dice.uniform(0.86, 0.95)
            resistance[at[0]] *= dice.uniform(1.1, 1.4)
        if chance[1] < spread.loose:
            contact[at[1]] += dice.uniform(4e-3, 12e-3)
        self.capacity, self.resistance, self.contact = circuit.capacity_ah * capacity, resistance, contact
        self.link = float(dice.uniform(2e-4, 5e-4))
        # Cells in parallel have rested together and share a voltage: a state of charge for each group.
        charged = dice.uniform(0.9, 0.99)
        uneven = spread.soc * dice.standard_normal(self.topology.groups).clip(-2.5, 0.9)
        self.ambient, warmer, load = (float(dice.uniform(*ends)) for ends in ((8.0, 38.0), (0.0, 4.0), (0.85, 1.2)))
        self.today = dice
        if order.day:
            self.today = np.random.default_rng([order.seed, 20, order.day])
            charged, self.ambient, load = self.today.uniform((0.9, 8.0, 0.85), (0.99, 38.0, 1.2))
        self.soc = (charged + uneven)[self.topology.group].clip(0.05, 1.0)
        row = self.topology.place[:, 0]
        self.coolant = self.ambient + warmer * (row / max(1, row.max()) - 0.5)
        self.current = _drive(order.cycle, load) / float(self.topology.share.max())
        self.current *= float(capacity.mean()) * circuit.capacity_ah / _nominal(order.cycle)
        self.dice = dice
        self.leak = np.zeros(cells)
        self.fault_leak, self.begin, self.faulty = np.zeros(cells), 0, -1
        self.fault_resistance, self.fault_contact = self.resistance.copy(), contact.copy()
        if order.fault is not None:
            self.begin, self.faulty = int(order.fault.begin / STEP), int(at[2])
            if order.fault.kind == "resistance":
                self.fault_resistance[self.faulty] *= order.fault.size
            elif order.fault.kind == "loose joint":
                self.fault_contact[self.faulty] += order.fault.size
            else:
                self.fault_leak[self.faulty] = 1.0 / order.fault.size

    def log(self, out: Any, mine: np.ndarray) -> PackLog:
        """What sensors see of the simulation until the weakest cell is empty, and what the BMS was told."""
        spread, dice, today, cells = self.spread, self.dice, self.today, self.topology.cells
        # Wires that sense a voltage sit on the rails, and joints are within.
        sound = np.arange(SAMPLES)[:, None] < self.begin
        joint = np.where(sound, self.contact, self.fault_contact)
        voltage, soc = out.voltage[:, mine] + joint * out.current[:, mine], out.soc[:, mine]
        empty = np.flatnonzero((voltage < LAST).any(axis=1) | (soc < 0.0).any(axis=1))
        end = max(2, int(empty[0]) if len(empty) else len(voltage))
        typical = float(np.mean(self.circuit.r0) + np.mean(self.circuit.r.sum(axis=0)))
        r = self.resistance + self.contact / typical
        told = [
            self.capacity / self.circuit.capacity_ah * (1.0 + spread.told_capacity * dice.standard_normal(cells)),
            r * (1.0 + spread.told_resistance * dice.standard_normal(cells)),
        ]
        noise = today.standard_normal((2, end, cells))
        rest = voltage[0] + spread.rest_voltage * today.standard_normal(cells)
        warm = self.coolant + spread.temperature * today.standard_normal(cells)
        reading = 1.0 + spread.current * today.standard_normal(end)
        cell = Cell("simulated", self.circuit.capacity_ah, self.circuit.voltage_limits_volt, self.circuit.capacity_ah)
        return PackLog(
            name=f"{self.order.topology} {self.order.cycle.name} #{self.order.seed}",
            topology=self.topology,
            cell=cell,
            known=Known(rest, warm, *told),
            current=self.current[:end] * reading,
            ambient=np.full(end, self.ambient),
            dt=STEP,
            voltage=voltage[:end] + spread.voltage * noise[0],
            temperature=out.temperature[:end, mine] + spread.temperature * noise[1],
            truth={
                "voltage": voltage[:end],
                "soc": soc[:end],
                "capacity": self.capacity,
                "resistance": self.resistance,
                "contact": self.contact,
                "faulty": self.faulty,
                "begin": self.begin,
            },
        )


def _nominal(cycle: Record) -> float:
    if cycle.cell is None:
        return float(np.abs(cycle.current).max()) / 3.0
    return cycle.cell.nominal_capacity_ah


def _drive(cycle: Record, scale: float) -> np.ndarray:
    """The current of a cycle as means over STEP, again and again, [SAMPLES] A; at rest in the first sample."""
    time = np.arange(cycle.time[0], cycle.time[-1], STEP)
    charge = np.interp(time, cycle.time, cycle.charge_ah * 3600.0)
    steps = np.tile(np.diff(charge) / STEP, 1 + SAMPLES // max(1, len(time) - 1))[: SAMPLES - 1]
    return np.r_[0.0, scale * steps]


def nominal(circuit: Circuit) -> Thevenin:
    """The cell that models of packs start from."""
    return Thevenin.of(circuit)
