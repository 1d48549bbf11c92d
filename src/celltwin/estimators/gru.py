"""GRU: state of charge from voltage, current, temperature and their trailing means, one label a step.

    z, r = sigmoid(W (x, h) + b),  n = tanh(W (x, r h) + b)   of   x = features
    h_k = (1 - z)^d h + (1 - (1 - z)^d) n,   d = dt / dt_trained
    soc, log std = network(h, features)

Cho et al., "Learning phrase representations using RNN encoder-decoder", EMNLP 2014; for state of charge Yang et al.,
Energy 175 (2019) 66. The update gate z is held over the step, so a step of another length than the trained one forgets
and gathers by as much as its length says. h is a weighted mean of values within +-1 and cannot leave them. Its first
value is read from the first sample.
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
from celltwin.models.layers import Dense, Mlp, gru, sampling_period

FASTEST, SLOWEST = 2.0, 1800.0  # s, time constants on which the update gates open


class GruState(NamedTuple):
    seen: Signals
    hidden: Array  # [hidden]


class Gru(eqx.Module):
    """One GRU layer on the trailing means."""

    gates: Dense
    candidate: Dense
    wake: Dense
    readout: Mlp
    domain: Domain
    period: float = eqx.field(static=True)  # s, the sampling it was trained with

    @classmethod
    def create(cls, records: Sequence[Record], domain: Domain, key: Array, hidden: int = 64) -> Gru:
        """A GRU to be trained, its update gates open onto time constants from seconds to half an hour."""
        keys = jax.random.split(key, 4)
        period = sampling_period(records)
        gates = Dense.create(FEATURES + hidden, 2 * hidden, keys[0], gain=0.7)
        times = jnp.geomspace(FASTEST, SLOWEST, hidden)
        opened = jnp.log(jnp.expm1(period / times))
        gates = Dense(gates.weight.at[:hidden].multiply(0.3), gates.bias.at[:hidden].set(opened))
        candidate = Dense.create(FEATURES + hidden, hidden, keys[1])
        wake = Dense.create(FEATURES, hidden, keys[2], gain=0.5)
        readout = Mlp.create((hidden + FEATURES, 32, 2), keys[3])
        return cls(gates, candidate, wake, readout, domain, period)

    def init(self, start: Start) -> GruState:
        seen = woken(start)
        return GruState(seen, jnp.tanh(self.wake(features(seen, self.domain))))

    def step(self, state: GruState, y: Measurement) -> tuple[GruState, Estimate]:
        seen, _ = watch(state.seen, y)
        x = features(seen, self.domain)
        update, reset = jnp.split(self.gates(jnp.concatenate([x, state.hidden])), 2)
        hidden = gru(self.candidate, x, state.hidden, update, reset, y.dt / self.period)
        return GruState(seen, hidden), say(self.readout(jnp.concatenate([hidden, x])))
