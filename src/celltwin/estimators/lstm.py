"""LSTM: state of charge from voltage, current, temperature and their trailing means, one label a step.

    f, i, o = sigmoid(W x + b),  g = tanh(W x + b)  of  x = (features, h)
    c_k = f^d c + (1 - f^d)/(1 - f) i g,   d = dt / dt_trained       h = o tanh(c)
    soc, log std = network(h, features)

Hochreiter and Schmidhuber, Neural Computation 9 (1997) 1735, with a forget gate (Gers et al., 2000); for state of
charge Chemali et al., IEEE Trans. Ind. Electron. 65 (2018) 6730. The gates are held over the step, so a step of another
length than the trained one forgets and gathers by as much as its length says. The cell's first state is read from
the first sample.
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
from celltwin.estimators.signals import FEATURES, Signals, features, watch, woken
from celltwin.interface import Estimate, Measurement, Start
from celltwin.models.layers import Dense, Mlp, lstm, sampling_period

FASTEST, SLOWEST = 2.0, 1800.0  # s, time constants on which the forget gates open


class LstmState(NamedTuple):
    seen: Signals
    hidden: Array  # [hidden]
    cell: Array  # [hidden]


class Lstm(eqx.Module):
    """One LSTM layer on the trailing means."""

    gates: Dense
    wake: Dense
    readout: Mlp
    domain: Domain
    period: float = eqx.field(static=True)  # s, the sampling it was trained with

    @classmethod
    def create(cls, records: Sequence[Record], domain: Domain, key: Array, hidden: int = 64) -> Lstm:
        """An LSTM to be trained, its forget gates open onto time constants from seconds to half an hour."""
        keys = jax.random.split(key, 3)
        period = sampling_period(records)
        gates = Dense.create(FEATURES + hidden, 4 * hidden, keys[0], gain=0.7)
        times = jnp.geomspace(FASTEST, SLOWEST, hidden)
        opened = -jnp.log(jnp.expm1(period / times))
        gates = Dense(gates.weight.at[:hidden].multiply(0.3), gates.bias.at[:hidden].set(opened))
        wake = Dense.create(FEATURES, hidden, keys[1], gain=0.5)
        readout = Mlp.create((hidden + FEATURES, 32, 2), keys[2])
        return cls(gates, wake, readout, domain, period)

    def init(self, start: Start) -> LstmState:
        seen = woken(start)
        cell = self.wake(features(seen, self.domain))
        return LstmState(seen, jnp.tanh(cell), cell)

    def step(self, state: LstmState, y: Measurement) -> tuple[LstmState, Estimate]:
        seen, _ = watch(state.seen, y)
        x = features(seen, self.domain)
        hidden, cell = lstm(self.gates(jnp.concatenate([x, state.hidden])), state.cell, y.dt / self.period)
        return LstmState(seen, hidden, cell), say(self.readout(jnp.concatenate([hidden, x])))
