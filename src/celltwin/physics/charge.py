"""Coulomb counting that stays exact in single precision over days."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from celltwin.data.record import SECONDS_PER_HOUR
from celltwin.interface import Input

LOWEST, HIGHEST = -0.1, 1.1  # state of charge: beyond these no model says anything of a cell


class Charge(NamedTuple):
    """State of charge (fraction) with the part that rounding would lose, and the capacity (Ah) it refers to."""

    soc: Array
    lost: Array
    capacity: Array


def full_of(soc: Array, capacity: Array) -> Charge:
    """A counter that starts at `soc` of a cell of `capacity` Ah."""
    return Charge(soc, soc * 0, capacity)


def advance(charge: Charge, current: Array, dt: Array) -> Charge:
    """Add the charge of `current` (A, positive = charge) held for `dt` s, by Kahan's compensated summation.

    Source: W. Kahan, "Further remarks on reducing truncation errors", CACM 8 (1965) 40.
    """
    return _add(charge, current * dt / (SECONDS_PER_HOUR * charge.capacity))


def count(charge: Charge, u: Input) -> tuple[Charge, Array, Input]:
    """`advance` over a whole record in blocks: the counter at its end, the state of charge at every sample, and u.

    All arrays are [inside, blocks], see `physics.recurrence`. Summed within blocks, compensated from block to block.
    The inputs come back as they are: having gone through the scan, they lie in memory as blocks, and XLA does not
    transpose them again wherever they are used.
    """
    fraction = u.current * u.dt / (SECONDS_PER_HOUR * charge.capacity)

    def within(total: Array, row: tuple[Array, Input]) -> tuple[Array, tuple[Array, Input]]:
        total = total + row[0]
        return total, (total, row[1])

    def across(counter: Charge, block: Array) -> tuple[Charge, tuple[Array, Array]]:
        return _add(counter, block), (counter.soc, counter.lost)

    total, (passed, u) = jax.lax.scan(within, jnp.zeros_like(fraction[0]), (fraction, u))
    charge, (soc, lost) = jax.lax.scan(across, charge, total)
    return charge, soc + (passed - lost), u


def _add(charge: Charge, fraction: Array) -> Charge:
    added = fraction - charge.lost
    soc = charge.soc + added
    lost = jax.lax.stop_gradient((soc - charge.soc) - added)
    return Charge(soc, lost, charge.capacity)
