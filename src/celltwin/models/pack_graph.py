"""Pack graph network: cells are nodes, wires and ways of heat are edges, and messages correct each cell's circuit.

    z_j = E(x_j),   z_j <- z_j + M(z_j, parallel z, series z, thermal z, pack z)              at the start, twice
    (log q_j, log r_j, soc_j) = what the BMS knows + bounded D(z_j)                 capacity, resistance, charge

    V, I, T of the circuits by Kirchhoff's laws and conduction, see `physics.pack`                     every step
    h_j <- (1 - g_j) h_j + g_j tanh(W [y_j, z_j, h_j, parallel h, series h, thermal h, pack h])
    V_j = V_circuit,j + a_j + b_j R I_j,   (a_j, b_j) = bounded linear in h_j

x_j is what a BMS knows of a cell when it wakes, y_j what the circuit says of it (C-rate, state of charge, temperature,
each also beside the mean of the pack). A measured voltage enters at the start and never again. Messages are means over
the other cells of a group, over the groups before and after it, over neighbours in heat and over the pack (Gilmer et
al., ICML 2017, in form). All weights are shared by all cells, so the order of cells in a group is of no matter and any
number of cells in any wiring will do. A feature that the BMS does not know is left out and flagged; in training it
forgets some on purpose. The gate is held over the step: g = 1 - (1 - g_0)^(dt / trained dt).
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from celltwin.models.layers import Dense, Mlp
from celltwin.models.pack_circuit import CircuitNetwork, Wiring
from celltwin.packs.log import Known
from celltwin.physics.pack import Pack, PackInput, PackOutput, PackState

NODE, HIDDEN = 16, 12  # sizes of z and h
FEATURES, SIGNALS = 10, 5  # of x and y
MOST = (0.12, 0.35, 0.02)  # by which the start may move log capacity, log resistance and state of charge
MOST_VOLT, MOST_RESISTANCE = 0.03, 0.2  # V, and share of a typical resistance, that a and b may reach
UNITS = (0.02, 0.025, 0.08, 1.0)  # of voltage in V, log capacity, log resistance and temperature in K between cells
TRAINED_DT = 6.0  # s
OHM = 0.04  # typical of a cell of 5 Ah


class GraphState(NamedTuple):
    pack: PackState
    hidden: Array  # [cells, HIDDEN]


def gather(wiring: Wiring, x: Array) -> Array:
    """Messages to each cell: means of x [cells, n] over its group, groups beside, neighbours and pack, [cells, 4 n]."""
    group, cells = wiring.tree.levels[0], x.shape[0]
    sums = jax.ops.segment_sum(x, group.parent, group.count)
    count = jax.ops.segment_sum(jnp.ones(cells, x.dtype), group.parent, group.count)
    others = (sums[group.parent] - x) / jnp.maximum(count[group.parent] - 1.0, 1.0)[:, None]
    series = _beside(wiring.series, sums / count[:, None])[group.parent]
    return jnp.concatenate([others, series, _beside(wiring.pairs, x), wiring.mean(x)], axis=1)


def _beside(pairs: Array, x: Array) -> Array:
    """Means over all that a row is paired with, 0 for one without."""
    to, of = jnp.concatenate([pairs[:, 0], pairs[:, 1]]), jnp.concatenate([pairs[:, 1], pairs[:, 0]])
    wide = jnp.concatenate([x, jnp.ones((x.shape[0], 1), x.dtype)], axis=1)
    total = jax.ops.segment_sum(wide[of], to, x.shape[0])
    return total[:, :-1] / jnp.maximum(total[:, -1:], 1.0)


class Bound(eqx.Module):
    """A graph network on one wiring: what is stepped."""

    pack: Pack
    wiring: Wiring
    node: Array  # [cells, NODE]
    update: Dense
    correct: Dense

    def step(self, state: GraphState, u: PackInput) -> tuple[GraphState, PackOutput]:
        circuits, out = self.pack.step(state.pack, u)
        rate = out.current / self.pack.capacity
        beside = jnp.stack([out.soc, out.temperature], axis=1)
        away = beside - self.wiring.mean(beside)
        y = [rate, 2.0 * out.soc - 1.0, (out.temperature - 25.0) / 15.0, 30.0 * away[:, 0], away[:, 1] / UNITS[3]]
        h = state.hidden
        seen = jnp.concatenate([jnp.stack(y, axis=1), self.node, h, gather(self.wiring, h)], axis=1)
        gate, value = jnp.split(jax.vmap(self.update)(seen), 2, axis=1)
        # log(1 - sigmoid(x)) = -softplus(x): the gate opened dt / TRAINED_DT times.
        share = -jnp.expm1(-jax.nn.softplus(gate - 2.0) * u.dt / TRAINED_DT)
        h = h + share * (jnp.tanh(value) - h)
        a, b = jnp.tanh(jax.vmap(self.correct)(h)).T
        ohm = OHM * 5.0 / self.pack.capacity
        voltage = out.voltage + MOST_VOLT * a + MOST_RESISTANCE * ohm * b * out.current
        return GraphState(circuits, h), out._replace(voltage=voltage)


class PackGraph(eqx.Module):
    """Circuits with what messages between them tell. `bind` takes any wiring."""

    base: CircuitNetwork
    embed: Mlp
    talk: tuple[Mlp, ...]
    decode: Mlp
    update: Dense
    correct: Dense

    @classmethod
    def create(cls, base: CircuitNetwork, key: Array) -> PackGraph:
        """Untrained, it says what its circuits say; `base` is best a trained network of circuits."""
        keys = jax.random.split(key, 6)
        inside = SIGNALS + NODE + 5 * HIDDEN
        return cls(
            base=base,
            embed=Mlp.create((FEATURES, NODE, NODE), keys[0], last_gain=0.5),
            talk=tuple(Mlp.create((5 * NODE, NODE, NODE), key, last_gain=0.3) for key in keys[1:3]),
            decode=Mlp.create((NODE, NODE, 3), keys[3]),
            update=Dense.create(inside, 2 * HIDDEN, keys[4], gain=0.7),
            correct=Dense.create(HIDDEN, 2, keys[5], gain=0.02),
        )

    def nodes(self, wiring: Wiring, known: Known) -> tuple[Array, Array, Array]:
        """z [cells, NODE], and the logarithms of capacity and resistance that the BMS knows, [cells]."""
        voltage, temperature = jnp.asarray(known.voltage), jnp.asarray(known.temperature)
        logs, flags = [], []
        for told, common in ((known.capacity, self.base.log_capacity), (known.resistance, self.base.log_resistance)):
            flag = jnp.isfinite(told)
            logs.append(jnp.where(flag, jnp.log(jnp.where(flag, told, 1.0)), common))
            flags.append(flag.astype(voltage.dtype))
        beside = jnp.stack([voltage, temperature, *logs], axis=1)
        away = (beside - wiring.mean(beside)) / jnp.asarray([UNITS[0], UNITS[3], UNITS[1], UNITS[2]])
        soc = self.base.rested_soc(voltage, temperature)
        rest = [4.0 * soc - 3.0, (temperature - 25.0) / 15.0, *flags, wiring.place[:, 0], wiring.links]
        z = jax.vmap(self.embed)(jnp.concatenate([away, jnp.stack(rest, axis=1)], axis=1))
        for layer in self.talk:
            z = z + jax.vmap(layer)(jnp.concatenate([z, gather(wiring, z)], axis=1))
        return z, logs[0], logs[1]

    def bind(self, wiring: Wiring, known: Known) -> tuple[Bound, GraphState]:
        """The network on a wiring and its state at the start, from what the BMS knows of the cells."""
        z, log_capacity, log_resistance = self.nodes(wiring, known)
        moved = jnp.asarray(MOST) * jnp.tanh(jax.vmap(self.decode)(z))
        own = self.base.own
        if own is not None:
            log_capacity = self.base.log_capacity + own.log_capacity
            log_resistance = self.base.log_resistance + own.log_resistance
        voltage, temperature = jnp.asarray(known.voltage), jnp.asarray(known.temperature)
        soc = self.base.rested_soc(voltage, temperature) if own is None else own.soc
        pack, state = self.base.build(
            wiring, known, log_capacity + moved[:, 0], log_resistance + moved[:, 1], soc + moved[:, 2]
        )
        hidden = jnp.zeros((voltage.shape[0], HIDDEN), voltage.dtype)
        return Bound(pack, wiring, z, self.update, self.correct), GraphState(state, hidden)

    def penalty(self) -> Array:
        """Prior of the circuits, and small weights of what corrects them."""
        return self.base.penalty() + 1e-7 * sum(
            jnp.sum(jnp.square(w)) for w in (self.correct.weight, self.decode.layers[-1].weight)
        )
