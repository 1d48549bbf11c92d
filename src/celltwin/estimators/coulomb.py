"""Two baselines: Coulomb counting, and the open-circuit voltage looked up.

`Coulomb` reads the state of charge from its first sample, V - R(T) I = U(soc, T), and counts from there; it never
looks at the voltage again. `OcvLookup` does only the first, at every sample. Curve and resistance are those of least
squares over the training records.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from celltwin.data.record import Record
from celltwin.interface import Estimate, Measurement, Start, measured, simulate_records
from celltwin.models.baselines import Ohmic
from celltwin.physics.charge import Charge, advance, full_of

GRID = tuple(np.linspace(0.0, 1.0, 101).tolist())


class Curve(eqx.Module):
    """The state of charge that shows a voltage, by an ohmic model that is `error` V wrong (standard deviation)."""

    ohmic: Ohmic
    error: Array

    @classmethod
    def create(cls, records: Sequence[Record]) -> Curve:
        ohmic = Ohmic.create(records)
        simulated = simulate_records(ohmic, records)
        off = np.concatenate([o.voltage - r.voltage for o, r in zip(simulated, records, strict=True)])
        return cls(ohmic, jnp.asarray(np.sqrt(np.nanmean(off**2)), np.float32))

    def read(self, voltage: Array, temperature: Array, current: Array) -> tuple[Array, Array]:
        """State of charge and its standard deviation (fractions), the mean over all that are about as likely."""
        grid = jnp.asarray(GRID, voltage.dtype)
        shown = jax.vmap(lambda soc: self.ohmic.voltage(soc, temperature, current))(grid)
        weight = jax.nn.softmax(-0.5 * ((voltage - shown) / self.error) ** 2)
        soc = weight @ grid
        return soc, jnp.sqrt(weight @ (grid - soc) ** 2 + 1e-6)


class Known(NamedTuple):
    charge: Charge
    std: Array


class Coulomb(eqx.Module):
    """soc <- soc + I dt / Q from wherever the first sample puts it."""

    curve: Curve

    @classmethod
    def create(cls, records: Sequence[Record]) -> Coulomb:
        return cls(Curve.create(records))

    def init(self, start: Start) -> Known:
        soc, std = self.curve.read(start.voltage, start.temperature, start.current)
        known = jnp.isfinite(start.soc)
        soc, std = jnp.where(known, start.soc, soc), jnp.where(known, 0.01, std)
        return Known(full_of(soc, start.capacity), std)

    def step(self, state: Known, y: Measurement) -> tuple[Known, Estimate]:
        current = jnp.where(jnp.isfinite(y.current), y.current, 0.0)
        charge = advance(state.charge, current, y.dt)
        return Known(charge, state.std), Estimate(charge.soc, state.std)


class Read(NamedTuple):
    estimate: Estimate
    sensors: Array  # [2] last known current and temperature


class OcvLookup(eqx.Module):
    """The curve, read at every sample; a voltage that was not measured leaves the last reading."""

    curve: Curve

    @classmethod
    def create(cls, records: Sequence[Record]) -> OcvLookup:
        return cls(Curve.create(records))

    def init(self, start: Start) -> Read:
        soc, std = self.curve.read(start.voltage, start.temperature, start.current)
        return Read(Estimate(soc, std), jnp.stack([start.current, start.temperature]))

    def step(self, state: Read, y: Measurement) -> tuple[Read, Estimate]:
        current = jnp.where(jnp.isfinite(y.current), y.current, state.sensors[0])
        temperature = jnp.where(jnp.isfinite(y.temperature), y.temperature, state.sensors[1])
        known = measured(y.voltage)
        soc, std = self.curve.read(jnp.where(known, y.voltage, 3.7), temperature, current)
        estimate = Estimate(jnp.where(known, soc, state.estimate.soc), jnp.where(known, std, state.estimate.std))
        return Read(estimate, jnp.stack([current, temperature])), estimate
