"""GRU: a gated recurrent unit of the overpotential, in closed loop.

    z, r = sigmoid(W (x, h) + b),  n = tanh(W (x, r h) + b)   of   x = (I, T, soc)
    h_k = z^d h + (1 - z^d) n,   d = dt / dt_trained
    V_k = U(soc, T) + R(T) I + w h_k + b

Cho et al., "Learning phrase representations using RNN encoder-decoder", EMNLP 2014. The gates are held over the step:
at the sampling it was trained with (d = 1) this is the usual cell, and a step of another length forgets and gathers as
much as its length says. h is a weighted mean of values within +-1 and cannot leave them. The network never sees a
voltage after its start, which sets its state. The cell is the one of the hybrid's GRU residual.
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
from celltwin.models.hybrid import GruResidual
from celltwin.models.layers import Mlp, sampling_period
from celltwin.physics.charge import Charge, advance, full_of


class GruState(NamedTuple):
    charge: Charge
    hidden: Array


class Gru(eqx.Module):
    """One GRU layer on current, temperature and counted charge."""

    static: Ohmic
    cell: GruResidual
    wake: Mlp
    domain: Domain

    @classmethod
    def create(cls, records: Sequence[Record], domain: Domain, key: Array, hidden: int = 48) -> Gru:
        """An untrained GRU on the least-squares OCV and resistance of the records."""
        unit, wake = jax.random.split(key)
        cell = GruResidual.create(SAMPLE, unit, sampling_period(records), hidden)
        return cls(Ohmic.create(records), cell, Mlp.create((4, 16, hidden), wake), domain)

    def init(self, start: Start) -> GruState:
        """A state from what the start shows: the voltage beyond OCV and ohmic drop, current, temperature and SOC."""
        shown = of_start(start, self.static, self.domain)
        return GruState(full_of(start.soc, start.capacity), jnp.tanh(self.wake(shown)))

    def step(self, state: GruState, u: Input) -> tuple[GruState, Output]:
        charge = advance(state.charge, u.current, u.dt)
        hidden, excess = self.cell.propose(state.hidden, of_sample(u, charge.soc, self.domain), u.dt)
        voltage = self.static.voltage(charge.soc, u.temperature, u.current) + UNIT * excess
        return GruState(charge, hidden), Output(voltage, charge.soc)

    def penalty(self) -> Array:
        return self.static.penalty()
