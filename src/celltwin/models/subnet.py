"""SUBNET: a neural state space whose initial state an encoder finds, stable by construction.

    x_0 = tanh(psi(V_0, I_0, T_0, soc_0))
    tau x' = f(x, I, soc, T) - x
    x_k = a x_(k-1) + (1 - a) f(x_(k-1), I_k, soc_k, T_k),   a = exp(-dt / tau)
    V_k = U(soc, T) + R(T) I + h(x_k, I_k, soc_k, T_k)

Beintema, Toth and Schoukens, "Nonlinear state-space identification using deep encoder networks", L4DC, PMLR 144 (2021)
241; "Deep subspace encoders for nonlinear system identification", Automatica 156 (2023) 111210; in continuous time,
with a normalised derivative: Beintema, Schoukens and Toth, "Continuous-time identification of dynamic state-space
models by deep subspace encoding", ICLR (2023). The encoder psi, f and the readout h are networks.

What differs from the papers. Their encoder reads tens of past inputs and outputs; a twin wakes knowing one sample, so
here it reads that one, with the stored state of charge. Their loss is over many short sections, each begun by the
encoder; here a lane goes on with the state that its last section ended with, as every model of this package does, and
the encoder begins records or, with a plan that has episodes, places inside them. Charge is counted and need not be
learned. And the derivative is held in form: f lies within +-1 and every tau is positive, so x cannot leave +-1 whatever
the input, and a step of any length is finite (exponential Euler, exact where f does not move within the step).
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
from celltwin.interface import Input, Output, Start
from celltwin.models.baselines import Ohmic
from celltwin.models.features import SAMPLE, UNIT, of_sample, of_start
from celltwin.models.layers import Mlp
from celltwin.physics.charge import Charge, advance, full_of

FASTEST, SLOWEST = 1.0, 2000.0  # s, time constants where training starts


class SubnetState(NamedTuple):
    charge: Charge
    latent: Array  # [states], within +-1


class Subnet(eqx.Module):
    """A nonlinear state space of networks, with the charge counted beside it."""

    static: Ohmic
    encoder: Mlp
    derivative: Mlp
    readout: Mlp
    log_tau: Array  # [states], of s
    domain: Domain

    @classmethod
    def create(
        cls, records: Sequence[Record], domain: Domain, key: Array, states: int = 24, hidden: int = 40
    ) -> Subnet:
        """An untrained state space on the least-squares OCV and resistance of the records."""
        keys = jax.random.split(key, 3)
        return cls(
            static=Ohmic.create(records),
            encoder=Mlp.create((4, 16, states), keys[0]),
            derivative=Mlp.create((states + SAMPLE, hidden, states), keys[1], last_gain=0.5),
            readout=Mlp.create((states + SAMPLE, hidden, 1), keys[2]),
            log_tau=jnp.linspace(np.log(FASTEST), np.log(SLOWEST), states, dtype=np.float32),
            domain=domain,
        )

    def init(self, start: Start) -> SubnetState:
        """Encoded: the voltage beyond OCV and ohmic drop, current, temperature and SOC."""
        shown = of_start(start, self.static, self.domain)
        return SubnetState(full_of(start.soc, start.capacity), jnp.tanh(self.encoder(shown)))

    def step(self, state: SubnetState, u: Input) -> tuple[SubnetState, Output]:
        charge = advance(state.charge, u.current, u.dt)
        seen = of_sample(u, charge.soc, self.domain)
        keep = jnp.exp(-u.dt / jnp.exp(self.log_tau))
        towards = jnp.tanh(self.derivative(jnp.concatenate([state.latent, seen])))
        latent = keep * state.latent + (1.0 - keep) * towards
        excess = self.readout(jnp.concatenate([latent, seen]))[0]
        voltage = self.static.voltage(charge.soc, u.temperature, u.current) + UNIT * excess
        return SubnetState(charge, latent), Output(voltage, charge.soc)

    def penalty(self) -> Array:
        return self.static.penalty()
