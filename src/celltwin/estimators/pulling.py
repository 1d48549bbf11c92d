"""Networks that pull an observer's charge counter: what they remember, and the five numbers that they say.

    gated unit    h <- GRU(h, x),  said = W (h, x) + b
    map           X_s = trailing means over tau_s of what has a past, and how much of tau_s has passed
                  H, C <- ConvLSTM(H, C, X) along the time scales s, with x in the gates of every row
                  said = network(H, x)

A reading of the state of charge, how much to believe it beside the circuit's (before a sigmoid), the logarithm of its
noise in points, and two for the standard deviation: the logarithms of a factor and, in points, of a floor.

Sources: Cho et al., EMNLP 2014; Shi et al., NIPS 28 (2015), its map as in celltwin.estimators.convlstm.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from celltwin.estimators.convlstm import SHORTEST, convolve, trail
from celltwin.models.layers import Dense, Mlp, gru

OUTSET = (0.5, 0.0, 2.0, 0.0, -1.0)  # what is said before training
FASTEST, SLOWEST = 2.0, 900.0  # trained steps, time constants on which the update gates of a gated unit open
LONGEST = 1800.0  # s, time constant of a map's last row


class Time(NamedTuple):
    """How much of it a step takes."""

    dt: Array  # s, 0 without a voltage: nothing is remembered then
    period: float  # s, the sampling of training
    first: Array  # is it the first sample, which stands for all that was before?


class Gated(eqx.Module):
    """A gated recurrent unit."""

    gates: Dense
    candidate: Dense
    readout: Dense

    @classmethod
    def create(cls, inputs: int, past: int, key: Array, hidden: int = 48) -> Gated:
        """One to be trained, its update gates open onto times from two steps to a quarter of an hour."""
        keys = jax.random.split(key, 3)
        gates = Dense.create(inputs + hidden, 2 * hidden, keys[0], gain=0.7)
        slow = jnp.linspace(jnp.log(FASTEST), jnp.log(SLOWEST), hidden)
        gates = Dense(gates.weight.at[:hidden].multiply(0.3), gates.bias.at[:hidden].set(-slow))
        candidate = Dense.create(inputs + hidden, hidden, keys[1])
        readout = Dense.create(hidden + inputs, len(OUTSET), keys[2], gain=0.1)
        return cls(gates, candidate, Dense(readout.weight, jnp.asarray(OUTSET)))

    @property
    def inputs(self) -> int:
        """How many numbers it sees."""
        return self.gates.weight.shape[1] - self.candidate.bias.size

    def start(self, dtype: jnp.dtype) -> Array:
        """Nothing remembered: [hidden]."""
        return jnp.zeros(self.candidate.bias.shape, dtype)

    def __call__(self, memory: Array, x: Array, past: Array, time: Time) -> tuple[Array, Array]:
        """Memory and the five numbers after a step with inputs `x`, of which `past` are shown again."""
        update, reset = jnp.split(self.gates(jnp.concatenate([x, memory])), 2)
        memory = gru(self.candidate, x, memory, update, reset, time.dt / time.period)
        return memory, self.readout(jnp.concatenate([memory, x]))


class MapMemory(NamedTuple):
    means: Array  # [scales, past]
    fresh: Array  # [scales] share of a row's means that is older than the start
    hidden: Array  # [scales, hidden]
    cell: Array  # [scales, hidden]


class Map(eqx.Module):
    """A convolutional LSTM over a map of time scales."""

    gates: Dense  # of a patch
    drive: Dense  # of the inputs, for all rows
    readout: Mlp
    past: int = eqx.field(static=True)
    scales: tuple[float, ...] = eqx.field(static=True)  # s
    reach: int = eqx.field(static=True)  # neighbours on either side that a convolution sees

    @classmethod
    def create(
        cls, inputs: int, past: int, key: Array, scales: int = 8, hidden: int = 8, reach: int = 1, width: int = 32
    ) -> Map:
        """One to be trained."""
        keys = jax.random.split(key, 3)
        gates = Dense.create((2 * reach + 1) * (past + 1 + hidden), 4 * hidden, keys[0], gain=0.7)
        drive = Dense.create(inputs, 4 * hidden, keys[1], gain=0.7)
        first, last = Mlp.create((scales * hidden + inputs, width, len(OUTSET)), keys[2]).layers
        readout = Mlp((first, Dense(last.weight, jnp.asarray(OUTSET))))
        return cls(gates, drive, readout, past, tuple(np.geomspace(SHORTEST, LONGEST, scales).tolist()), reach)

    @property
    def inputs(self) -> int:
        """How many numbers it sees."""
        return self.drive.weight.shape[1]

    def start(self, dtype: jnp.dtype) -> MapMemory:
        """Nothing remembered."""
        rows, hidden = len(self.scales), self.gates.bias.size // 4
        nothing = jnp.zeros((rows, hidden), dtype)
        return MapMemory(jnp.zeros((rows, self.past), dtype), jnp.ones(rows, dtype), nothing, nothing)

    def __call__(self, memory: MapMemory, x: Array, past: Array, time: Time) -> tuple[MapMemory, Array]:
        """Memory and the five numbers after a step with inputs `x`, of which `past` are shown by time scales."""
        means = jnp.where(time.first, past, memory.means)
        means, fresh = trail(means, memory.fresh, past, time.dt, self.scales)
        rows = jnp.concatenate([means, 1.0 - fresh[:, None]], axis=1)
        state = (memory.hidden, memory.cell)
        hidden, cell = convolve(self.gates, rows, state, time.dt, self.scales, self.reach, self.drive(x))
        return MapMemory(means, fresh, hidden, cell), self.readout(jnp.concatenate([hidden.reshape(-1), x]))
