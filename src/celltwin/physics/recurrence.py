"""First-order linear recurrences over whole records, in far fewer sequential steps than samples.

    x_k = keep_k x_{k-1} + drive_k

RC pairs, counted charge, the warmth of a core and one-state hysteresis are all of this form once the current is
known, and a circuit simulates a record an order of magnitude faster so than by scanning its `step`. Time is cut
into blocks of about its square root: all blocks advance side by side from zero, then what they hand on is carried
through. For records of 3,600 samples that is 120 sequential steps. Sums that are clipped at every step are handled
likewise: a clipped sum of clipped sums is one clipped sum.

In blocks, a record [time] is an array [inside, blocks]: a column is a block, and one step of the scan is a row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero


def blocks(time: int) -> tuple[int, int]:
    """Number of blocks and samples in each for a record of `time` samples."""
    inside = max(1, math.isqrt(time))
    return -(-time // inside), inside


def in_blocks(x: Array, edge: bool = False) -> Array:
    """[time, ...] as [inside, blocks, ...], padded at the end with its last value or with zeros."""
    count, inside = blocks(x.shape[0])
    shape = (count * inside - x.shape[0], *x.shape[1:])
    padding = jnp.broadcast_to(x[-1:], shape) if edge else jnp.zeros(shape, x.dtype)
    return jnp.swapaxes(jnp.concatenate([x, padding]).reshape(count, inside, *x.shape[1:]), 0, 1)


def from_blocks(x: Array, time: int) -> Array:
    """The inverse of `in_blocks`."""
    return jnp.swapaxes(x, 0, 1).reshape(x.shape[0] * x.shape[1], *x.shape[2:])[:time]


def linear_recurrence(keep: Array, drive: Array, initial: Array) -> Array:
    """All x_k, [time, ...], from `keep` [time, ...], `drive` [time, ...] and x_{-1} = `initial` [...]."""
    # Whatever is kept in the padding: nothing comes after it.
    (x,) = side_by_side([in_blocks(keep)], [in_blocks(drive)], [initial])
    return from_blocks(x, drive.shape[0])


def clipped_sum(drive: Array, initial: Array) -> Array:
    """All x_k = clip(x_{k-1} + drive_k, -1, 1), [time, ...], from `drive` [time, ...] and x_{-1} = `initial` [...].

    One step after another is again a shift and a clip: from clip(x + d, l, h) comes clip(x + d + d', l', h') with
    l' = clip(l + d', -1, 1) and h' = clip(h + d', -1, 1).
    """

    def inside(carry: Any, d: Array) -> tuple[Any, Any]:
        total, low, high = carry
        after = (total + d, jnp.clip(low + d, -1.0, 1.0), jnp.clip(high + d, -1.0, 1.0))
        return after, after

    def across(x: Array, block: Any) -> tuple[Array, Array]:
        total, low, high = block
        return jnp.clip(x + total, low, high), x

    drives = in_blocks(drive)
    zero = jnp.zeros_like(drives[0])
    whole, (total, low, high) = jax.lax.scan(inside, (zero, zero - 1.0, zero + 1.0), drives)
    _, entering = jax.lax.scan(across, initial, whole)
    return from_blocks(jnp.clip(entering[None] + total, low, high), drive.shape[0])


@jax.custom_jvp
def side_by_side(keep: Sequence[Array], drive: Sequence[Array], initial: Sequence[Array]) -> list[Array]:
    """Several recurrences in blocks: all x_k of each, [inside, blocks, ...], from arrays of that shape."""
    return _solve(keep, drive, initial)


def _tangent(primals: Any, tangents: Any) -> tuple[list[Array], list[Array]]:
    """The tangent obeys the same recurrence, driven by d(keep) x_{k-1} + d(drive); only where something moves."""
    keep, drive, initial = primals
    x = _solve(keep, drive, initial)
    moved = [jnp.zeros_like(each) for each in x]
    drives: dict[int, Array] = {}
    starts = []
    for n, (a, b, c) in enumerate(zip(*tangents, strict=True)):
        if all(isinstance(dot, SymbolicZero) for dot in (a, b, c)):
            continue
        drives[n] = moved[n] if isinstance(b, SymbolicZero) else b
        if not isinstance(a, SymbolicZero):
            drives[n] = drives[n] + a * _before(x[n], initial[n])
        starts.append(jnp.zeros_like(initial[n]) if isinstance(c, SymbolicZero) else c)
    for n, dot in zip(drives, _solve([keep[n] for n in drives], list(drives.values()), starts), strict=True):
        moved[n] = dot
    return x, moved


side_by_side.defjvp(_tangent, symbolic_zeros=True)


def _before(x: Array, initial: Array) -> Array:
    """x_{k-1} for all k, [inside, blocks, ...]."""
    ends = jnp.concatenate([initial[None], x[-1, :-1]])
    return jnp.concatenate([ends[None], x[:-1]])


def _solve(keep: Sequence[Array], drive: Sequence[Array], initial: Sequence[Array]) -> list[Array]:
    if not drive:
        return []

    def inside(carry: Any, row: Any) -> tuple[Any, Any]:
        after = [(a * product, a * local + b) for a, b, (product, local) in zip(*row, carry, strict=True)]
        return after, after

    def across(carry: Any, block: Any) -> tuple[Any, Any]:
        return [product * x + local for (product, local), x in zip(block, carry, strict=True)], carry

    zero = [(jnp.ones_like(b[0]), jnp.zeros_like(b[0])) for b in drive]
    total, local = jax.lax.scan(inside, zero, (list(keep), list(drive)))
    _, entering = jax.lax.scan(across, list(initial), total)
    return [own + product * x[None] for (product, own), x in zip(local, entering, strict=True)]
