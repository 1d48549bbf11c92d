"""Piecewise linear tables over state of charge and temperature, as dense weights or by index.

`hat` is for the step of one sample: weights and a matrix product instead of a search, plain enough to be emitted
as C. `lookup` and `surface` read whole records at once, with derivatives that are as fast as themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.custom_derivatives import SymbolicZero

from celltwin.data.record import Record

Nodes = tuple[float, ...]
Numbers = TypeVar("Numbers", Array, np.ndarray)

KELVIN = 273.15
MERGE = 3.0  # K: training temperatures closer than this share a node
COLD_REACH = 20.0  # K below the coldest training temperature


def hat(x: Array, nodes: Array) -> Array:
    """Interpolation weights [nodes] of scalar `x` on increasing `nodes`: they sum to 1 and saturate at both ends."""
    if nodes.shape[0] == 1:
        return jnp.ones_like(nodes)
    gap = nodes[1:] - nodes[:-1]
    rise = jnp.clip((x - nodes[:-1]) / gap, 0.0, 1.0)  # share of each interval that lies below x
    one = jnp.ones_like(rise[:1])
    return jnp.concatenate([one, rise]) - jnp.concatenate([rise, one * 0])


def warmth(temperature: Array, nodes: Nodes, dtype: Any, reach: float = 0.0) -> Array:
    """Weights [nodes] of a table over temperatures (degC), linear in 1/T between them and as `reaching` beyond."""
    axis, onto = reaching(nodes, reach)
    weights = hat(inverse_temperature(temperature), jnp.asarray(axis, dtype))
    return weights if onto is None else jnp.asarray(onto, dtype) @ weights


def reaching(nodes: Nodes, reach: float) -> tuple[np.ndarray, np.ndarray | None]:
    """The axis -1000/T of a table over temperatures (degC), with one node more where it reaches below the coldest.

    A table of logarithms [.., nodes] times the matrix that comes with it is the table on that axis: it goes on for
    `reach` kelvins as between its two coldest nodes, which is Arrhenius' law, and is held from there.
    """
    axis = inverse_temperature(np.asarray(nodes))
    if reach == 0.0 or len(axis) == 1:
        return axis, None
    colder = inverse_temperature(np.asarray(nodes[0] - reach))
    share = float((axis[0] - colder) / (axis[1] - axis[0]))
    first = np.zeros((len(axis), 1))
    first[:2, 0] = 1.0 + share, -share
    return np.r_[colder, axis], np.hstack([first, np.eye(len(axis))])


def ramps(x: Array, nodes: Nodes) -> Array:
    """The share of each interval between nodes that lies below x [samples]: [intervals, samples], from 0 to 1."""
    low, width = _column(nodes[:-1], x), _column(1.0 / np.diff(nodes), x)
    return jnp.clip((x - low) * width, 0.0, 1.0)


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def lookup(tables: Sequence[Array], x_nodes: Nodes, y_nodes: Nodes, x: Array, y: Array) -> list[Array]:
    """Bilinear interpolation of several tables [x nodes or 1, y nodes] at samples x and y, [samples] each.

    A piecewise linear function is its first value plus, for each interval, its gain there times the share of the
    interval that is passed: a matrix product over x, and a sum of a few terms over y.
    """
    return _lookup(tables, x_nodes, y_nodes, x, y)[0]


def _lookup(tables: Any, x_nodes: Nodes, y_nodes: Nodes, x: Array, y: Array) -> tuple[list[Array], list[list[Array]]]:
    """The interpolated tables, and for each its value at the first y and its gains from y to y."""
    rows = _along_x(tables, ramps(x, x_nodes), first=True)
    return _along_y(rows, ramps(y, y_nodes)), rows


def _along_x(tables: Any, passed: Array, first: bool) -> list[list[Array]]:
    """For each table its rows over y, [samples] or scalars, from its gains over x."""
    gains = [_gains(_gains(table, 0), 1).T for table in tables]
    wide = [n for n, gain in enumerate(gains) if gain.shape[1] > 1]
    rows: list[list[Array]] = [list(gain[:, 0]) if first else [] for gain in gains]
    if wide:
        stacked = jnp.concatenate([gains[n] for n in wide])
        product = stacked[:, 1:] @ passed + (stacked[:, :1] if first else 0.0)
        split = iter(jnp.split(product, len(product)))
        for n in wide:
            rows[n] = [next(split).reshape(-1) for _ in range(len(gains[n]))]
    return rows


def _along_y(rows: list[list[Array]], passed: Array) -> list[Array]:
    shares = [share.reshape(-1) for share in jnp.split(passed, max(1, len(passed)))] if len(passed) else []
    flat = jnp.zeros(passed.shape[1:], passed.dtype)
    return [sum((g * p for g, p in zip(row[1:], shares, strict=True)), row[0] + flat) if row else flat for row in rows]


def _lookup_tangent(x_nodes: Nodes, y_nodes: Nodes, primals: Any, tangents: Any) -> tuple[list[Array], list[Array]]:
    tables, x, y = primals
    moved, x_dot, y_dot = tangents
    value, rows = _lookup(tables, x_nodes, y_nodes, x, y)
    dots = [jnp.zeros_like(v) for v in value]
    live = [n for n, dot in enumerate(moved) if not isinstance(dot, SymbolicZero)]
    for n, dot in zip(live, _lookup([moved[n] for n in live], x_nodes, y_nodes, x, y)[0], strict=True):
        dots[n] = dots[n] + dot
    if not isinstance(x_dot, SymbolicZero) and len(x_nodes) > 1:
        steep = _along_y(_along_x(tables, _steepness(x, x_nodes), first=False), ramps(y, y_nodes))
        dots = [dot + slope * x_dot for dot, slope in zip(dots, steep, strict=True)]
    if not isinstance(y_dot, SymbolicZero) and len(y_nodes) > 1:
        steep = _along_y([[0.0 * row[0], *row[1:]] for row in rows], _steepness(y, y_nodes))
        dots = [dot + slope * y_dot for dot, slope in zip(dots, steep, strict=True)]
    return value, dots


lookup.defjvp(_lookup_tangent, symbolic_zeros=True)


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def surface(table: Array, x_nodes: Nodes, y_nodes: Nodes, x: Array, y: Array) -> Array:
    """Bilinear interpolation of one table [x nodes, y nodes] at samples x and y, by index: for many nodes."""
    return _surface(table, x_nodes, y_nodes, x, y)[0]


def _surface(table: Array, x_nodes: Nodes, y_nodes: Nodes, x: Array, y: Array) -> tuple[Array, Array, Array]:
    """Value and slopes along x and y."""
    (i, s, ds), (j, t, dt) = _index(x, x_nodes), _index(y, y_nodes)
    right, up = (len(y_nodes) if len(x_nodes) > 1 else 0), (1 if len(y_nodes) > 1 else 0)
    at = i * len(y_nodes) + j
    flat = jnp.asarray(table).reshape(-1)
    # The indices are inside by construction: XLA need not see to it.
    a, b, c, d = (flat.at[at + corner].get(mode="promise_in_bounds") for corner in (0, up, right, right + up))
    low, high = a + t * (b - a), c + t * (d - c)
    return low + s * (high - low), ds * (high - low), dt * ((b - a) * (1.0 - s) + (d - c) * s)


def _surface_tangent(x_nodes: Nodes, y_nodes: Nodes, primals: Any, tangents: Any) -> tuple[Array, Array]:
    table, x, y = primals
    moved, x_dot, y_dot = tangents
    value, x_slope, y_slope = _surface(table, x_nodes, y_nodes, x, y)
    dot = jnp.zeros_like(value)
    if not isinstance(moved, SymbolicZero):
        # As a product of matrices: what it transposes to, for the gradient, is one too, and not a scatter.
        dot = _lookup([moved], x_nodes, y_nodes, x, y)[0][0]
    if not isinstance(x_dot, SymbolicZero):
        dot = dot + x_slope * x_dot
    if not isinstance(y_dot, SymbolicZero):
        dot = dot + y_slope * y_dot
    return value, dot


surface.defjvp(_surface_tangent, symbolic_zeros=True)


def _index(x: Array, nodes: Nodes) -> tuple[Array, Array, Array]:
    """The interval that x lies in, the share of it that lies below x, and that share's slope."""
    if len(nodes) == 1:
        return jnp.zeros(x.shape, jnp.int32), jnp.zeros_like(x), jnp.zeros_like(x)
    at = jnp.zeros(x.shape, jnp.int32)
    for node in nodes[1:-1]:
        at = at + (x >= np.asarray(node, x.dtype)).astype(jnp.int32)
    low, width = (jnp.asarray(v, x.dtype)[at] for v in (nodes[:-1], 1.0 / np.diff(nodes)))
    share = (x - low) * width
    return at, jnp.clip(share, 0.0, 1.0), jnp.where((share > 0.0) & (share < 1.0), width, 0.0)


def _gains(table: Array, axis: int) -> Array:
    """The first value, then what is gained from node to node."""
    return jnp.concatenate([jax.lax.slice_in_dim(table, 0, 1, axis=axis), jnp.diff(table, axis=axis)], axis)


def _steepness(x: Array, nodes: Nodes) -> Array:
    """Slopes of `ramps`, [intervals, samples]."""
    low, high, width = (_column(v, x) for v in (nodes[:-1], nodes[1:], 1.0 / np.diff(nodes)))
    return jnp.where((x > low) & (x < high), width, np.zeros((), x.dtype))


def _column(values: Any, x: Array) -> np.ndarray:
    return np.asarray(values, x.dtype)[:, None]


@jax.custom_jvp
def asinh(x: Array) -> Array:
    """Inverse hyperbolic sine, several times faster than the library's: exact to rounding beside 1, not beside 0."""
    size = jnp.abs(x)
    return jnp.sign(x) * jnp.log(size + jnp.sqrt(size * size + 1.0))


@asinh.defjvp
def _asinh_tangent(primals: Any, tangents: Any) -> tuple[Array, Array]:
    return asinh(*primals), tangents[0] * jax.lax.rsqrt(primals[0] ** 2 + 1.0)


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
