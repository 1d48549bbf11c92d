"""Two models that need no training, so that every figure has something to be compared with.

`Hold` repeats the voltage it woke with. `Ohmic` is open-circuit voltage plus one ohmic resistance that depends on
temperature: V = U(soc, T) + R(T) I, by linear least squares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from celltwin.data.record import Record
from celltwin.interface import Input, Output, Start
from celltwin.physics.charge import Charge, advance, full_of
from celltwin.physics.ocv import Ocv, fit_ohmic
from celltwin.physics.tables import COLD_REACH, temperature_nodes, warmth


class HoldState(eqx.Module):
    charge: Charge
    voltage: Array


class Hold(eqx.Module):
    """The voltage of the start, for ever."""

    def init(self, start: Start) -> HoldState:
        return HoldState(full_of(start.soc, start.capacity), start.voltage)

    def step(self, state: HoldState, u: Input) -> tuple[HoldState, Output]:
        state = HoldState(advance(state.charge, u.current, u.dt), state.voltage)
        return state, Output(state.voltage, state.charge.soc)


class Ohmic(eqx.Module):
    """V = U(soc, T) + R(T) I, with R piecewise Arrhenius in temperature."""

    ocv: Ocv
    log_resistance: Array  # [temperatures] of ohm
    temperatures: tuple[float, ...] = eqx.field(static=True)  # degC
    cold_reach: float = eqx.field(static=True, default=0.0)  # K below the coldest node, as in the circuit

    @classmethod
    def create(cls, records: Sequence[Record]) -> Ohmic:
        temperatures = temperature_nodes(records)
        voltage, resistance = fit_ohmic(records, temperatures)
        table = jnp.asarray(np.log(resistance), np.float32)
        return cls(Ocv.of(voltage, temperatures), table, temperatures, COLD_REACH)

    def voltage(self, soc: Array, temperature: Array, current: Array) -> Array:
        """Terminal voltage in V for scalars in fraction, degC and A."""
        weights = warmth(temperature, self.temperatures, self.log_resistance.dtype, self.cold_reach)
        return self.ocv(soc, temperature) + jnp.exp(self.log_resistance @ weights) * current

    def resized(self, ratio: Array | float) -> Ohmic:
        """The model of a cell of `ratio` times the resistance."""
        return replace(self, log_resistance=self.log_resistance + jnp.log(ratio))

    def init(self, start: Start) -> Charge:
        return full_of(start.soc, start.capacity)

    def step(self, state: Charge, u: Input) -> tuple[Charge, Output]:
        charge = advance(state, u.current, u.dt)
        return charge, Output(self.voltage(charge.soc, u.temperature, u.current), charge.soc)

    def penalty(self) -> Array:
        return self.ocv.penalty()
