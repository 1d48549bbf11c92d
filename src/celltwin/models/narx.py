"""NARX: the next voltage from the model's own past voltages and the past currents.

    e_k = N(leaky memories of e, leaky memories of I, I_k, T_k, soc_k)        V_k = U(soc_k, T_k) + R(T_k) I_k + e_k

Nonlinear autoregression with exogenous inputs (Leontaritis and Billings, Int. J. Control 41 (1985) 303; as a
recurrent network: Lin, Horne and Giles, IEEE Trans. Neural Networks 7 (1996) 1329). What is fed back is the model's
own overpotential, in training as in use. Leaky memories take the place of delays, so that the time step may vary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax import Array

from celltwin.data.domain import Domain
from celltwin.data.record import Record
from celltwin.interface import Input, Output, Start
from celltwin.models.baselines import Ohmic
from celltwin.models.features import CURRENT_MEMORIES, SOC_FEATURES, UNIT, VOLTAGE_MEMORIES, soc_hats
from celltwin.models.layers import Mlp, remember
from celltwin.physics.charge import Charge, advance, full_of


class NarxState(NamedTuple):
    charge: Charge
    voltages: Array  # leaky memories of the model's own e, in units of 0.1 V
    currents: Array  # leaky memories of the scaled current


class Narx(eqx.Module):
    """Neural NARX on the overpotential beyond OCV and one ohmic resistance."""

    static: Ohmic
    network: Mlp
    domain: Domain

    @classmethod
    def create(cls, records: Sequence[Record], domain: Domain, key: Array, hidden: int = 40) -> Narx:
        inputs = len(VOLTAGE_MEMORIES) + len(CURRENT_MEMORIES) + len(SOC_FEATURES) + 2
        return cls(Ohmic.create(records), Mlp.create((inputs, hidden, hidden, 1), key), domain)

    def init(self, start: Start) -> NarxState:
        """Rest up to the start: no current has flowed, and what the voltage shows is remembered as overpotential."""
        charge = full_of(start.soc, start.capacity)
        ohmic = self.static.voltage(start.soc, start.temperature, start.current)
        excess = jnp.clip((start.voltage - ohmic) / UNIT, -3.0, 3.0)
        voltages = jnp.full(len(VOLTAGE_MEMORIES), 1.0, start.soc.dtype) * excess
        return NarxState(charge, voltages, jnp.zeros(len(CURRENT_MEMORIES), start.soc.dtype))

    def step(self, state: NarxState, u: Input) -> tuple[NarxState, Output]:
        charge = advance(state.charge, u.current, u.dt)
        current = self.domain.scale("current", u.current)
        currents = remember(state.currents, current, u.dt, CURRENT_MEMORIES)
        features = jnp.concatenate(
            [
                state.voltages,
                currents,
                soc_hats(charge.soc),
                jnp.stack([current, self.domain.scale("temperature", u.temperature)]),
            ]
        )
        excess = self.network(features)[0]
        voltages = remember(state.voltages, excess, u.dt, VOLTAGE_MEMORIES)
        voltage = self.static.voltage(charge.soc, u.temperature, u.current) + UNIT * excess
        return NarxState(charge, voltages, currents), Output(voltage, charge.soc)

    def penalty(self) -> Array:
        return self.static.penalty()
