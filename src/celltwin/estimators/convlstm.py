"""ConvLSTM over time scales: a recurrent map of the recent past, convolved along its scales.

    rows s = 1 .. S of the map, of time constants tau_s from seconds to an hour, in equal ratios:
    X_s = trailing means of V and I over tau_s, beside V, I, T and how much of tau_s has passed
    f, i, o = sigmoid(W_x * X + W_h * H + b),  g = tanh(W_x * X + W_h * H + b)      * convolves along s
    C_k = f^d C + (1 - f^d)/(1 - f) i g,   d_s = dt / tau_s       H = o tanh(C)
    soc, log std = network(H, features)

Shi et al., "Convolutional LSTM network: a machine learning approach for precipitation nowcasting", NIPS 28 (2015),
with time scales in the place of longitude and latitude. The same weights look at every scale, each row at its own
clock: what is learned of relaxation within ten seconds serves for ten minutes. Diffusion in a cell has no scale of its
own over this range, so that neighbouring rows mean something, which is what a convolution needs. Exact at any
sampling: there is no window. The patches are gathered and multiplied as one matrix, which is several times faster in a
scan than a convolution operator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from celltwin.data.domain import Domain
from celltwin.data.record import Record
from celltwin.estimators.network import say
from celltwin.estimators.signals import FEATURES, Signals, features, watch, woken
from celltwin.interface import Estimate, Measurement, Start
from celltwin.models.layers import Dense, Mlp, lstm, remember

SHORTEST, LONGEST = 2.0, 3600.0  # s, time constants of the first and the last row
CHANNELS = 6
LIMIT = 6.0  # standard deviations, beyond which an input is cut off


class ConvLstmState(NamedTuple):
    seen: Signals
    means: Array  # [scales, 2] trailing means of voltage and current, in standard deviations
    fresh: Array  # [scales] share of a row's means that is older than the start
    hidden: Array  # [scales, hidden]
    cell: Array  # [scales, hidden]


class Look(NamedTuple):
    """What a step finds before it looks at the hidden map."""

    rows: Array  # [scales, CHANNELS]
    features: Array
    dt: Array  # s


def patches(rows: Array, reach: int) -> Array:
    """Each row of [rows, channels] with `reach` neighbours on either side: [rows, (2 reach + 1) channels].

    Zeros stand beyond the first and the last row.
    """
    padded = jnp.pad(rows, ((reach, reach), (0, 0)))
    return jnp.concatenate([padded[i : i + rows.shape[0]] for i in range(2 * reach + 1)], axis=1)


def trail(means: Array, fresh: Array, now: Array, dt: Array, scales: tuple[float, ...]) -> tuple[Array, Array]:
    """Trailing means [scales, signals] and shares older than the start [scales], after `now` [signals] held over dt."""
    means = jax.vmap(remember, (1, 0, None, None), 1)(means, now, dt, scales)
    return means, fresh * jnp.exp(-dt / jnp.asarray(scales, means.dtype))


def convolve(
    gates: Dense,
    rows: Array,
    state: tuple[Array, Array],
    dt: Array,
    scales: tuple[float, ...],
    reach: int,
    everywhere: Array | float = 0.0,
) -> tuple[Array, Array]:
    """Hidden map and cells [scales, hidden] after a step of dt (s) in which the map showed rows [scales, channels].

    Each row runs on the clock of its time scale (s); `everywhere` [4 hidden] goes into the gates of all rows alike.
    """
    hidden, cell = state
    looked = patches(jnp.concatenate([rows, hidden], axis=1), reach)
    clock = dt / jnp.asarray(scales, cell.dtype)
    return lstm(looked @ gates.weight.T + gates.bias + everywhere, cell, clock[:, None])


class ConvLstm(eqx.Module):
    """One convolutional LSTM layer on the map of features by time scales."""

    gates: Dense  # of a patch
    wake: Dense  # of a row
    readout: Mlp
    domain: Domain
    scales: tuple[float, ...] = eqx.field(static=True)  # s
    reach: int = eqx.field(static=True)  # neighbours on either side that a convolution sees

    @classmethod
    def create(
        cls,
        records: Sequence[Record],
        domain: Domain,
        key: Array,
        scales: int = 8,
        hidden: int = 16,
        reach: int = 1,
        width: int = 32,
    ) -> ConvLstm:
        """A ConvLSTM to be trained."""
        keys = jax.random.split(key, 3)
        gates = Dense.create((2 * reach + 1) * (CHANNELS + hidden), 4 * hidden, keys[0], gain=0.7)
        wake = Dense.create(CHANNELS, hidden, keys[1], gain=0.5)
        readout = Mlp.create((scales * hidden + FEATURES, width, 2), keys[2])
        times = tuple(np.geomspace(SHORTEST, LONGEST, scales).tolist())
        return cls(gates, wake, readout, domain, times, reach)

    def now(self, seen: Signals) -> Array:
        """Voltage and current of a sample, cut off before they enter a memory that would not forget an absurd one."""
        scaled = jnp.stack([self.domain.scale("voltage", seen.voltage), self.domain.scale("current", seen.current)])
        return jnp.clip(scaled, -LIMIT, LIMIT)

    def rows(self, seen: Signals, means: Array, fresh: Array) -> Array:
        """The map: [scales, CHANNELS]."""
        temperature = jnp.clip(self.domain.scale("temperature", seen.temperature), -LIMIT, LIMIT)
        everywhere = jnp.broadcast_to(jnp.append(self.now(seen), temperature), (len(self.scales), 3))
        return jnp.concatenate([means, everywhere, 1.0 - fresh[:, None]], axis=1)

    def init(self, start: Start) -> ConvLstmState:
        seen = woken(start)
        means = jnp.broadcast_to(self.now(seen), (len(self.scales), 2))
        fresh = jnp.ones(len(self.scales), means.dtype)
        cell = jax.vmap(self.wake)(self.rows(seen, means, fresh))
        return ConvLstmState(seen, means, fresh, jnp.tanh(cell), cell)

    def step(self, state: ConvLstmState, y: Measurement) -> tuple[ConvLstmState, Estimate]:
        state, look = self.look(state, y)
        hidden, cell = self.recur((state.hidden, state.cell), look)
        return state._replace(hidden=hidden, cell=cell), self.read(hidden, look)

    def look(self, state: ConvLstmState, y: Measurement) -> tuple[ConvLstmState, Look]:
        """The state whose signals and means have seen the sample, and what is to be made of it."""
        seen, _ = watch(state.seen, y)
        means, fresh = trail(state.means, state.fresh, self.now(seen), y.dt, self.scales)
        look = Look(self.rows(seen, means, fresh), features(seen, self.domain), y.dt)
        return state._replace(seen=seen, means=means, fresh=fresh), look

    def recur(self, state: tuple[Array, Array], look: Look) -> tuple[Array, Array]:
        """The hidden map and the cells [scales, hidden] after a step."""
        return convolve(self.gates, look.rows, state, look.dt, self.scales, self.reach)

    def read(self, hidden: Array, look: Look) -> Estimate:
        """The estimate from the hidden map."""
        return say(self.readout(jnp.concatenate([hidden.reshape(-1), look.features])))

    def run(self, state: ConvLstmState, inputs: Measurement) -> tuple[ConvLstmState, Estimate]:
        """As a scan of `step`, with only what recurs inside the scans."""
        state, looks = jax.lax.scan(lambda s, y: self.look(s, y), state, inputs)

        def recur(memory: tuple[Array, Array], look: Look) -> tuple[tuple[Array, Array], Array]:
            after = self.recur(memory, look)
            return after, after[0]

        (hidden, cell), maps = jax.lax.scan(recur, (state.hidden, state.cell), looks)
        return state._replace(hidden=hidden, cell=cell), jax.vmap(self.read)(maps, looks)
