"""A linear model of two states: the smallest circuit that relaxes, with six parameters beside its curve.

    V = U(soc, T) + R(T) I + x_1 + x_2        x_i <- a_i x_i + (1 - a_i) R_i I,   a_i = exp(-dt / tau_i)

G. L. Plett, Battery Management Systems I (2015), ch. 2. Resistances and time constants are positive by construction:
their logarithms are the parameters. The discretisation is exact for a current that is held over the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax import Array

from celltwin.data.record import Record
from celltwin.interface import Input, Output, Start
from celltwin.learning.plan import Plan
from celltwin.models import Family
from celltwin.models.baselines import Ohmic
from celltwin.physics.charge import Charge, advance, full_of


class TwoStateModelState(NamedTuple):
    charge: Charge
    relaxing: Array  # [2] V


class TwoState(eqx.Module):
    """Open-circuit voltage and one resistance, by least squares, and two overpotentials that relax."""

    static: Ohmic
    log_resistance: Array  # [2] of ohm
    log_tau: Array  # [2] of s

    @classmethod
    def create(cls, records: Sequence[Record]) -> TwoState:
        """A model to be trained, from the least-squares curve and resistance of the training records."""
        return cls(Ohmic.create(records), jnp.log(jnp.asarray([0.005, 0.01])), jnp.log(jnp.asarray([20.0, 400.0])))

    def init(self, start: Start) -> TwoStateModelState:
        """At rest."""
        return TwoStateModelState(full_of(start.soc, start.capacity), jnp.zeros(2, start.soc.dtype))

    def step(self, state: TwoStateModelState, u: Input) -> tuple[TwoStateModelState, Output]:
        charge = advance(state.charge, u.current, u.dt)
        keep = jnp.exp(-u.dt / jnp.exp(self.log_tau))
        relaxing = keep * state.relaxing + (1.0 - keep) * jnp.exp(self.log_resistance) * u.current
        voltage = self.static.voltage(charge.soc, u.temperature, u.current) + jnp.sum(relaxing)
        return TwoStateModelState(charge, relaxing), Output(voltage, charge.soc)

    def penalty(self) -> Array:
        """Prior of the curve, so that training keeps it smooth."""
        return self.static.penalty()


FAMILY = Family(
    "two-state",
    "linear model of two states on OCV and one resistance (a plugin)",
    lambda records, domain, key, base: TwoState.create(records),
    Plan(adam_rounds=4, updates=100, chunk=500, learning_rate=2e-2),
    seeded=False,
)
