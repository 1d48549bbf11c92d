"""Coulomb counting that stays exact in single precision over days."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from celltwin.data.record import SECONDS_PER_HOUR
from celltwin.physics.recurrence import from_blocks, in_blocks


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


def count(charge: Charge, current: Array, dt: Array) -> tuple[Charge, Array]:
    """`advance` over a whole record: the counter at its end and the state of charge at every sample, [time].

    Summed within blocks, and compensated from block to block.
    """
    added = in_blocks(current * dt / (SECONDS_PER_HOUR * charge.capacity), 0.0)
    within = jnp.cumsum(added, axis=0)

    def across(counter: Charge, block: Array) -> tuple[Charge, tuple[Array, Array]]:
        return _add(counter, block), (counter.soc, counter.lost)

    charge, (soc, lost) = jax.lax.scan(across, charge, within[-1])
    return charge, from_blocks(soc[None] + (within - lost[None]), current.shape[0])


def _add(charge: Charge, fraction: Array) -> Charge:
    added = fraction - charge.lost
    soc = charge.soc + added
    lost = jax.lax.stop_gradient((soc - charge.soc) - added)
    return Charge(soc, lost, charge.capacity)
