"""The published ConvLSTM of state of charge, as a preset: windows of 100 samples of five features, 64 filters.

    x = V, I, T, mean of V, mean of I                   the means since the window began
    f, i, o = sigmoid(W x + U h + b),  g = tanh(W x + U h + b)           c = f c + i g,   h = o tanh(c)
    soc, log std = W3 relu(W2 relu(W1 h + b1) + b2) + b3

The published input is (100, 1, 1, 5): 100 maps of one row, one column and five channels. With no neighbours a
convolution is a product with one matrix, so this ConvLSTM of 64 filters *is* an LSTM of 64 units, and is written as
one. What differs from the publication, and why:

- Its fifth feature, a trailing mean of the state of charge itself, is computed from the label. The mean of current
  stands in its place.
- It computes 100 steps for each label. Here two windows run side by side, a new one begins every 100 samples, and the
  older one says the estimate: it has seen the last 100 to 199 samples (fewer in the first 100 of a record) and, as
  published, nothing before them. A label costs two steps, and the reference gets to see rather more than its due.
- A second output says the doubt. The dropout of 0.3 in training is left out.

Windows are of samples, as published: at another sampling than the trained one they span another time, and nothing
makes up for that.

Source: X. Shi et al., NIPS 28 (2015), for the cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from celltwin.data.domain import Domain
from celltwin.data.record import Record
from celltwin.estimators.network import say
from celltwin.interface import Estimate, Measurement, Start
from celltwin.models.layers import Dense

CHANNELS = 5
LIMIT = 6.0  # standard deviations, beyond which an input is cut off


class Window(NamedTuple):
    """What an LSTM knows of the window that it has begun."""

    age: Array  # samples
    sums: Array  # [2] of voltage and current, in standard deviations
    hidden: Array  # [filters]
    cell: Array  # [filters]


class ReferenceState(NamedTuple):
    sensors: Array  # [3] last known voltage, current and temperature, in standard deviations
    older: Window
    newer: Window


class ReferenceConvLstm(eqx.Module):
    """An LSTM over a window, with three dense layers on its last output."""

    gates: Dense
    layers: tuple[Dense, Dense, Dense]
    domain: Domain
    window: int = eqx.field(static=True)  # samples

    @classmethod
    def create(
        cls, records: Sequence[Record], domain: Domain, key: Array, window: int = 100, filters: int = 64
    ) -> ReferenceConvLstm:
        """The published sizes by default; forget gates start open by one unit, as is usual."""
        keys = jax.random.split(key, 4)
        gates = Dense.create(CHANNELS + filters, 4 * filters, keys[0])
        gates = Dense(gates.weight, gates.bias.at[:filters].set(1.0))
        layers = (
            Dense.create(filters, 64, keys[1], gain=1.4),
            Dense.create(64, 32, keys[2], gain=1.4),
            Dense.create(32, 2, keys[3], gain=0.1),
        )
        return cls(gates, layers, domain, window)

    def scaled(self, voltage: Array, current: Array, temperature: Array) -> Array:
        """The three sensors in standard deviations: [3]."""
        columns = (("voltage", voltage), ("current", current), ("temperature", temperature))
        stacked = jnp.stack([self.domain.scale(name, column) for name, column in columns])
        return jnp.clip(stacked, -LIMIT, LIMIT)

    def init(self, start: Start) -> ReferenceState:
        sensors = self.scaled(start.voltage, start.current, start.temperature)
        empty = self.begin(sensors)
        return ReferenceState(sensors, empty, empty)

    def begin(self, sensors: Array) -> Window:
        """A window that has seen nothing."""
        zero = jnp.zeros(self.gates.bias.shape[0] // 4, sensors.dtype)
        return Window(0.0 * sensors[0], 0.0 * sensors[:2], zero, zero)

    def step(self, state: ReferenceState, y: Measurement) -> tuple[ReferenceState, Estimate]:
        seen = self.scaled(y.voltage, y.current, y.temperature)
        sensors = jnp.where(jnp.isfinite(seen), seen, state.sensors)
        # Every `window` samples the newer window takes the place of the older one, and another begins.
        full = state.newer.age >= self.window
        older = jax.tree.map(lambda new, old: jnp.where(full, new, old), state.newer, state.older)
        newer = jax.tree.map(lambda new, old: jnp.where(full, new, old), self.begin(sensors), state.newer)
        both = jax.tree.map(lambda a, b: jnp.stack([a, b]), older, newer)
        both = jax.vmap(self.look, (0, None))(both, sensors)
        older, newer = (jax.tree.map(lambda a, i=i: a[i], both) for i in (0, 1))
        x = older.hidden
        for layer in self.layers[:-1]:
            x = jax.nn.relu(layer(x))
        return ReferenceState(sensors, older, newer), say(self.layers[-1](x))

    def look(self, window: Window, sensors: Array) -> Window:
        """A window after one more sample."""
        age, sums = window.age + 1.0, window.sums + sensors[:2]
        forget, enter, leave, value = jnp.split(self.gates(jnp.concatenate([sensors, sums / age, window.hidden])), 4)
        cell = jax.nn.sigmoid(forget) * window.cell + jax.nn.sigmoid(enter) * jnp.tanh(value)
        return Window(age, sums, jax.nn.sigmoid(leave) * jnp.tanh(cell), cell)
