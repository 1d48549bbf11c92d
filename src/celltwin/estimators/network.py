"""What the networks share: how they say a state of charge, how a whole record passes the sensors, and delay lines.

A delay line holds the values of its past *ticks*, which are a fixed number of seconds apart, and so means about the
same at any sampling: a step that is shorter than a tick adds a value only once a tick has passed (the lags then run up
to one tick short), a longer one adds the value that was held over it as often as ticks have passed.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from celltwin.data.domain import Domain
from celltwin.estimators.signals import Signals, features, watch
from celltwin.interface import POINT, Estimate, Measurement

LOWEST, HIGHEST = -0.05, 1.05  # fractions, between which every estimate lies
FLOOR = 0.1  # points, the smallest standard deviation that a network may claim
OUTSET = (0.5, 1.5)  # what it says before training: state of charge, and logarithm of the doubt in points
MOST_TICKS = 1e6  # in one step


def say(outputs: Array) -> Estimate:
    """The two numbers [..., 2] that end a network as an estimate: state of charge, logarithm of its doubt in points."""
    soc = jnp.clip(OUTSET[0] + outputs[..., 0], LOWEST, HIGHEST)
    doubt = FLOOR + jnp.exp(jnp.clip(OUTSET[1] + outputs[..., 1], -6.0, 4.0))
    return Estimate(soc, doubt / POINT)


def watch_all(seen: Signals, inputs: Measurement, domain: Domain) -> tuple[Signals, Array]:
    """The signals after measurements [time], and the features after each of them: [time, FEATURES]."""

    def step(seen: Signals, y: Measurement) -> tuple[Signals, Array]:
        after = watch(seen, y)[0]
        return after, features(after, domain)

    return jax.lax.scan(step, seen, inputs)


class Ticks(NamedTuple):
    """How often the clock of a delay line struck: during the step before its value counts, and at its end."""

    within: Array
    after: Array


def strike(phase: Array, dt: Array, period: float) -> tuple[Array, Ticks]:
    """A clock that strikes every `period` s: the time since it last did after a step of dt, and its ticks in it."""
    struck = jnp.clip(jnp.floor((phase + dt) / period + 1e-3), 0.0, MOST_TICKS)
    whole = struck.astype(jnp.int32)
    return jnp.clip(phase + dt - struck * period, -period, period), Ticks(
        jnp.maximum(whole - 1, 0), jnp.minimum(whole, 1)
    )


def push(line: Array, value: Array, ticks: Array) -> Array:
    """The delay line [lags, ...], newest first, after `ticks` more ticks that all show `value`."""
    age = jnp.arange(line.shape[0], dtype=jnp.int32) - ticks
    old = line[jnp.clip(age, 0, line.shape[0] - 1)]
    return jnp.where(age.reshape(-1, *([1] * (line.ndim - 1))) < 0, value, old)


def places(ticks: Ticks, lags: Array, length: int) -> tuple[Array, Array]:
    """Where to find the past of a whole sequence, all at once.

    For ticks [time], lags [n] (1 = last tick) and a delay line of `length`: indices [time, n] and, for the line that is
    left at the end, [length], both into the old line, oldest first, followed by the values of the sequence.
    """
    total = jnp.cumsum(ticks.within + ticks.after, dtype=jnp.int32)

    def place(tick: Array) -> Array:
        step = jnp.searchsorted(total, tick).astype(jnp.int32)
        return jnp.where(tick > 0, length + step, jnp.maximum(length - 1 + tick, 0))

    return place((total - ticks.after)[:, None] - lags + 1), place(total[-1] - jnp.arange(length, dtype=jnp.int32))
