"""Thevenin circuit: open-circuit voltage, ohmic and charge-transfer overpotential, N RC pairs.

    V = U(soc + shift, T) + R0 I + s asinh(Rct I / s) + sum_i v_i
    v_i <- a_i v_i + (1 - a_i) E_i(I),   a_i = exp(-dt / tau_i(T)),   E_1 = s asinh(R1 I / s),  E_i = R_i I

All resistances are tables over state of charge and temperature, positive by construction (their logarithms are the
parameters) and piecewise Arrhenius in temperature. The asinh is the inverse of a symmetric Butler-Volmer law
(Plett, Battery Management Systems I, 2015, ch. 3), at once and behind the double layer of the first pair: nothing at
room temperature, the largest single gain in the cold. The discretisation of the pairs is exact for a current held over
the step, of any length.

Resistances and time constants are read at the temperature of the cell's core, T + theta: what is measured is the
surface, and in the cold a core a few kelvin warmer has a tenth less resistance.

    theta <- a theta + (1 - a) R_th I (V - U),   a = exp(-dt / tau_th)

The shift is what the start tells: a cell that wakes at rest a few mV above the curve was charged a little further, or
holds a little less, than its counter says. It moves the curve, not the counter, by at most 3 % of SOC.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from celltwin.data.record import Record
from celltwin.interface import Input, Output, Start
from celltwin.physics.charge import Charge, advance, full_of
from celltwin.physics.ocv import Ocv, fit_ohmic
from celltwin.physics.tables import hat, inverse_temperature, temperature_nodes

SOC_NODES = (0.0, 0.04, 0.08, 0.12, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
TIME_CONSTANTS = (4.0, 40.0, 400.0)  # s, where training starts
THERMAL = (0.5, 150.0)  # K/W and s, where the core's thermal resistance and time constant start
WARMEST_CORE = 30.0  # K above the surface
RESTED_RATE = 20.0  # 1/h: a start under C/20 is half trusted to be at rest
LARGEST_SHIFT = 0.03
WAKE_UNIT = 0.1  # V
THERMAL_SCALE = 0.04  # V, where the scale s of the charge transfer starts: about 2RT/F


class TheveninState(NamedTuple):
    charge: Charge
    pairs: Array  # [N] V, overpotential of each RC pair
    core: Array  # K, by which the core is warmer than the surface
    shift: Array  # fraction, by which the OCV curve is read beside the counter


class Thevenin(eqx.Module):
    """OCV + R0 + charge transfer + N RC pairs over SOC and temperature."""

    ocv: Ocv
    log_resistance: Array  # [2 + N, soc nodes, temperatures] of ohm: R0, Rct, R1 ... RN
    log_tau: Array  # [N, temperatures] of s
    log_scale: Array  # [temperatures] of V
    log_thermal: Array  # [2] logarithm of R_th (K/W) and of tau_th (s)
    wake: Array  # [2, temperatures] gain (1/V) and offset (0.1 V) with which the start's voltage shifts the curve
    temperatures: tuple[float, ...] = eqx.field(static=True)  # degC
    soc_nodes: tuple[float, ...] = eqx.field(static=True)
    initial_tau: tuple[float, ...] = eqx.field(static=True)  # s

    @classmethod
    def create(cls, records: Sequence[Record], time_constants: Sequence[float] = TIME_CONSTANTS) -> Thevenin:
        """A circuit that starts from the least-squares OCV and resistance of the records."""
        temperatures = temperature_nodes(records)
        voltage, resistance = fit_ohmic(records, temperatures)
        pairs = len(time_constants)
        share = np.array([0.35, 0.25] + [0.4 / pairs] * pairs)[:, None, None]
        tables = np.log(share * resistance[None, None, :]) + np.zeros((1, len(SOC_NODES), 1))
        single = np.float32
        return cls(
            ocv=Ocv.of(voltage, temperatures),
            log_resistance=jnp.asarray(tables, single),
            log_tau=jnp.asarray(np.log(time_constants)[:, None] + np.zeros((1, len(temperatures))), single),
            log_scale=jnp.full(len(temperatures), np.log(THERMAL_SCALE), single),
            log_thermal=jnp.log(jnp.asarray(THERMAL, single)),
            wake=jnp.zeros((2, len(temperatures)), single).at[0].set(0.3),
            temperatures=temperatures,
            soc_nodes=SOC_NODES,
            initial_tau=tuple(float(t) for t in time_constants),
        )

    @property
    def pairs(self) -> int:
        """Number of RC pairs."""
        return self.log_tau.shape[0]

    def parameters_at(self, soc: Array, temperature: Array) -> tuple[Array, Array, Array]:
        """Resistances [2 + N] in ohm, time constants [N] in s and charge-transfer scale in V for scalars."""
        dtype = self.log_tau.dtype
        warm = self._warm(temperature)
        weights = jnp.outer(hat(soc, jnp.asarray(self.soc_nodes, dtype)), warm).ravel()
        resistance = jnp.exp(self.log_resistance.reshape(2 + self.pairs, -1) @ weights)
        return resistance, jnp.exp(self.log_tau @ warm), jnp.exp(self.log_scale @ warm)

    def _warm(self, temperature: Array) -> Array:
        """Interpolation weights [temperatures] at a temperature in degC."""
        axis = jnp.asarray(inverse_temperature(np.asarray(self.temperatures)), self.log_tau.dtype)
        return hat(inverse_temperature(temperature), axis)

    def init(self, start: Start) -> TheveninState:
        """At rest, no RC pair charged; the voltage beyond the curve says how far the charge is misaligned."""
        resistance, _, _ = self.parameters_at(start.soc, start.temperature)
        gain, offset = self.wake @ self._warm(start.temperature)
        excess = start.voltage - self.ocv(start.soc, start.temperature) - resistance[0] * start.current
        # Under load, the voltage tells of resistance and not of charge.
        rested = 1.0 / (1.0 + (RESTED_RATE * start.current / start.capacity) ** 2)
        shift = jnp.clip(rested * gain * (excess - WAKE_UNIT * offset), -LARGEST_SHIFT, LARGEST_SHIFT)
        pairs = jnp.zeros(self.pairs, start.soc.dtype)
        return TheveninState(full_of(start.soc, start.capacity), pairs, 0 * start.soc, shift)

    def step(self, state: TheveninState, u: Input) -> tuple[TheveninState, Output]:
        charge = advance(state.charge, u.current, u.dt)
        resistance, tau, scale = self.parameters_at(charge.soc, u.temperature + state.core)
        keep = jnp.exp(-u.dt / tau)
        charge_transfer = scale * jnp.arcsinh(resistance[1:3] * u.current / scale)
        drive = jnp.concatenate([charge_transfer[1:], resistance[3:] * u.current])
        pairs = keep * state.pairs + (1.0 - keep) * drive
        ocv = self.ocv(charge.soc + state.shift, u.temperature)
        overpotential = resistance[0] * u.current + charge_transfer[0] + jnp.sum(pairs)
        thermal_resistance, thermal_tau = jnp.exp(self.log_thermal)
        cool = jnp.exp(-u.dt / thermal_tau)
        warmed = cool * state.core + (1.0 - cool) * thermal_resistance * u.current * overpotential
        core = jnp.clip(warmed, 0.0, WARMEST_CORE)
        return TheveninState(charge, pairs, core, state.shift), Output(ocv + overpotential, charge.soc)

    def penalty(self) -> Array:
        """Prior of smooth tables: bends over SOC, departures from Arrhenius' law, drift of the time constants (V^2)."""
        table, tau, scale = self.log_resistance, self.log_tau, self.log_scale
        start = jnp.log(jnp.asarray(self.initial_tau, tau.dtype))[:, None]
        curved = _square(jnp.diff(table, 2, axis=1)) + 0.1 * _square(jnp.diff(table, axis=1))
        arrhenius = _square(jnp.diff(table, 2, axis=2)) + _square(jnp.diff(tau, axis=1)) + _square(jnp.diff(scale))
        home = 0.1 * _square(tau - start) + _square(scale - float(np.log(THERMAL_SCALE)))
        thermal = _square(self.log_thermal - jnp.log(jnp.asarray(THERMAL, tau.dtype)))
        waking = _square(jnp.diff(self.wake, axis=1)) + _square(self.wake[1])
        return self.ocv.penalty() + 3e-5 * (curved + arrhenius + home) + 1e-6 * thermal + 1e-6 * waking


def _square(x: Array) -> Array:
    """Mean square, 0 of an empty array (one node has no neighbour)."""
    return jnp.mean(x**2) if x.size else jnp.zeros((), x.dtype)
