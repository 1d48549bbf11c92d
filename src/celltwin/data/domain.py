"""What the training records look like: the ranges a model may be trusted in, and the scales its inputs have."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import and_

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from celltwin.data.record import Record

CHANNELS = ("current", "temperature", "soc", "dt", "voltage")  # A, degC, fraction, s, V
MARGIN = 0.05  # of a channel's range, allowed beyond it at either end
STRETCH = 2.0  # times the shortest and longest step


class Fixed(eqx.Module):
    """Marks a part of a model that training must not change."""


class Domain(Fixed):
    """Lowest, highest, mean and standard deviation of each channel over the training records.

    `seen` holds the content hashes of these records, so that a scaling that saw a validation or test record can be
    refused.
    """

    low: Array  # [channels]
    high: Array
    mean: Array
    std: Array
    seen: tuple[str, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, records: Sequence[Record], dtype: type = np.float32) -> Domain:
        """Measure the domain of `records`; NaN samples are left out."""
        columns = [
            np.concatenate(parts)
            for parts in zip(
                *((r.current, r.filled_temperature, r.soc, r.dt[1:], r.voltage) for r in records), strict=True
            )
        ]
        statistics = [
            np.array([measure(column) for column in columns], dtype)
            for measure in (np.nanmin, np.nanmax, np.nanmean, np.nanstd)
        ]
        seen = tuple(sorted(record.content_hash for record in records))
        return cls(*(jnp.asarray(values) for values in statistics), seen=seen)

    def scale(self, channel: str, value: Array) -> Array:
        """A channel's value in standard deviations from its mean (constant channels are only centred)."""
        i = CHANNELS.index(channel)
        return (value - self.mean[i]) / jnp.where(self.std[i] > 1e-6, self.std[i], 1.0)

    def resized(self, ratio: Array | float) -> Domain:
        """The domain of a cell that shows at a current what this one's shows at `ratio` times as much."""
        statistics = (a.at[0].divide(ratio) for a in (self.low, self.high, self.mean, self.std))
        return Domain(*statistics, seen=self.seen)

    def excess(self, channel: str, value: Array) -> Array:
        """How far a value lies outside the range, in units of the range; 0 inside or within the margin."""
        i = CHANNELS.index(channel)
        span = jnp.maximum(self.high[i] - self.low[i], 1e-3 + 1e-3 * jnp.abs(self.high[i]))
        beyond = jnp.maximum(self.low[i] - value, value - self.high[i]) / span
        return jnp.maximum(beyond - MARGIN, 0.0)

    def trust(self, current: Array, temperature: Array, soc: Array) -> Array:
        """1 inside the domain, falling to 0 within a tenth of its range outside."""
        outside = self.excess("current", current) + self.excess("temperature", temperature) + self.excess("soc", soc)
        return jnp.clip(1.0 - 10.0 * outside, 0.0, 1.0)

    def contains(self, current: Array, temperature: Array, soc: Array, dt: Array) -> Array:
        """True where a sample lies inside the domain; the first sample (dt = 0) is judged without its dt.

        A step may be up to STRETCH times shorter or longer than those of training: clocks are not exact.
        """
        return reduce(and_, self.within(current, temperature, soc, dt).values())

    def within(self, current: Array, temperature: Array, soc: Array, dt: Array) -> dict[str, Array]:
        """Likewise, for each channel by itself."""
        i = CHANNELS.index("dt")
        steps = ((dt >= self.low[i] / STRETCH) & (dt <= self.high[i] * STRETCH)) | (dt == 0)
        ranged = {"current": current, "temperature": temperature, "soc": soc}
        return {"dt": steps} | {channel: self.excess(channel, value) <= 0 for channel, value in ranged.items()}

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest value of each channel, for cards and messages."""
        return {c: (float(self.low[i]), float(self.high[i])) for i, c in enumerate(CHANNELS)}
