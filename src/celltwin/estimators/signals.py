"""What learned estimators are fed: the sensors' last known values, their trailing means, and how long they have run.

A sensor that falls silent (NaN) keeps its last value. Trailing means are leaky, a few numbers that span half a minute
to half an hour and mean the same at any sampling. Everything is scaled by the training domain; nothing is computed
from state of charge.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from celltwin.data.domain import Domain
from celltwin.interface import Measurement, Start, measured

MEANS = (20.0, 200.0, 1500.0)  # s, time constants of the trailing means of voltage and current
LONGEST = 3600.0  # s, after which an estimator no longer counts how long it has run
FEATURES = 4 + 2 * len(MEANS)


class Signals(NamedTuple):
    """What was seen so far. Before the first sample, the start."""

    voltage: Array  # V, last known
    current: Array  # A, last known
    temperature: Array  # degC, last known
    voltage_lags: Array  # [means] V, of the trailing means behind the last known voltage
    current_lags: Array  # [means] A, likewise of current
    elapsed: Array  # s since the start


def woken(start: Start) -> Signals:
    """All means at the first values."""
    none = jnp.zeros(len(MEANS), start.voltage.dtype)
    return Signals(start.voltage, start.current, start.temperature, none, none, 0 * start.voltage)


def watch(seen: Signals, y: Measurement) -> tuple[Signals, Array]:
    """The signals after a sample, and whether its voltage was measured."""
    known = measured(y.voltage)
    voltage = jnp.where(known, y.voltage, seen.voltage)
    current = jnp.where(jnp.isfinite(y.current), y.current, seen.current)
    temperature = jnp.where(jnp.isfinite(y.temperature), y.temperature, seen.temperature)
    after = Signals(
        voltage,
        current,
        temperature,
        _lagging(seen.voltage_lags, voltage - seen.voltage, y.dt),
        _lagging(seen.current_lags, current - seen.current, y.dt),
        jnp.minimum(seen.elapsed + y.dt, LONGEST),
    )
    return after, known


def _lagging(lags: Array, change: Array, dt: Array) -> Array:
    """Trailing means less the value itself, after it changed and was held over dt.

    A mean that is kept whole collects a rounding of its whole size at every sample, half an hour of them; what is
    kept of it here is small, and so are its roundings.
    """
    return jnp.exp(-dt / jnp.asarray(MEANS, lags.dtype)) * (lags - change)


def features(seen: Signals, domain: Domain) -> Array:
    """The signals as a network takes them: [FEATURES], of order one and never far beyond it."""
    everything = jnp.concatenate(
        [
            jnp.stack(
                [
                    domain.scale("voltage", seen.voltage),
                    domain.scale("current", seen.current),
                    domain.scale("temperature", seen.temperature),
                    jnp.log1p(seen.elapsed / 10.0) / 3.0,
                ]
            ),
            domain.scale("voltage", seen.voltage + seen.voltage_lags),
            domain.scale("current", seen.current + seen.current_lags),
        ]
    )
    return jnp.clip(everything, -6.0, 6.0)
