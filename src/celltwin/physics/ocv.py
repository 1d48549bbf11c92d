"""Open-circuit voltage as a table over state of charge, and its drift with temperature."""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from celltwin.data.record import Record
from celltwin.physics.tables import hat, inverse_temperature

REFERENCE_TEMPERATURE = 25.0  # degC, where the table holds as it stands
# Close where the curve bends, and a little beyond 0 and 1, where counted charge strays.
OCV_NODES = tuple(
    np.round(np.r_[np.linspace(-0.02, 0.1, 13)[:-1], np.linspace(0.1, 1.0, 37), 1.03], 4).tolist()
)
ENTROPY_NODES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
ENTROPY_UNIT = 1e-3  # V/K


class Ocv(eqx.Module):
    """U(soc, T) = table(soc) + (T - 25 degC) dU/dT(soc), piecewise linear in state of charge."""

    voltage: Array  # [nodes] V
    entropy: Array  # [entropy nodes] mV/K
    nodes: tuple[float, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, voltage: np.ndarray, nodes: Sequence[float] = OCV_NODES) -> Ocv:
        return cls(jnp.asarray(voltage, np.float32), jnp.zeros(len(ENTROPY_NODES), np.float32), tuple(nodes))

    def __call__(self, soc: Array, temperature: Array) -> Array:
        """Open-circuit voltage in V at a state of charge (fraction) and temperature (degC), both scalars."""
        dtype = self.voltage.dtype
        table = hat(soc, jnp.asarray(self.nodes, dtype)) @ self.voltage
        slope = hat(soc, jnp.asarray(ENTROPY_NODES, dtype)) @ self.entropy
        return table + ENTROPY_UNIT * slope * (temperature - REFERENCE_TEMPERATURE)

    def roughness(self) -> tuple[Array, Array, Array]:
        """Mean squares that a prior weighs: entropy, bend of the curve, and falling pieces (V per unit of SOC)."""
        nodes = jnp.asarray(self.nodes, self.voltage.dtype)
        slope = jnp.diff(self.voltage) / jnp.diff(nodes)
        falling = jnp.minimum(slope - 0.02, 0.0)
        return jnp.mean(self.entropy**2), jnp.mean(jnp.diff(slope) ** 2), jnp.mean(falling**2)


def interpolation(x: np.ndarray, nodes: Sequence[float]) -> np.ndarray:
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
