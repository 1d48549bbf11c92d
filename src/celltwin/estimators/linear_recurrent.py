"""Linear recurrent units: complex decays between which networks without memory stand.

    dz/dt = -a (z - B u),  a = exp(nu) + i exp(theta)          each z a pair of real numbers
    z_k = e^{-a dt} z + (1 - e^{-a dt}) B u                     exact for an input that is held over dt
    u <- u + tanh(W [Re z, Im z, u] + b),                       once a layer; soc, log std = network(u, features)

Orvieto et al., "Resurrecting recurrent neural networks for long sequences", ICML 2023 (LRU), after S4 and S5 (Gu et
al., 2022; Smith et al., 2023). Where they normalise an input of white noise, the gain for a constant input is one here:
a state is a trailing mean that may turn, whose time constant is learned, and means the same at any sampling. The state
at the start is that of a cell which has shown its first values for ever.
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
from celltwin.estimators.network import say, watch_all
from celltwin.estimators.signals import FEATURES, Signals, features, watch, woken
from celltwin.interface import Estimate, Measurement, Start
from celltwin.models.layers import Dense, Mlp

FASTEST, SLOWEST = 1.0, 1800.0  # s, time constants to begin with


class LruState(NamedTuple):
    seen: Signals
    layers: tuple[Array, ...]  # [2, states] real and imaginary parts


class LinearUnit(eqx.Module):
    """One layer of decays, and the network that reads them."""

    log_rate: Array  # [states], of 1/s
    log_turn: Array  # [states], of rad/s
    enter: Dense
    leave: Dense

    @classmethod
    def create(cls, channels: int, states: int, key: Array) -> LinearUnit:
        """Decays from a second to half an hour, which turn by a tenth of a radian in their time constant."""
        keys = jax.random.split(key)
        log_rate = -jnp.log(jnp.geomspace(FASTEST, SLOWEST, states))
        enter = Dense.create(channels, 2 * states, keys[0])
        return cls(log_rate, log_rate + jnp.log(0.1), enter, Dense.create(2 * states + channels, channels, keys[1]))

    def drive(self, u: Array) -> Array:
        """B u: what a constant input leads to, [2, states]."""
        return self.enter(u).reshape(2, -1)

    def advance(self, z: Array, drive: Array, dt: Array) -> Array:
        """The state [2, states] after a step."""
        keep, turn = jnp.exp(-jnp.exp(self.log_rate) * dt), jnp.exp(self.log_turn) * dt
        real, imaginary = z[0] - drive[0], z[1] - drive[1]
        cosine, sine = keep * jnp.cos(turn), -keep * jnp.sin(turn)
        return drive + jnp.stack([cosine * real - sine * imaginary, sine * real + cosine * imaginary])

    def read(self, z: Array, u: Array) -> Array:
        return u + jnp.tanh(self.leave(jnp.concatenate([z.reshape(-1), u])))


class LinearRecurrent(eqx.Module):
    """Layers of linear recurrent units."""

    widen: Dense
    layers: tuple[LinearUnit, ...]
    readout: Mlp
    domain: Domain

    @classmethod
    def create(
        cls,
        records: Sequence[Record],
        domain: Domain,
        key: Array,
        channels: int = 32,
        states: int = 32,
        layers: int = 2,
    ) -> LinearRecurrent:
        """A network to be trained."""
        keys = jax.random.split(key, layers + 2)
        units = tuple(LinearUnit.create(channels, states, k) for k in keys[2:])
        readout = Mlp.create((channels + FEATURES, 32, 2), keys[1])
        return cls(Dense.create(FEATURES, channels, keys[0]), units, readout, domain)

    def init(self, start: Start) -> LruState:
        seen = woken(start)
        u, states = self.widen(features(seen, self.domain)), []
        for layer in self.layers:
            states.append(layer.drive(u))
            u = layer.read(states[-1], u)
        return LruState(seen, tuple(states))

    def step(self, state: LruState, y: Measurement) -> tuple[LruState, Estimate]:
        seen, _ = watch(state.seen, y)
        x = features(seen, self.domain)
        u, states = self.widen(x), []
        for layer, z in zip(self.layers, state.layers, strict=True):
            states.append(layer.advance(z, layer.drive(u), y.dt))
            u = layer.read(states[-1], u)
        return LruState(seen, tuple(states)), say(self.readout(jnp.concatenate([u, x])))

    def run(self, state: LruState, inputs: Measurement) -> tuple[LruState, Estimate]:
        """As a scan of `step`, a layer at a time: only what is linear goes through the record sample by sample."""
        seen, x = watch_all(state.seen, inputs, self.domain)
        u, states = jax.vmap(self.widen)(x), []
        for layer, z in zip(self.layers, state.layers, strict=True):

            def step(z: Array, driven: tuple[Array, Array], layer: LinearUnit = layer) -> tuple[Array, Array]:
                after = layer.advance(z, *driven)
                return after, after

            last, all_states = jax.lax.scan(step, z, (jax.vmap(layer.drive)(u), inputs.dt))
            states.append(last)
            u = jax.vmap(layer.read)(all_states, u)
        return LruState(seen, tuple(states)), say(jax.vmap(self.readout)(jnp.concatenate([u, x], axis=1)))
