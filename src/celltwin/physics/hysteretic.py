"""Thevenin circuit with memory of charge: for cells whose open-circuit voltage is flat and depends on the way there.

    V = circuit(I, T) + sum_m G_m(soc) z_m,   z_m <- clip(z_m + I dt / (r_m Q), -1, 1)

The circuit is that of `physics.thevenin`; its open-circuit voltage is the mean of the branches. The z_m are stops, see
`physics.hysteresis`: exact for steps of any length. A first voltage at rest beside the mean curve tells which branch
the cell is on, so the circuit has no shift at its start.
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
from celltwin.physics.thevenin import RESTED_RATE, Thevenin, TheveninState

TIME_CONSTANTS = (4.0, 30.0, 150.0, 1000.0)  # s, where training starts
# Closest below a tenth of the charge, where such a curve falls steeply.
OCV_NODES = tuple(np.round(np.r_[np.linspace(-0.02, 0.1, 25)[:-1], np.linspace(0.1, 1.0, 37), 1.03], 4).tolist())


class HystereticState(NamedTuple):
    circuit: TheveninState
    stops: Array  # [stops] position of each, -1 to 1

    @property
    def charge(self) -> Charge:
        """The charge counter."""
        return self.circuit.charge

    @property
    def pairs(self) -> Array:
        """Overpotential of each RC pair in V, [N]."""
        return self.circuit.pairs


class HystereticThevenin(eqx.Module):
    """A Thevenin circuit and stops beside it."""

    circuit: Thevenin
    stops: Stops

    @classmethod
    def create(cls, records: Sequence[Record], time_constants: Sequence[float] = TIME_CONSTANTS) -> HystereticThevenin:
        """A circuit to be trained, that starts from the least-squares OCV and resistance of the records."""
        circuit = Thevenin.create(records, time_constants)
        voltage = _rising(fit_ohmic(records, circuit.temperatures, OCV_NODES)[0], records)
        # The start tells the side of the hysteresis, and cannot tell a misaligned charge as well.
        circuit = replace(circuit, ocv=Ocv.of(voltage, circuit.temperatures, OCV_NODES), wake=None)
        return cls(circuit, Stops.create())

    @property
    def ocv(self) -> Ocv:
        """The mean curve between the branches."""
        return self.circuit.ocv

    @property
    def pairs(self) -> int:
        """Number of RC pairs."""
        return self.circuit.pairs

    def init(self, start: Start) -> HystereticState:
        """At rest, no RC pair charged; stops where the first voltage puts them."""
        resistance, _, _ = self.circuit.parameters_at(start.soc, start.temperature)
        excess = start.voltage - self.ocv(start.soc, start.temperature) - resistance[0] * start.current
        # Under load, the voltage tells of resistance and not of hysteresis.
        rested = 1.0 / (1.0 + (RESTED_RATE * start.current / start.capacity) ** 2)
        return HystereticState(self.circuit.init(start), self.stops.init(start.soc, rested * excess))

    def step(self, state: HystereticState, u: Input) -> tuple[HystereticState, Output]:
        stops = self.stops.advance(state.stops, _passed(u, state.charge.capacity))
        circuit, output = self.circuit.step(state.circuit, u)
        voltage = output.voltage + self.stops.voltage(stops, output.soc)
        return HystereticState(circuit, stops), Output(voltage, output.soc)

    def run(self, state: HystereticState, inputs: Input) -> tuple[HystereticState, Output]:
        """What scanning `step` over inputs [time] gives: the final state and outputs [time]."""
        circuit, output = self.circuit.run(state.circuit, inputs)
        stops, hysteresis = self.stops.over(state.stops, _passed(inputs, state.charge.capacity), output.soc)
        return HystereticState(circuit, stops), Output(output.voltage + hysteresis, output.soc)

    def penalty(self) -> Array:
        """The circuit's prior and more of it: a curve that does not fall, smoother tables, small hysteresis (V^2)."""
        table = self.circuit.log_resistance
        falling = jnp.mean(jnp.minimum(self.ocv.slope(), 0.0) ** 2)
        curved = jnp.mean(jnp.diff(table, 2, axis=1) ** 2) + 0.1 * jnp.mean(jnp.diff(table, axis=1) ** 2)
        return self.circuit.penalty() + self.stops.penalty() + 1e-3 * falling + 6e-5 * curved


def _rising(voltage: np.ndarray, records: Sequence[Record]) -> np.ndarray:
    """A curve [OCV_NODES] in V held beyond what the records saw, and between the two nearest that do not fall.

    Seen under load alone, as the cell empties, a least-squares curve may turn upwards there and end volts away.
    """
    soc = np.concatenate([record.soc for record in records])
    nodes = np.asarray(OCV_NODES)
    seen = (nodes >= soc.min()) & (nodes <= soc.max())
    if not seen.any():
        return voltage
    held = np.interp(nodes, nodes[seen], voltage[seen])
    return (np.maximum.accumulate(held) + np.minimum.accumulate(held[::-1])[::-1]) / 2.0


def _passed(u: Input, capacity: Array) -> Array:
    """Charge of a step, or of each of a record, as a fraction of the capacity."""
    return u.current * u.dt / (SECONDS_PER_HOUR * capacity)
