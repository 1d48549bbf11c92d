"""Packs as networks of circuits: what a model of a pack has to beat, and what the graph network corrects.

    mean          one cell, of mean voltage and temperature at rest, is every cell
    independent   each cell is a circuit that starts from its own voltage at rest and carries an equal share of current
    Kirchhoff     likewise, with currents as Kirchhoff's laws have them (`physics.network`)
    told          likewise, with the capacity and resistance that the BMS knows of each cell

All have one circuit, that of the cell type, and learn what the packs of a training set have in common: by how much
their cells differ from the one in the laboratory, and how they are cooled. A string that is known from earlier logs has
a capacity, a resistance and a state of charge for each cell, and an offset of its current sensor, learned from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from celltwin.data.domain import Fixed
from celltwin.packs.log import Known
from celltwin.physics.network import Shared, Tree
from celltwin.physics.pack import Cooling, Pack, PackState
from celltwin.physics.topology import Topology

HEAT = (60.0, 0.1, 0.1)  # J/K, W/K to the coolant and W/K to a neighbour of a 5 Ah cell, where nothing was measured
OFFSET = 0.01  # C, by which a current sensor may well be off: the unit of its offset
NEAR = 0.1  # V^2, of the mean square by which logarithms of a circuit's tables move in training
HALVINGS = 22  # of the state of charge that shows a voltage at rest

Sharing = Literal["mean", "even", "kirchhoff"]


class Wiring(eqx.Module):
    """A topology as arrays: who shares current, who follows whom in series, who warms whom."""

    tree: Tree
    pairs: Array  # [pairs, 2] neighbours in heat
    series: Array  # [pairs, 2] groups that follow one another
    place: Array  # [cells, 2]: along the string and across it, from -1 to 1
    links: Array  # [cells] how many neighbours in heat, of at most 4

    @classmethod
    def of(cls, topology: Topology) -> Wiring:
        groups = np.arange(topology.groups - 1)
        same = topology.parents[1][:-1] == topology.parents[1][1:]
        pack = topology.pack
        span = np.zeros((topology.packs, 2))
        np.maximum.at(span, pack, topology.place)
        count = np.bincount(topology.neighbours.ravel(), minlength=topology.cells)
        return cls(
            Tree.of(topology),
            jnp.asarray(topology.neighbours),
            jnp.asarray(np.stack([groups, groups + 1], axis=1)[same].astype(np.int32)),
            jnp.asarray(2.0 * topology.place / np.maximum(span[pack], 1.0) - 1.0, np.float32),
            jnp.asarray(count / 4.0, np.float32),
        )

    def mean(self, x: Array) -> Array:
        """Means over each pack, at its cells: of x [cells] or [cells, features]."""
        packs = self.tree.levels[-1].count
        total = jax.ops.segment_sum(
            jnp.concatenate([x.reshape(len(x), -1), jnp.ones((len(x), 1))], 1), self.tree.pack, packs
        )
        return (total[:, :-1] / total[:, -1:])[self.tree.pack].reshape(x.shape)


class Even(eqx.Module):
    """Takes Kirchhoff's place where every cell carries an equal share of its pack's current."""

    tree: Tree

    @property
    def share(self) -> Array:
        return self.tree.share

    @property
    def parallel(self) -> bool:
        return True

    def cells_of_packs(self, x: Array) -> Array:
        return self.tree.cells_of_packs(x)

    @property
    def packs(self) -> int:
        return self.tree.packs

    def solve(self, e: Array, r: Array, current: Array, guess: Array) -> Shared:
        through = self.tree.share * self.tree.cells_of_packs(current)
        return Shared(through, self.tree.solve(e + r * through, 0.0 * r + 1e-9, current, guess).voltage)


class Held(Fixed):
    """A circuit that training leaves as it is."""

    cell: Any


class Own(eqx.Module):
    """What is known of each cell of one string from its earlier logs, [cells]."""

    log_capacity: Array
    log_resistance: Array
    soc: Array  # at the start, for a string that is always charged alike
    offset: Array  # scalar, in OFFSET: current of the string beside what its sensor shows

    @classmethod
    def of(cls, soc: Array) -> Own:
        """Cells that are alike but for their charge, and a sensor that is right: where learning begins."""
        alike = jnp.zeros_like(soc)
        return cls(alike, alike, soc, jnp.zeros((), soc.dtype))


class CircuitNetwork(eqx.Module):
    """Circuits of one type in a pack. `bind` makes the pack of a wiring; the pack is what is stepped."""

    circuit: Any  # a Thevenin, or one that is Held
    capacity: Held  # Ah, nominal
    log_capacity: Array  # of a factor on it
    log_resistance: Array
    heat: Held  # [3] of the cell, as HEAT
    log_heat: Array  # [3], of factors on it
    own: Own | None
    before: Held | None  # the circuit as it was identified, which a trained one stays near
    sharing: Sharing = eqx.field(static=True)
    told: bool = eqx.field(static=True)
    newton: int = eqx.field(static=True)

    @classmethod
    def create(
        cls,
        cell: Any,
        capacity_ah: float,
        *,
        sharing: Sharing = "kirchhoff",
        told: bool = False,
        own: Own | None = None,
        heat: Sequence[float] | None = None,
        hold: bool = True,
        newton: int = 1,
    ) -> CircuitNetwork:
        """One to be trained. `heat` (J/K, W/K to the coolant, W/K to a neighbour) is that of the cell, if known."""
        zero = jnp.zeros((), np.float32)
        circuit = Held(cell) if hold else cell
        capacity, before = Held(jnp.asarray(capacity_ah, np.float32)), None if hold else Held(cell)
        if heat is None:
            heat = [x * capacity_ah / 5.0 for x in HEAT]
        known = Held(jnp.asarray(heat, np.float32))
        return cls(circuit, capacity, zero, zero, known, jnp.zeros(3, np.float32), own, before, sharing, told, newton)

    @property
    def cell(self) -> Any:
        return self.circuit.cell if isinstance(self.circuit, Held) else self.circuit

    def bind(self, wiring: Wiring, known: Known) -> tuple[Pack, PackState]:
        """The pack and its state at the start, from what the BMS knows of its cells."""
        if self.sharing == "mean":
            known = Known(*(wiring.mean(jnp.asarray(x)) for x in known))
        logs = [jnp.log(jnp.where(jnp.isfinite(x), x, 1.0)) for x in known[2:]]
        factors = [
            jnp.where(jnp.isfinite(x) & self.told, log, common)
            for x, log, common in zip(known[2:], logs, (self.log_capacity, self.log_resistance), strict=True)
        ]
        soc = None
        if self.own is not None:
            factors = [self.log_capacity + self.own.log_capacity, self.log_resistance + self.own.log_resistance]
            soc = self.own.soc
        return self.build(wiring, known, factors[0], factors[1], soc)

    def build(
        self, wiring: Wiring, known: Known, log_capacity: Array, log_resistance: Array, soc: Array | None = None
    ) -> tuple[Pack, PackState]:
        """The pack of cells with these factors on capacity and resistance, [cells], as logarithms."""
        voltage, temperature = jnp.asarray(known.voltage), jnp.asarray(known.temperature)
        if soc is None:
            soc = self.rested_soc(voltage, temperature)
        heat = jnp.exp(self.log_heat) * self.heat.cell
        pack = Pack(
            network=wiring.tree if self.sharing == "kirchhoff" else Even(wiring.tree),  # pyright: ignore[reportArgumentType]
            cell=self.cell,
            capacity=self.capacity.cell * jnp.exp(log_capacity) + 0.0 * voltage,
            resistance=jnp.exp(log_resistance) + 0.0 * voltage,
            leak=0.0 * voltage,
            unseen=jnp.zeros(()) if self.own is None else OFFSET * self.own.offset * self.capacity.cell,
            cooling=Cooling(heat[0], heat[1], heat[2], wiring.pairs),
            own=False,
            leaks=False,
            newton=self.newton if self.sharing == "kirchhoff" else 1,
        )
        return pack, pack.init(soc, temperature, voltage)

    def rested_soc(self, voltage: Array, temperature: Array) -> Array:
        """States of charge [cells] at which the circuit at rest shows these voltages (V) at temperatures in degC."""
        curve = jax.vmap(self.cell.ocv)

        def halve(_: Any, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bounds
            middle = 0.5 * (low + high)
            above = curve(middle, temperature) > voltage
            return jnp.where(above, low, middle), jnp.where(above, middle, high)

        begin = jnp.zeros_like(voltage) - 0.02, jnp.zeros_like(voltage) + 1.03
        low, high = jax.lax.fori_loop(0, HALVINGS, halve, jax.lax.stop_gradient(begin))
        return jax.lax.stop_gradient(0.5 * (low + high))

    def penalty(self) -> Array:
        """Prior: heat and common factors near where they began, own factors near one another; the circuit's own."""
        total = 1e-4 * jnp.mean(self.log_heat**2)
        if self.own is not None:
            spread = [jnp.mean(x**2) for x in (self.own.log_capacity, self.own.log_resistance)]
            total = total + 1e-4 * sum(spread) + 1e-6 * self.own.offset**2
        if self.before is not None:
            now, before = (
                jnp.concatenate([x.ravel() for x in (c.log_resistance, c.log_tau, c.log_scale) if x is not None])
                for c in (self.circuit, self.before.cell)
            )
            total = total + self.circuit.ocv.penalty() + NEAR * jnp.mean((now - before) ** 2)
        return total
