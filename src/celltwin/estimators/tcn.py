"""Temporal convolution: causal, dilated, with a delay line for each layer.

    u_0 = features,   u_l(t) = u_{l-1}(t) + relu(sum_j W_lj u_{l-1}(t - j d_l) + b_l),   d_l = 3^(l-1) ticks
    soc, log std = network(u_L(t), features)

Bai, Kolter, Koltun, "An empirical evaluation of generic convolutional and recurrent networks for sequence modeling",
arXiv:1803.01271 (2018), with one convolution a level; for state of charge Hannan et al., IEEE Access 8 (2020) 178325.
A delay line a layer makes a sample cost one column of the convolution, not the whole receptive field. How lags behave
at other samplings than the trained one is said in `network`: about alike, unlike the trailing means, which are exact.
Before a lag has passed, what the first sample would have given for ever stands in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from celltwin.data.domain import Domain
from celltwin.data.record import Record
from celltwin.estimators.network import places, push, say, strike, watch_all
from celltwin.estimators.signals import FEATURES, Signals, features, watch, woken
from celltwin.interface import Estimate, Measurement, Start
from celltwin.models.layers import Dense, Mlp, sampling_period


class TcnState(NamedTuple):
    seen: Signals
    phase: Array  # s since the last tick
    lines: tuple[Array, ...]  # a layer's past inputs, [lags, channels], newest first


class Tcn(eqx.Module):
    """Dilated causal convolutions with residual connections."""

    widen: Dense
    levels: tuple[Dense, ...]
    readout: Mlp
    domain: Domain
    taps: int = eqx.field(static=True)  # of a convolution; level l is dilated by taps^l ticks
    period: float = eqx.field(static=True)  # s, a tick: the sampling it was trained with

    @classmethod
    def create(
        cls,
        records: Sequence[Record],
        domain: Domain,
        key: Array,
        channels: int = 32,
        levels: int = 5,
        taps: int = 3,
    ) -> Tcn:
        """A network to be trained. It reaches taps^levels - 1 ticks back: 242 s at a second by default."""
        keys = jax.random.split(key, levels + 2)
        convolutions = tuple(Dense.create(taps * channels, channels, k) for k in keys[2:])
        readout = Mlp.create((channels + FEATURES, 32, 2), keys[1])
        widen = Dense.create(FEATURES, channels, keys[0])
        return cls(widen, convolutions, readout, domain, taps, sampling_period(records))

    def lags(self, level: int) -> Array:
        """Ticks that a level looks back, beside the present."""
        return jnp.arange(1, self.taps, dtype=jnp.int32) * self.taps**level

    def init(self, start: Start) -> TcnState:
        seen = woken(start)
        u, lines = self.widen(features(seen, self.domain)), []
        for number, level in enumerate(self.levels):
            lines.append(jnp.broadcast_to(u, ((self.taps - 1) * self.taps**number, u.shape[0])))
            u = u + jax.nn.relu(level(jnp.tile(u, self.taps)))
        return TcnState(seen, 0.0 * start.voltage, tuple(lines))

    def step(self, state: TcnState, y: Measurement) -> tuple[TcnState, Estimate]:
        seen, _ = watch(state.seen, y)
        phase, ticks = strike(state.phase, y.dt, self.period)
        x = features(seen, self.domain)
        u, lines = self.widen(x), []
        for number, (level, line) in enumerate(zip(self.levels, state.lines, strict=True)):
            known = push(line, u, ticks.within)
            lines.append(push(known, u, ticks.after))
            u = u + jax.nn.relu(level(jnp.concatenate([u, known[self.lags(number) - 1].reshape(-1)])))
        return TcnState(seen, phase, tuple(lines)), say(self.readout(jnp.concatenate([u, x])))

    def run(self, state: TcnState, inputs: Measurement) -> tuple[TcnState, Estimate]:
        """As a scan of `step`, a level at a time over the whole sequence: what makes training quick."""
        seen, x = watch_all(state.seen, inputs, self.domain)
        phase, ticks = jax.lax.scan(lambda p, dt: strike(p, dt, self.period), state.phase, inputs.dt)
        u, lines = jax.vmap(self.widen)(x), []
        for number, (level, line) in enumerate(zip(self.levels, state.lines, strict=True)):
            past, left = places(ticks, self.lags(number), line.shape[0])
            everything = jnp.concatenate([line[::-1], u])
            lines.append(everything[left])
            taps = jnp.concatenate([u[:, None], everything[past]], axis=1).reshape(u.shape[0], -1)
            u = u + jax.nn.relu(jax.vmap(level)(taps))
        return TcnState(seen, phase, tuple(lines)), say(jax.vmap(self.readout)(jnp.concatenate([u, x], axis=1)))
