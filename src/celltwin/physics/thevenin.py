"""Thevenin circuit: open-circuit voltage, ohmic and charge-transfer overpotential, N RC pairs.

    V = U(soc, T) + R0 I + s asinh(Rct I / s) + sum_i v_i
    v_i <- a_i v_i + (1 - a_i) R_i I,   a_i = exp(-dt / tau_i(T))

All resistances are tables over state of charge and temperature, positive by construction (their logarithms are the
parameters) and piecewise Arrhenius in temperature. The asinh is the inverse of a symmetric Butler-Volmer law
(Plett, Battery Management Systems I, 2015, ch. 3): nothing at room temperature, the largest single gain in the cold.
The discretisation of the pairs is exact for a current held over the step, of any length.
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
THERMAL_SCALE = 0.04  # V, where the scale s of the charge transfer starts: about 2RT/F


class TheveninState(NamedTuple):
    charge: Charge
    pairs: Array  # [N] V, overpotential of each RC pair


class Thevenin(eqx.Module):
    """OCV + R0 + charge transfer + N RC pairs over SOC and temperature."""

    ocv: Ocv
    log_resistance: Array  # [2 + N, soc nodes, temperatures] of ohm: R0, Rct, R1 ... RN
    log_tau: Array  # [N, temperatures] of s
    log_scale: Array  # [temperatures] of V
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
            ocv=Ocv.of(voltage),
            log_resistance=jnp.asarray(tables, single),
            log_tau=jnp.asarray(np.log(time_constants)[:, None] + np.zeros((1, len(temperatures))), single),
            log_scale=jnp.full(len(temperatures), np.log(THERMAL_SCALE), single),
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
        axis = jnp.asarray(inverse_temperature(np.asarray(self.temperatures)), dtype)
        warm = hat(inverse_temperature(temperature), axis)
        weights = jnp.outer(hat(soc, jnp.asarray(self.soc_nodes, dtype)), warm).ravel()
        resistance = jnp.exp(self.log_resistance.reshape(2 + self.pairs, -1) @ weights)
        return resistance, jnp.exp(self.log_tau @ warm), jnp.exp(self.log_scale @ warm)

    def init(self, start: Start) -> TheveninState:
        """At rest: no RC pair is charged."""
        return TheveninState(full_of(start.soc, start.capacity), jnp.zeros(self.pairs, start.soc.dtype))

    def step(self, state: TheveninState, u: Input) -> tuple[TheveninState, Output]:
        charge = advance(state.charge, u.current, u.dt)
        resistance, tau, scale = self.parameters_at(charge.soc, u.temperature)
        keep = jnp.exp(-u.dt / tau)
        pairs = keep * state.pairs + (1.0 - keep) * resistance[2:] * u.current
        transfer = scale * jnp.arcsinh(resistance[1] * u.current / scale)
        voltage = self.ocv(charge.soc, u.temperature) + resistance[0] * u.current + transfer + jnp.sum(pairs)
        return TheveninState(charge, pairs), Output(voltage, charge.soc)

    def penalty(self) -> Array:
        """Prior of smooth tables: bends over SOC, departures from Arrhenius' law, drift of the time constants (V^2)."""
        entropy, bend, falling = self.ocv.roughness()
        table, tau, scale = self.log_resistance, self.log_tau, self.log_scale
        start = jnp.log(jnp.asarray(self.initial_tau, tau.dtype))[:, None]
        curved = _square(jnp.diff(table, 2, axis=1)) + 0.1 * _square(jnp.diff(table, axis=1))
        arrhenius = (
            _square(jnp.diff(table, 2, axis=2)) + _square(jnp.diff(tau, axis=1)) + _square(jnp.diff(scale))
        )
        home = 0.1 * _square(tau - start) + _square(scale - np.log(THERMAL_SCALE))
        return 1e-5 * entropy + 1e-8 * bend + 1e-6 * falling + 3e-5 * (curved + arrhenius + home)


def _square(x: Array) -> Array:
    """Mean square, 0 of an empty array (one node has no neighbour)."""
    return jnp.mean(x**2) if x.size else jnp.zeros((), x.dtype)
