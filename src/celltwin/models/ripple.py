"""How lively a load is: a network that learned from drive cycles does not know what a steady current does.

    m <- a m + (1 - a) I       d <- a d + (1 - a) |I - m|       a = exp(-dt / TIME)

m is the running mean of the current, d its ripple about it. A steady current has d << |m|, which no range of currents
tells from a drive cycle. The least d / |m| of the training records bounds what a correction is trusted with.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from celltwin.data.domain import Fixed
from celltwin.data.record import Record
from celltwin.models.layers import remember
from celltwin.physics.recurrence import linear_recurrence

TIME = 60.0  # s
LOADED = 0.05  # of the largest current: under a running mean of less, a record says nothing of steady loads
QUANTILE = 1e-3
REST = 0.003  # of the largest current: a ripple beside which a running mean is none


class Ripple(Fixed):
    """What the training records had of it. State: [2], running mean and ripple, A."""

    least: Array  # of d / |m|
    rest: Array  # A

    @classmethod
    def of(cls, records: Sequence[Record]) -> Ripple:
        """Measure `records`."""
        largest = max(float(np.abs(record.current).max()) for record in records)
        shares = []
        for record in records:
            current, dt = (jnp.asarray(x, np.float32) for x in (record.current, record.dt))
            mean, ripple = np.asarray(over(jnp.zeros(2, np.float32), current, dt), float).T
            loaded = np.abs(mean) > LOADED * largest
            shares.append(ripple[loaded] / np.abs(mean[loaded]))
        share = np.concatenate(shares)
        least = np.quantile(share, QUANTILE) if share.size else 0.0
        return cls(jnp.asarray(least, np.float32), jnp.asarray(REST * largest, np.float32))

    def resized(self, ratio: Array | float) -> Ripple:
        """Of a cell that shows at a current what this one's shows at `ratio` times as much."""
        return Ripple(self.least, self.rest / ratio)

    def trust(self, state: Array) -> Array:
        """1 where a load is as lively as the training's, and at rest; falling to 0 at half of that."""
        mean, ripple = state[..., 0], state[..., 1]
        share = (ripple + self.rest) / (self.least * jnp.abs(mean) + self.rest)
        return jnp.clip(2.0 * share - 1.0, 0.0, 1.0)


def follow(state: Array, current: Array, dt: Array) -> Array:
    """State after a sample."""
    mean = remember(state[:1], current, dt, (TIME,))
    return jnp.concatenate([mean, remember(state[1:], jnp.abs(current - mean[0]), dt, (TIME,))])


@jax.jit
def over(state: Array, current: Array, dt: Array) -> Array:
    """States after each sample of a record, [time, 2]: what `follow` gives, at once."""
    keep = jnp.exp(-dt / TIME)
    mean = linear_recurrence(keep, (1.0 - keep) * current, state[0])
    return jnp.stack([mean, linear_recurrence(keep, (1.0 - keep) * jnp.abs(current - mean), state[1])], axis=1)
