"""A pack: cells in a circuit, each any voltage model of its own size, resistance, charge and temperature.

    V_j = f(x_j, I_j, T_j, dt)                      of every cell, by its own step
    sum of currents into a node = 0, sum of voltages around a loop = 0             Kirchhoff, see `physics.network`
    C dT_j/dt = I_j (V_j - U_j) - K (T_j - T_coolant) - sum_k k (T_j - T_k)        over neighbours k

The currents are those at which the voltages at the end of the step obey Kirchhoff's laws: Newton's method on the cells'
own steps, whose slopes dV/dI are exact. A circuit without charge transfer is linear but for its tables over state of
charge, and two iterations are exact to rounding; with an asinh three are. Their number is fixed.

A cell of capacity factor q and resistance factor r behaves as the model of a cell r q times as large under r times the
current: the state of charge moves by I / (q Q) and every overpotential grows by r, for a circuit exactly (but for the
warmth of its core). So any celltwin model serves, without knowing that it is scaled. A leak, which is self-discharge
or a balancing resistor, takes V/R past the cell. Heat flows between two cells as (T_a - T_b) k dt phi(x), phi(x) =
(1 - exp -x)/x, x = dt times the rates of both: what one loses the other gains, and no step is too long to be stable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from celltwin.errors import CelltwinError
from celltwin.interface import Input, Output, Start
from celltwin.physics.circuit import Circuit
from celltwin.physics.network import Mesh, Tree
from celltwin.physics.thevenin import Thevenin
from celltwin.physics.topology import Netlist, Topology, parse

NEWTON = 3  # iterations a step; a circuit without charge transfer needs 2


class PackInput(NamedTuple):
    """What drives packs during the step that ends now."""

    current: Array  # [packs] A, positive = charge, held over the step
    ambient: Array  # [packs] or [cells] degC, of the coolant
    dt: Array  # s, length of the step; 0 at the first sample


class PackOutput(NamedTuple):
    """What is true of every cell at the end of the step."""

    voltage: Array  # [cells] V at the cell's own terminals
    soc: Array  # [cells] fraction
    temperature: Array  # [cells] degC
    current: Array  # [cells] A through the cell's terminals, positive = charge
    pack_voltage: Array  # [packs] V


class PackState(NamedTuple):
    cells: Any  # states of the cells' models, [cells] each
    current: Array  # [cells] A at the terminals
    pack_current: Array  # [packs] A
    temperature: Array  # [cells] degC


class Cooling(eqx.Module):
    """Heat capacity and ways of heat of cells that are one lump each. Numbers, or one value a cell or pair."""

    heat_capacity: Array  # J/K
    coolant: Array  # W/K to the coolant
    neighbour: Array  # W/K between neighbours
    pairs: Array  # [pairs, 2] cells

    @classmethod
    def of(cls, topology: Topology, heat_capacity: Any, coolant: Any, neighbour: Any) -> Cooling:
        """For cells beside one another as a topology places them. Raises CelltwinError for what is not positive."""
        values = [np.asarray(x, np.float32) for x in (heat_capacity, coolant, neighbour)]
        if values[0].min() <= 0.0 or values[1].min() < 0.0 or values[2].min(initial=0.0) < 0.0:
            raise CelltwinError("cooling of a pack", got=[float(v.min()) for v in values], expected="J/K above 0, W/K")
        return cls(*(jnp.asarray(v) for v in values), pairs=jnp.asarray(topology.neighbours))

    def step(self, temperature: Array, heat: Array, ambient: Array, dt: Array) -> Array:
        """Temperatures [cells] in degC after heat (W) was held for dt seconds."""
        cells = temperature.shape[0]
        a, b = self.pairs[:, 0], self.pairs[:, 1]
        k = jnp.broadcast_to(self.neighbour, a.shape)
        own = self.coolant / self.heat_capacity + jnp.zeros(cells, temperature.dtype)
        rate = own + _sums(k, k, a, b, cells) / self.heat_capacity
        passed = k * (temperature[a] - temperature[b]) * dt * _phi(dt * (rate[a] + rate[b]))
        gained = _sums(-passed, passed, a, b, cells)
        cooled = self.coolant * (ambient - temperature) * dt * _phi(dt * rate)
        return temperature + (heat * dt * _phi(dt * own) + cooled + gained) / self.heat_capacity


def _sums(at_a: Array, at_b: Array, a: Array, b: Array, cells: int) -> Array:
    """Sums over the pairs of what comes to their first and second cell, [cells]."""
    return jax.ops.segment_sum(jnp.concatenate([at_a, at_b]), jnp.concatenate([a, b]), cells)


def _phi(x: Array) -> Array:
    """(1 - exp -x) / x, 1 at 0."""
    safe = jnp.where(x > 1e-4, x, 1.0)
    return jnp.where(x > 1e-4, -jnp.expm1(-safe) / safe, 1.0 - 0.5 * x)


class Pack(eqx.Module):
    """Cells of a topology or netlist; several packs side by side where the topology is joined of several."""

    network: Tree | Mesh
    cell: Any  # a voltage model for all cells, or one each with a leading axis [cells] on every array
    capacity: Array  # [cells] Ah
    resistance: Array  # [cells] factor on every overpotential
    leak: Array  # [cells] 1/ohm past the cell
    unseen: Array  # A that flows into the pack beside what its sensor shows
    cooling: Cooling | None  # None: cells are at ambient
    own: bool = eqx.field(static=True)  # does each cell have a model of its own?
    leaks: bool = eqx.field(static=True)
    newton: int = eqx.field(static=True)

    @classmethod
    def of(
        cls,
        wiring: str | Topology | Netlist,
        cell: Any,
        *,
        capacity_ah: Any,
        resistance: Any = 1.0,
        contact: Any = 0.0,
        link: Any = 0.0,
        leak: Any = 0.0,
        unseen: float = 0.0,
        cooling: Cooling | None = None,
        newton: int = NEWTON,
    ) -> Pack:
        """A pack of a circuit or voltage model `cell`, or of a sequence of as many as there are cells, of one form.

        Numbers are for all cells, arrays [cells] for each: capacity in Ah, `resistance` as a factor, `contact` in ohm
        in series with the cell, `leak` in 1/ohm across it; `link` in ohm is in series with each group. In a netlist,
        contacts and links are its own resistors. `unseen` is the current in A that a sensor which is off does not show.

        Raises CelltwinError for wiring that is none, models that differ in form, and values that make no sense.
        """
        if isinstance(wiring, Netlist):
            if np.any(contact) or np.any(link):
                raise CelltwinError("contacts of a netlist", got="contact or link", fix="add resistors to the netlist")
            cells = len(wiring.cells)
            network: Tree | Mesh = Mesh.of(wiring)
        else:
            topology = parse(wiring) if isinstance(wiring, str) else wiring
            cells, network = topology.cells, Tree.of(topology, contact, link)
        own = isinstance(cell, Sequence)
        models = [Thevenin.of(c) if isinstance(c, Circuit) else c for c in (cell if own else [cell])]
        if own and len(models) != cells:
            raise CelltwinError("models of a pack", got=len(models), expected=f"one for each of {cells} cells, or one")
        if len({jax.tree.structure(eqx.filter(m, eqx.is_array)) for m in models}) > 1:
            raise CelltwinError("cells of a pack differ in form", expected="the same tables and states of every cell")
        values = []
        for name, value in (("capacity_ah", capacity_ah), ("resistance", resistance), ("leak", leak)):
            value = np.broadcast_to(np.asarray(value, np.float32), (cells,))
            if not np.isfinite(value).all() or value.min() < 0.0 or (name != "leak" and value.min() == 0.0):
                raise CelltwinError(f"{name} of a pack", got=float(value.min()), expected="positive numbers")
            values.append(jnp.asarray(value))
        model = jax.tree.map(lambda *x: jnp.stack(x), *models) if own else models[0]
        values.append(jnp.asarray(unseen, np.float32))
        return cls(network, model, *values, cooling=cooling, own=own, leaks=bool(np.any(leak)), newton=newton)

    @property
    def cells(self) -> int:
        return self.capacity.shape[0]

    def init(self, soc: Any, temperature: Any, voltage: Any = None) -> PackState:
        """At rest, at states of charge (fraction) and temperatures (degC) [cells].

        `voltage` is the measured one of each cell in V, [cells], for models that make use of it; default: at rest on
        the curve.
        """
        dtype = self.capacity.dtype
        soc, temperature = (jnp.broadcast_to(jnp.asarray(x, dtype), (self.cells,)) for x in (soc, temperature))
        size = self.capacity * self.resistance
        if voltage is None:
            voltage = self._each(lambda cell, s, t: rest_voltage(cell, s, t), soc, temperature)
        zero = jnp.zeros_like(soc)
        start = Start(jnp.asarray(voltage, dtype), zero, temperature, soc, size)
        states = self._each(lambda cell, *parts: cell.init(Start(*parts)), *start)
        return PackState(states, zero, jnp.zeros(self.network.packs, dtype), temperature)

    def step(self, state: PackState, u: PackInput) -> tuple[PackState, PackOutput]:
        u = u._replace(current=u.current + self.unseen)
        ambient = u.ambient if u.ambient.shape == (self.cells,) else self.network.cells_of_packs(u.ambient)
        warm = ambient if self.cooling is None else state.temperature
        # At the terminals, to begin with: as before, and the change as it would be shared among equals.
        through = state.current + self.network.share * self.network.cells_of_packs(u.current - state.pack_current)
        if not (self.network.parallel or self.leaks):
            through = self.network.cells_of_packs(u.current)
        inside, pack_voltage = through, None
        # A first guess of what leaks is made by the first iteration, which knows the voltage.
        for _ in range(self.newton if self.network.parallel or self.leaks else 0):
            voltage, slope = self._linear(state.cells, inside, warm, u.dt)
            bypass = 1.0 / (1.0 + slope * self.leak)
            e, r = bypass * (voltage - slope * inside), bypass * slope
            through, pack_voltage = self.network.solve(e, r, u.current, through)
            inside = through - self.leak * (e + r * through)
        states, output = self._advance(state.cells, inside, warm, u.dt)
        if pack_voltage is None:
            small = jnp.zeros_like(output.voltage) + 1e-9
            _, pack_voltage = self.network.solve(output.voltage - small * through, small, u.current, through)
        after = warm
        if self.cooling is not None:
            heat = inside * (output.voltage - self._each(rest_voltage, output.soc, warm))
            after = self.cooling.step(state.temperature, heat, ambient, u.dt)
        state = PackState(states, through, u.current, after)
        return state, PackOutput(output.voltage, output.soc, after, through, pack_voltage)

    def _each(self, what: Any, *columns: Array) -> Any:
        """`what(cell, ...)` of every cell."""
        return jax.vmap(what, (0 if self.own else None, *(0 for _ in columns)))(self.cell, *columns)

    def _advance(self, states: Any, current: Array, temperature: Array, dt: Array) -> tuple[Any, Output]:
        def one(cell: Any, x: Any, i: Array, t: Array) -> Any:
            return cell.step(x, Input(i, t, dt))

        return self._each(one, states, self.resistance * current, temperature)

    def _linear(self, states: Any, current: Array, temperature: Array, dt: Array) -> tuple[Array, Array]:
        """Voltage (V) and its slope over current (ohm) of every cell at the end of the step."""

        def voltages(i: Array) -> Array:
            return self._advance(states, i, temperature, dt)[1].voltage

        return jax.jvp(voltages, (current,), (jnp.ones_like(current),))


def rest_voltage(cell: Any, soc: Array, temperature: Array) -> Array:
    """Open-circuit voltage of a model that has such a curve. Raises CelltwinError for one that has none."""
    curve = getattr(cell, "ocv", None)
    if curve is None:
        raise CelltwinError(
            f"{type(cell).__name__} has no open-circuit voltage",
            expected="a circuit, whose heat and voltage at rest are known",
            fix="give the start's voltage, and no cooling",
        )
    return curve(soc, temperature)


@eqx.filter_jit
def simulate_pack(pack: Any, state: Any, inputs: PackInput) -> tuple[Any, PackOutput]:
    """Closed-loop simulation: the final state, and outputs [time, ...] for inputs [time, ...]."""
    return jax.lax.scan(lambda s, u: pack.step(s, u), state, inputs)


def inputs(current: Any, ambient: Any, dt: Any, packs: int = 1) -> PackInput:
    """Inputs [time, packs] of a current in A ([time] or [time, packs]) and an ambient and dt of numbers or [time]."""
    current = np.asarray(current, np.float32)
    current = np.broadcast_to(current[:, None], (len(current), packs)) if current.ndim == 1 else current
    ambient = np.asarray(ambient, np.float32)
    ambient = ambient[:, None] if ambient.ndim == 1 else ambient
    steps = np.broadcast_to(np.asarray(dt, np.float32), (len(current),))
    return PackInput(*(jnp.asarray(x) for x in (current, np.broadcast_to(ambient, current.shape), steps)))
