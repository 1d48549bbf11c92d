"""Thevenin circuit with memory of charge: for cells whose open-circuit voltage is flat and depends on the way there.

    V = circuit(I, T), its open-circuit voltage read at soc + w,  + sum_m G_m(soc) z_m
    z_m <- clip(z_m + I dt / (r_m Q), -1, 1)                                   stops, see `physics.hysteresis`
    w   <- a w + (1 - a) I t_lead / Q,   a = exp(-dt / t_lag)

w is by how much the surface of the particles is ahead of their mean state of charge: diffusion with one time constant
(the first term of Subramanian et al., J. Electrochem. Soc. 152 (2005) A2002). On a plateau it means nothing, at its
ends, where a voltage falls within a per cent of charge, hundreds of millivolts. The circuit wakes on its curve; a first
voltage beside it tells which branch of the hysteresis the cell is on. All is exact for a current held over the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from celltwin.data.record import SECONDS_PER_HOUR, Record
from celltwin.interface import Input, Output, Start
from celltwin.physics.charge import Charge
from celltwin.physics.hysteresis import Stops
from celltwin.physics.ocv import Ocv, fit_ohmic
from celltwin.physics.recurrence import linear_recurrence
from celltwin.physics.thevenin import RESTED_RATE, Thevenin, TheveninState

TIME_CONSTANTS = (4.0, 30.0, 150.0, 1000.0)  # s, where training starts
LEAD, LAG = 30.0, 50.0  # s, likewise
# Closest below a tenth of the charge, where such a curve falls steeply.
OCV_NODES = tuple(np.round(np.r_[np.linspace(-0.02, 0.1, 25)[:-1], np.linspace(0.1, 1.0, 37), 1.03], 4).tolist())


class HystereticState(NamedTuple):
    circuit: TheveninState
    stops: Array  # [stops] position of each, -1 to 1
    lead: Array  # fraction, by which the surface is ahead of the charge

    @property
    def charge(self) -> Charge:
        """The charge counter."""
        return self.circuit.charge

    @property
    def pairs(self) -> Array:
        """Overpotential of each RC pair in V, [N]."""
        return self.circuit.pairs


class HystereticThevenin(eqx.Module):
    """A Thevenin circuit, stops beside it, and a surface that is ahead of its charge."""

    circuit: Thevenin
    stops: Stops
    log_lead: Array  # scalar, of s
    log_lag: Array  # scalar, of s

    @classmethod
    def create(cls, records: Sequence[Record], time_constants: Sequence[float] = TIME_CONSTANTS) -> HystereticThevenin:
        """A circuit to be trained, that starts from the least-squares OCV and resistance of the records."""
        circuit = Thevenin.create(records, time_constants)
        voltage, _ = fit_ohmic(records, circuit.temperatures, OCV_NODES)
        # Where it was seen under load alone, the least-squares curve may turn upwards as the cell empties.
        voltage = np.minimum.accumulate(voltage[::-1])[::-1]
        # The start tells the side of the hysteresis, and cannot tell a misaligned charge as well.
        circuit = replace(circuit, ocv=Ocv.of(voltage, circuit.temperatures, OCV_NODES), wake=None)
        lead, lag = (jnp.asarray(np.log(seconds), np.float32) for seconds in (LEAD, LAG))
        return cls(circuit, Stops.create(), lead, lag)

    @property
    def ocv(self) -> Ocv:
        """The mean curve between the branches."""
        return self.circuit.ocv

    @property
    def pairs(self) -> int:
        """Number of RC pairs."""
        return self.circuit.pairs

    def init(self, start: Start) -> HystereticState:
        """At rest, no RC pair charged, the surface level with the charge; stops where the first voltage puts them."""
        circuit = self.circuit.init(start)
        resistance, _, _ = self.circuit.parameters_at(start.soc, start.temperature)
        excess = start.voltage - self.ocv(start.soc, start.temperature) - resistance[0] * start.current
        rested = 1.0 / (1.0 + (RESTED_RATE * start.current / start.capacity) ** 2)
        return HystereticState(circuit, self.stops.init(start.soc, rested * excess), 0.0 * start.soc)

    def step(self, state: HystereticState, u: Input) -> tuple[HystereticState, Output]:
        capacity = state.charge.capacity
        keep, drive = self._ahead(u, capacity)
        lead = keep * state.lead + drive
        shift = state.circuit.shift
        circuit, output = self.circuit.step(state.circuit._replace(shift=shift + lead), u)
        stops = self.stops.advance(state.stops, _passed(u, capacity))
        voltage = output.voltage + self.stops.voltage(stops, output.soc)
        return HystereticState(circuit._replace(shift=shift), stops, lead), Output(voltage, output.soc)

    def run(self, state: HystereticState, inputs: Input) -> tuple[HystereticState, Output]:
        """What scanning `step` over inputs [time] gives: the final state and outputs [time]."""
        capacity = state.charge.capacity
        lead = linear_recurrence(*self._ahead(inputs, capacity), state.lead)
        circuit, output = self.circuit.run(state.circuit, inputs, lead)
        stops, hysteresis = self.stops.over(state.stops, _passed(inputs, capacity), output.soc)
        return HystereticState(circuit, stops, lead[-1]), Output(output.voltage + hysteresis, output.soc)

    def _ahead(self, u: Input, capacity: Array) -> tuple[Array, Array]:
        """Factor and addition of the step of w, for a step or a record."""
        keep = jnp.exp(-u.dt / jnp.exp(self.log_lag))
        return keep, (1.0 - keep) * u.current * jnp.exp(self.log_lead) / (SECONDS_PER_HOUR * capacity)

    def penalty(self) -> Array:
        """The circuit's prior and more of it: a curve that does not fall, smoother tables, small hysteresis (V^2)."""
        table = self.circuit.log_resistance
        falling = jnp.mean(jnp.minimum(self.ocv.slope(), 0.0) ** 2)
        curved = jnp.mean(jnp.diff(table, 2, axis=1) ** 2) + 0.1 * jnp.mean(jnp.diff(table, axis=1) ** 2)
        times = (self.log_lead - float(np.log(LEAD))) ** 2 + 10.0 * (self.log_lag - float(np.log(LAG))) ** 2
        more = 1e-3 * falling + 6e-5 * curved + 1e-8 * times
        return self.circuit.penalty() + self.stops.penalty() + more


def _passed(u: Input, capacity: Array) -> Array:
    """Charge of a step, or of each of a record, as a fraction of the capacity."""
    return u.current * u.dt / (SECONDS_PER_HOUR * capacity)
