"""A cell of another capacity and resistance than the one that a model was trained on.

    V = f(r I, r q Q)      q capacity, r resistance, as multiples of the model's own;  Q the reference capacity

A model of a cell that is r times as large, under r times the current, has the same state of charge and r times every
overpotential: so one wrapper ages circuit, network and hybrid alike, and streams and exports as any model does. `soc`
corrects the state of charge at the start, which the log's counter may not have known quite, and `volts` the voltage
that goes with it: a model that compares the first voltage with its curve would else take the correction back.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import Array

from celltwin.interface import Input, Output, Start


class Aged(eqx.Module):
    """`model` as a cell of `capacity` times its capacity and `resistance` times its resistance."""

    model: Any
    capacity: Array  # of the model's, likewise
    resistance: Array
    soc: Array  # fraction, added to the state of charge at the start
    volts: Array | float = 0.0  # V, added to the voltage at the start

    @classmethod
    def of(cls, model: Any, capacity: Any = 1.0, resistance: Any = 1.0, soc: Any = 0.0, volts: Any = 0.0) -> Aged:
        """`model` at this age: a fresh one, where nothing is said."""
        return cls(model, *(jnp.asarray(value, jnp.result_type(float)) for value in (capacity, resistance, soc, volts)))

    def init(self, start: Start) -> Any:
        r, q = self.resistance, self.capacity
        aged = start._replace(
            voltage=start.voltage + self.volts,
            current=r * start.current,
            capacity=r * q * start.capacity,
            soc=start.soc + self.soc,
        )
        return self.model.init(aged)

    def step(self, state: Any, u: Input) -> tuple[Any, Output]:
        return self.model.step(state, u._replace(current=self.resistance * u.current))
