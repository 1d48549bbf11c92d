"""Voltage hysteresis: the open-circuit voltage after charging lies above that after discharging.

    h_m <- a_m h_m + (1 - a_m) sign(I) M_m(soc),   a_m = exp(-gamma_m |I| dt / Q)

Each mode approaches its branch, +M on charge and -M on discharge, with the charge that passes and not with time, and
stays where it is at rest. One mode is the one-state model (Plett, Battery Management Systems I, 2015, ch. 2; in volts
as in NREL's thevenin); several with rates an order apart remember minor loops within major ones, as Preisach's
hysterons do. A cell wakes on the side of its mean curve that its voltage shows.

    h = sum_m G_m(soc) z_m,   z_m <- clip(z_m + I dt / (r_m Q), -1, 1)

Stops do it with exact memory: each follows the charge until it has passed r_m of the capacity one way, and then stays
where it is until the current turns. r_m z_m is Prandtl's stop, and soc - r_m z_m the play of Krasnosel'skii and
Pokrovskii (Systems with Hysteresis, 1989, ch. 1); weighed and summed, the Prandtl-Ishlinskii model. A minor loop in
charge closes where it began, and neither time nor the speed of the charge matters.
"""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from celltwin.data.record import SECONDS_PER_HOUR
from celltwin.physics.recurrence import clipped_sum
from celltwin.physics.tables import hat, lookup

UNIT = 0.01  # V, of the tables
RATES = (8.0, 80.0)  # per capacity passed: an eighth of it, and an eightieth
RADII = (0.02, 0.1)  # of the capacity, where training of stops starts
STOP_NODES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # of the state of charge
SMALL_GAP = 0.003  # V, likewise


class Hysteresis(eqx.Module):
    """Modes of hysteresis, each with a table of half the gap between its branches."""

    raw_gap: Array  # [modes, soc nodes]; half the gap is UNIT softplus(raw), positive
    log_rate: Array  # [modes] logarithm of gamma, per capacity passed
    soc_nodes: tuple[float, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, gap: np.ndarray, rates: Sequence[float], soc_nodes: Sequence[float]) -> Hysteresis:
        """From half gaps [modes, soc nodes] in V and rates [modes]."""
        nodes = tuple(float(s) for s in soc_nodes)
        return cls(_raw(gap), jnp.log(jnp.asarray(rates, np.float32)), nodes)

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


class Stops(eqx.Module):
    """Hysteresis that the charge alone moves: weighed stops of several radii (see the module)."""

    raw_gap: Array  # [stops, soc nodes]; half the gap is UNIT softplus(raw), positive
    log_radius: Array  # [stops] logarithm of r, a fraction of the capacity
    soc_nodes: tuple[float, ...] = eqx.field(static=True)
    initial_radius: tuple[float, ...] = eqx.field(static=True)  # fractions of the capacity

    @classmethod
    def create(cls, radii: Sequence[float] = RADII, soc_nodes: Sequence[float] = STOP_NODES) -> Stops:
        """Stops to be trained, of the same small gap everywhere."""
        return cls.of(np.full((len(radii), len(soc_nodes)), SMALL_GAP), radii, soc_nodes)

    @classmethod
    def of(cls, gap: np.ndarray, radii: Sequence[float], soc_nodes: Sequence[float]) -> Stops:
        """From half gaps [stops, soc nodes] in V and radii [stops], fractions of the capacity."""
        nodes, radii = (tuple(float(x) for x in values) for values in (soc_nodes, radii))
        return cls(_raw(gap), jnp.log(jnp.asarray(radii, np.float32)), nodes, radii)

    def gap(self, soc: Array) -> Array:
        """Half the gap between the branches that each stop makes, [stops] in V, at a scalar state of charge."""
        return UNIT * jax.nn.softplus(self.raw_gap) @ hat(soc, jnp.asarray(self.soc_nodes, self.raw_gap.dtype))

    def init(self, soc: Array, excess: Array) -> Array:
        """Positions [stops], -1 to 1, of a cell whose rested voltage lies `excess` V above the mean curve."""
        share = jnp.clip(excess / (jnp.sum(self.gap(soc)) + 1e-6), -1.0, 1.0)
        return jnp.full(self.log_radius.shape, share)

    def advance(self, position: Array, passed: Array) -> Array:
        """Positions [stops] after a charge, as a fraction of the capacity: positive on charge."""
        return jnp.clip(position + passed / jnp.exp(self.log_radius), -1.0, 1.0)

    def voltage(self, position: Array, soc: Array) -> Array:
        """The hysteresis in V at positions [stops] and a scalar state of charge."""
        return self.gap(soc) @ position

    def over(self, position: Array, passed: Array, soc: Array) -> tuple[Array, Array]:
        """Over a record: the final positions [stops] and the hysteresis in V [time].

        `passed` and `soc` are the charge of each step and the state of charge after it, fractions [time].
        """
        positions = clipped_sum(passed[:, None] / jnp.exp(self.log_radius), position)
        tables = list(UNIT * jax.nn.softplus(self.raw_gap)[:, :, None])
        gaps = lookup(tables, self.soc_nodes, (0.0,), soc, jnp.zeros_like(soc))
        volts = sum((gap * positions[:, n] for n, gap in enumerate(gaps)), jnp.zeros_like(soc))
        return positions[-1], volts

    def penalty(self) -> Array:
        """Prior of smooth and small gaps and of radii near where they started (V^2)."""
        gap = jax.nn.softplus(self.raw_gap)
        start = jnp.log(jnp.asarray(self.initial_radius, gap.dtype))
        home = jnp.mean((self.log_radius - start) ** 2)
        return 1e-5 * jnp.mean(jnp.diff(gap, axis=1) ** 2) + 3e-7 * jnp.mean(gap**2) + 1e-6 * home


def _raw(gap: np.ndarray) -> Array:
    """The inverse of UNIT softplus; a vanishing gap would be at minus infinity, where nothing can move it."""
    ratio = np.maximum(np.asarray(gap, float) / UNIT, 1e-9)
    return jnp.asarray(np.where(ratio > 20.0, ratio, np.log(np.expm1(np.minimum(ratio, 20.0)))), np.float32)
