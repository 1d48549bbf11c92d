"""Open-circuit voltage as a table over state of charge, with a small drift over temperature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from celltwin.data.record import Record
from celltwin.physics.tables import hat, inverse_temperature, surface, warmth

# Close where the curve bends, and a little beyond 0 and 1, where counted charge strays.
OCV_NODES = tuple(np.round(np.r_[np.linspace(-0.02, 0.1, 13)[:-1], np.linspace(0.1, 1.0, 37), 1.03], 4).tolist())
DRIFT_NODES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
UNIT = 0.05  # V, of the tables: an optimiser that moves every parameter alike then moves them by millivolts


class Ocv(eqx.Module):
    """U(soc, T) = table(soc) + drift(soc, T), piecewise linear in state of charge and in 1/T.

    The drift is what differs between temperatures: entropy, and capacity that moved between the tests. A prior keeps
    it small: free tables fit the training cycles better and unseen ones worse.
    """

    table: Array  # [nodes] in UNIT
    drift: Array  # [drift nodes, temperatures] in UNIT
    nodes: tuple[float, ...] = eqx.field(static=True)
    drift_nodes: tuple[float, ...] = eqx.field(static=True)
    temperatures: tuple[float, ...] = eqx.field(static=True)  # degC

    @classmethod
    def of(cls, voltage: np.ndarray, temperatures: Sequence[float], nodes: Sequence[float] = OCV_NODES) -> Ocv:
        """A table without drift."""
        drift = jnp.zeros((len(DRIFT_NODES), len(temperatures)), np.float32)
        return cls(jnp.asarray(voltage / UNIT, np.float32), drift, tuple(nodes), DRIFT_NODES, tuple(temperatures))

    @classmethod
    def of_curves(cls, voltage: np.ndarray, nodes: Sequence[float], temperatures: Sequence[float]) -> Ocv:
        """One curve for each temperature, [nodes, temperatures] in V: their mean as the table, the rest as drift."""
        nodes, temperatures = tuple(float(n) for n in nodes), tuple(float(t) for t in temperatures)
        mean = voltage.mean(axis=1)
        table, drift = (jnp.asarray(v / UNIT, np.float32) for v in (mean, voltage - mean[:, None]))
        return cls(table, drift, nodes, nodes, temperatures)

    def __call__(self, soc: Array, temperature: Array) -> Array:
        """Open-circuit voltage in V at a state of charge (fraction) and temperature (degC), both scalars."""
        dtype = self.table.dtype
        # About its middle, or the sum of dozens of large terms rounds where an estimator looks for a microvolt.
        middle = self.table[len(self.nodes) // 2]
        table = hat(soc, jnp.asarray(self.nodes, dtype)) @ (self.table - middle)
        warm = warmth(temperature, self.temperatures, dtype)
        drift = hat(soc, jnp.asarray(self.drift_nodes, dtype)) @ self.drift @ warm
        return UNIT * middle + UNIT * (table + drift)

    def over(self, soc: Array, temperature: Array) -> Array:
        """Open-circuit voltage in V over a record: states of charge and temperatures [samples]."""
        nodes = tuple(sorted({*self.nodes, *self.drift_nodes}))
        table, drift = (
            jnp.asarray(interpolation(np.asarray(nodes), each), self.table.dtype)
            for each in (self.nodes, self.drift_nodes)
        )
        volts = UNIT * ((table @ self.table)[:, None] + drift @ self.drift)
        axis = tuple(inverse_temperature(np.asarray(self.temperatures)).tolist())
        return surface(volts, nodes, axis, soc, inverse_temperature(temperature))

    def moved(self, soc: np.ndarray, volts: Array | np.ndarray) -> Ocv:
        """The curve raised by `volts` at states of charge `soc`, linearly between them and level beyond."""
        raised = interpolation(np.asarray(self.nodes), soc) @ np.asarray(volts) / UNIT
        return replace(self, table=self.table + jnp.asarray(raised, self.table.dtype))

    def stretched(self, low: tuple[float, float], high: tuple[float, float]) -> Ocv:
        """The curve with the voltage low[0] moved to low[1], high[0] to high[1] (V), and all others alike."""
        gain = (high[1] - low[1]) / (high[0] - low[0])
        return replace(self, table=gain * self.table + (low[1] - gain * low[0]) / UNIT, drift=gain * self.drift)

    def slope(self) -> Array:
        """Slope of the table between its nodes, [nodes - 1] in V."""
        return UNIT * jnp.diff(self.table) / jnp.diff(jnp.asarray(self.nodes, self.table.dtype))

    def penalty(self) -> Array:
        """Prior in V^2: drifts of a few mV and smooth, a curve that bends gently and does not fall."""
        slope = self.slope()
        bend, falling = jnp.mean(jnp.diff(slope) ** 2), jnp.mean(jnp.minimum(slope - 0.02, 0.0) ** 2)
        drift = jnp.mean(self.drift**2) + jnp.mean(jnp.diff(self.drift, axis=0) ** 2)
        return 2e-5 * drift + 1e-8 * bend + 1e-6 * falling


def interpolation(x: np.ndarray, nodes: Sequence[float] | np.ndarray) -> np.ndarray:
    """Weights [samples, nodes] of piecewise linear interpolation: `hat` for whole records in numpy."""
    return np.stack([np.interp(x, nodes, row) for row in np.eye(len(nodes))], axis=1)


def fit_ohmic(
    records: Sequence[Record], temperatures: Sequence[float], nodes: Sequence[float] = OCV_NODES
) -> tuple[np.ndarray, np.ndarray]:
    """Open-circuit voltage table (V) and one resistance for each temperature (ohm) by linear least squares.

    Solves V = U(soc) + R(T) I over all samples, with a small weight on the curve's second differences so that
    nodes without samples follow their neighbours. Resistances are kept positive.
    """
    axis = inverse_temperature(np.asarray(temperatures, float))
    size = len(nodes)
    normal, right = np.zeros((size + len(axis),) * 2), np.zeros(size + len(axis))
    for record in records:
        ohmic = interpolation(inverse_temperature(record.filled_temperature), axis) * record.current[:, None]
        design = np.hstack([interpolation(record.soc, nodes), ohmic])
        known = np.isfinite(record.voltage)
        normal += design[known].T @ design[known]
        right += design[known].T @ record.voltage[known]
    bend = np.diff(np.eye(size), 2, axis=0)
    normal[:size, :size] += 1e-3 * normal.trace() / size * bend.T @ bend
    normal += 1e-6 * np.eye(len(normal))
    solution = np.linalg.solve(normal, right)
    resistance = solution[size:]
    positive = resistance[resistance > 0]
    floor = 0.1 * float(np.median(positive)) if len(positive) else 1e-3
    return solution[:size], np.maximum(resistance, floor)
