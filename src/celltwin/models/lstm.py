"""LSTM: a recurrent network of the overpotential, in closed loop.

    f, i, o = sigmoid(W x + b),  g = tanh(W x + b)  of  x = (I, T, soc, h)
    c_k = f^d c + (1 - f^d)/(1 - f) i g,   d = dt / dt_trained       h = o tanh(c)
    V_k = U(soc, T) + R(T) I + w h + b

Hochreiter and Schmidhuber, Neural Computation 9 (1997) 1735, with a forget gate (Gers et al., 2000). The gates are held
over the step, so that at the sampling it was trained with (d = 1) this is the usual cell, and a step of another
length decays and charges the cell by as much as its length says. The network never sees a voltage after its start,
which sets its state.
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
from celltwin.interface import Input, Output, Start
from celltwin.models.baselines import Ohmic
from celltwin.models.features import SAMPLE, UNIT, of_sample, of_start
from celltwin.models.layers import Dense, Mlp, lstm, sampling_period
from celltwin.physics.charge import Charge, advance, full_of


class LstmState(NamedTuple):
    charge: Charge
    hidden: Array
    cell: Array


class Lstm(eqx.Module):
    """One LSTM layer on current, temperature and counted charge."""

    static: Ohmic
    gates: Dense
    readout: Dense
    wake: Mlp
    domain: Domain
    period: float = eqx.field(static=True)  # s, the sampling it was trained with

    @classmethod
    def create(cls, records: Sequence[Record], domain: Domain, key: Array, hidden: int = 64) -> Lstm:
        keys = jax.random.split(key, 4)
        gates = Dense.create(SAMPLE + hidden, 4 * hidden, keys[0], gain=0.7)
        # Forget gates open onto time constants from two seconds to half an hour, so that slow memory need not be found.
        slow = jnp.log(
            jnp.expm1(
                jnp.exp(jax.random.uniform(keys[1], (hidden,), minval=jnp.log(2.0), maxval=jnp.log(1800.0))) ** -1
            )
        )
        gates = Dense(gates.weight.at[:hidden].multiply(0.1), gates.bias.at[:hidden].set(-slow))
        period = sampling_period(records)
        readout = Dense.create(hidden, 1, keys[2], gain=0.1)
        return cls(Ohmic.create(records), gates, readout, Mlp.create((4, 16, 2 * hidden), keys[3]), domain, period)

    def init(self, start: Start) -> LstmState:
        """A state from what the start shows: the voltage beyond OCV and ohmic drop, current, temperature and SOC."""
        shown = of_start(start, self.static, self.domain)
        hidden, cell = jnp.split(self.wake(shown), 2)
        return LstmState(full_of(start.soc, start.capacity), jnp.tanh(hidden), cell)

    def step(self, state: LstmState, u: Input) -> tuple[LstmState, Output]:
        charge = advance(state.charge, u.current, u.dt)
        inputs = jnp.concatenate([of_sample(u, charge.soc, self.domain), state.hidden])
        hidden, cell = lstm(self.gates(inputs), state.cell, u.dt / self.period)
        voltage = self.static.voltage(charge.soc, u.temperature, u.current) + UNIT * self.readout(hidden)[0]
        return LstmState(charge, hidden, cell), Output(voltage, charge.soc)

    def penalty(self) -> Array:
        return self.static.penalty()
