"""LSTM of one cell, run for every cell of a pack: a learned baseline that knows of no other cell.

    V_j = 3.7 V + 0.5 V w LSTM(C-rate, ambient, counted charge, voltage at rest)_j

Every cell carries an equal share of the current. Hochreiter & Schmidhuber, Neural Computation 9 (1997) 1735.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from celltwin.models.layers import Dense, lstm
from celltwin.models.pack_circuit import Held, Wiring
from celltwin.packs.log import Known
from celltwin.physics.network import Tree
from celltwin.physics.pack import PackInput, PackOutput

UNITS = 32
TRAINED_DT = 6.0  # s


class LstmState(NamedTuple):
    hidden: Array  # [cells, UNITS]
    cell: Array
    charge: Array  # [cells] counted since the start, of the nominal capacity


class BoundLstm(eqx.Module):
    tree: Tree
    start: Array  # [cells] V
    gates: Dense
    out: Dense
    capacity: Array  # Ah

    def step(self, state: LstmState, u: PackInput) -> tuple[LstmState, PackOutput]:
        current = self.tree.share * self.tree.cells_of_packs(u.current)
        ambient = self.tree.cells_of_packs(u.ambient)
        charge = state.charge + current * u.dt / (3600.0 * self.capacity)
        x = [current / self.capacity, (ambient - 25.0) / 15.0, 2.0 * charge + 1.0, 5.0 * (self.start - 4.1)]
        seen = jnp.concatenate([jnp.stack(x, axis=1), state.hidden], axis=1)
        hidden, cell = lstm(jax.vmap(self.gates)(seen), state.cell, u.dt / TRAINED_DT)
        voltage = 3.7 + 0.5 * jax.vmap(self.out)(hidden)[:, 0]
        total = self.tree.solve(voltage - 1e-9 * current, 0.0 * voltage + 1e-9, u.current, current).voltage
        return LstmState(hidden, cell, charge), PackOutput(voltage, 1.0 + charge, ambient, current, total)


class PackLstm(eqx.Module):
    """`bind` makes what is stepped, as of the other models of packs. Its state of charge counts from full."""

    gates: Dense
    out: Dense
    capacity: Held

    @classmethod
    def create(cls, capacity_ah: float, key: Array) -> PackLstm:
        first, second = jax.random.split(key)
        gates = Dense.create(4 + UNITS, 4 * UNITS, first)
        gates = eqx.tree_at(lambda d: d.bias, gates, gates.bias.at[:UNITS].set(2.0))  # remember, to begin with
        return cls(gates, Dense.create(UNITS, 1, second), Held(jnp.asarray(capacity_ah, np.float32)))

    def bind(self, wiring: Wiring, known: Known) -> tuple[Any, LstmState]:
        voltage = jnp.asarray(known.voltage)
        zero = jnp.zeros((voltage.shape[0], UNITS), voltage.dtype)
        runner = BoundLstm(wiring.tree, voltage, self.gates, self.out, self.capacity.cell)
        return runner, LstmState(zero, zero, 0.0 * voltage)
