"""Attention over time scales: the present asks, trailing means of what was learned of the past answer.

    e = tanh(W_e x + b_e)                    what is remembered of a sample, x = features
    m_s = trailing mean of e over tau_s       s = 1 .. S, from seconds to an hour
    a = sum_s softmax_s(q k_s / sqrt n) v_s,  q = W_q (x, e),  k_s = W_k m_s + p_s,  v_s = W_v m_s + r_s      a head
    soc, log std = network(a_1 .. a_H, e, x)

Vaswani et al., "Attention is all you need", NIPS 30 (2017); for state of charge Hannan et al., Sci. Rep. 11 (2021)
19541. An attention that stored every sample would need a store without bound. Here keys and values are made of leaky
memories, at ages in equal ratios, so a sample costs S products, the memory is S times n numbers, and it is exact at
any sampling. p and r tell the scales apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from celltwin.data.domain import Domain
from celltwin.data.record import Record
from celltwin.estimators.network import say, watch_all
from celltwin.estimators.signals import FEATURES, Signals, features, watch, woken
from celltwin.interface import Estimate, Measurement, Start
from celltwin.models.layers import Dense, Mlp, remember

SHORTEST, LONGEST = 3.0, 3600.0  # s, time constants of the first and the last memory


class AttentionState(NamedTuple):
    seen: Signals
    memory: Array  # [scales, width]


class Attention(eqx.Module):
    """One layer of attention, a few heads."""

    embed: Dense
    query: Dense
    key: Dense
    value: Dense
    key_places: Array  # [scales, heads * width]
    value_places: Array
    readout: Mlp
    domain: Domain
    scales: tuple[float, ...] = eqx.field(static=True)  # s
    heads: int = eqx.field(static=True)

    @classmethod
    def create(
        cls,
        records: Sequence[Record],
        domain: Domain,
        key: Array,
        width: int = 16,
        heads: int = 4,
        scales: int = 10,
    ) -> Attention:
        """A network to be trained."""
        keys = jax.random.split(key, 7)
        times = tuple(np.geomspace(SHORTEST, LONGEST, scales).tolist())
        places = 0.5 * jax.random.normal(keys[4], (2, scales, heads * width))
        return cls(
            Dense.create(FEATURES, width, keys[0]),
            Dense.create(FEATURES + width, heads * width, keys[1]),
            Dense.create(width, heads * width, keys[2]),
            Dense.create(width, heads * width, keys[3]),
            places[0],
            places[1],
            Mlp.create(((heads + 1) * width + FEATURES, 32, 32, 2), keys[5]),
            domain,
            times,
            heads,
        )

    def init(self, start: Start) -> AttentionState:
        seen = woken(start)
        embedded = jnp.tanh(self.embed(features(seen, self.domain)))
        return AttentionState(seen, jnp.broadcast_to(embedded, (len(self.scales), embedded.shape[0])))

    def remember(self, memory: Array, embedded: Array, dt: Array) -> Array:
        """The memories [scales, width] after a step."""
        return jax.vmap(remember, (1, 0, None, None), 1)(memory, embedded, dt, self.scales)

    def read(self, memory: Array, embedded: Array, x: Array) -> Estimate:
        """The estimate from memories [scales, width], what is remembered of this sample, and its features."""
        split = (-1, self.heads, embedded.shape[0])
        keys = (jax.vmap(self.key)(memory) + self.key_places).reshape(split)
        values = (jax.vmap(self.value)(memory) + self.value_places).reshape(split)
        query = self.query(jnp.concatenate([x, embedded])).reshape(split[1:])
        match = jnp.sum(query * keys, axis=2) / split[2] ** 0.5  # [scales, heads]
        answer = jnp.sum(jax.nn.softmax(match, axis=0)[:, :, None] * values, axis=0)
        return say(self.readout(jnp.concatenate([answer.reshape(-1), embedded, x])))

    def step(self, state: AttentionState, y: Measurement) -> tuple[AttentionState, Estimate]:
        seen, _ = watch(state.seen, y)
        x = features(seen, self.domain)
        embedded = jnp.tanh(self.embed(x))
        memory = self.remember(state.memory, embedded, y.dt)
        return AttentionState(seen, memory), self.read(memory, embedded, x)

    def run(self, state: AttentionState, inputs: Measurement) -> tuple[AttentionState, Estimate]:
        """As a scan of `step`; only the memories go through the record sample by sample."""
        seen, x = watch_all(state.seen, inputs, self.domain)
        embedded = jnp.tanh(jax.vmap(self.embed)(x))

        def step(memory: Array, sample: tuple[Array, Array]) -> tuple[Array, Array]:
            after = self.remember(memory, *sample)
            return after, after

        last, memories = jax.lax.scan(step, state.memory, (embedded, inputs.dt))
        return AttentionState(seen, last), jax.vmap(self.read)(memories, embedded, x)
