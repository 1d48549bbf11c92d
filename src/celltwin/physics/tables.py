"""Piecewise linear tables over state of charge and temperature, as dense weights.

Weights and a matrix product instead of a search: differentiable in the argument, cheap when vectorised over
records, and plain enough to be emitted as C.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from celltwin.data.record import Record

Numbers = TypeVar("Numbers", Array, np.ndarray)

KELVIN = 273.15
MERGE = 3.0  # K: training temperatures closer than this share a node


def hat(x: Array, nodes: Array) -> Array:
    """Interpolation weights [nodes] of scalar `x` on increasing `nodes`: they sum to 1 and saturate at both ends."""
    if nodes.shape[0] == 1:
        return jnp.ones_like(nodes)
    gap = nodes[1:] - nodes[:-1]
    rise = jnp.clip((x - nodes[:-1]) / gap, 0.0, 1.0)  # share of each interval that lies below x
    one = jnp.ones_like(rise[:1])
    return jnp.concatenate([one, rise]) - jnp.concatenate([rise, one * 0])


def inverse_temperature(temperature: Numbers) -> Numbers:
    """-1000/T in 1/K for a temperature in degC. A logarithm linear in it is Arrhenius' law."""
    return -1000.0 / (temperature + KELVIN)


def temperature_nodes(records: Sequence[Record]) -> tuple[float, ...]:
    """Temperatures (degC) that tables get a node at: where the records' samples gather, a few kelvin apart.

    Records with a known ambient each name one; without, the range that was measured is divided evenly.
    """
    ambient = sorted({r.ambient_degC for r in records if not np.isnan(r.ambient_degC)})
    if not ambient:
        measured = np.concatenate([r.filled_temperature for r in records])
        low, high = np.quantile(measured, [0.01, 0.99])
        ambient = (
            list(np.linspace(low, high, 1 + int((high - low) // 10.0)))
            if high - low > 2 * MERGE
            else [np.mean([low, high])]
        )
    nodes: list[float] = []
    for value in ambient:
        if not nodes or value - nodes[-1] >= MERGE:
            nodes.append(round(float(value), 1))
    return tuple(nodes)
