"""Coulomb counting that stays exact in single precision over days."""

from __future__ import annotations

from typing import NamedTuple

import jax
from jax import Array

from celltwin.data.record import SECONDS_PER_HOUR


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
    added = current * dt / (SECONDS_PER_HOUR * charge.capacity) - charge.lost
    soc = charge.soc + added
    lost = jax.lax.stop_gradient((soc - charge.soc) - added)
    return Charge(soc, lost, charge.capacity)
