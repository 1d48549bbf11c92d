"""Voltage hysteresis: the open-circuit voltage after charging lies above that after discharging.

    h_m <- a_m h_m + (1 - a_m) sign(I) M_m(soc),   a_m = exp(-gamma_m |I| dt / Q)

Each mode approaches its branch, +M on charge and -M on discharge, with the charge that passes and not with time, and
stays where it is at rest. One mode is the one-state model (Plett, Battery Management Systems I, 2015, ch. 2; in volts
as in NREL's thevenin); several with rates an order apart remember minor loops within major ones, as Preisach's
hysterons do. A cell wakes on the side of its mean curve that its voltage shows.
"""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from celltwin.data.record import SECONDS_PER_HOUR
from celltwin.physics.tables import hat

UNIT = 0.01  # V, of the tables
RATES = (8.0, 80.0)  # per capacity passed: an eighth of it, and an eightieth


class Hysteresis(eqx.Module):
    """Modes of hysteresis, each with a table of half the gap between its branches."""

    raw_gap: Array  # [modes, soc nodes]; half the gap is UNIT softplus(raw), positive
    log_rate: Array  # [modes] logarithm of gamma, per capacity passed
    soc_nodes: tuple[float, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, gap: np.ndarray, rates: Sequence[float], soc_nodes: Sequence[float]) -> Hysteresis:
        """From half gaps [modes, soc nodes] in V and rates [modes]."""
        # The inverse of softplus; a vanishing gap would be at minus infinity, where nothing can move it.
        ratio = np.maximum(np.asarray(gap, float) / UNIT, 1e-9)
        raw = np.where(ratio > 20.0, ratio, np.log(np.expm1(np.minimum(ratio, 20.0))))
        nodes = tuple(float(s) for s in soc_nodes)
        return cls(jnp.asarray(raw, np.float32), jnp.log(jnp.asarray(rates, np.float32)), nodes)

    @property
    def modes(self) -> int:
        """Number of modes."""
        return self.log_rate.shape[0]

    def gap(self, soc: Array) -> Array:
        """Half the gap between the branches of each mode, [modes] in V, at a scalar state of charge."""
        return UNIT * jax.nn.softplus(self.raw_gap) @ hat(soc, jnp.asarray(self.soc_nodes, self.raw_gap.dtype))

    def init(self, soc: Array, excess: Array) -> Array:
        """State [modes] in V of a cell whose rested voltage lies `excess` V above the mean curve."""
        gap = self.gap(soc)
        return gap * jnp.clip(excess / (jnp.sum(gap) + 1e-6), -1.0, 1.0)

    def recurrence(self, soc: Array, current: Array, dt: Array, capacity: Array) -> tuple[Array, Array]:
        """Factors [modes] and additions [modes] in V of the step h <- factor h + addition, from scalars."""
        keep = jnp.exp(-jnp.exp(self.log_rate) * jnp.abs(current) * dt / (SECONDS_PER_HOUR * capacity))
        return keep, (1.0 - keep) * jnp.sign(current) * self.gap(soc)

    def penalty(self) -> Array:
        """Prior of smooth and small gaps and of rates near where they started (V^2)."""
        gap = jax.nn.softplus(self.raw_gap)
        return 1e-7 * (jnp.mean(jnp.diff(gap, axis=1) ** 2) + 1e-2 * jnp.mean(gap**2))
