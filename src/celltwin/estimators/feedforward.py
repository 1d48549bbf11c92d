"""Feed-forward network: state of charge from what the sensors show now and their trailing means.

    soc, log std = W3 tanh(W2 tanh(W1 x + b1) + b2) + b3        x = V, I, T, trailing means of V and I

Chemali et al., J. Power Sources 400 (2018) 242. All memory is in the trailing means, which are exact at any
sampling; the network itself has none.
"""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
from jax import Array

from celltwin.data.domain import Domain
from celltwin.data.record import Record
from celltwin.estimators.network import say, watch_all
from celltwin.estimators.signals import FEATURES, Signals, features, watch, woken
from celltwin.interface import Estimate, Measurement, Start
from celltwin.models.layers import Mlp


class FeedForward(eqx.Module):
    """Two hidden layers on the trailing means."""

    network: Mlp
    domain: Domain

    @classmethod
    def create(cls, records: Sequence[Record], domain: Domain, key: Array, hidden: int = 64) -> FeedForward:
        """A network to be trained."""
        return cls(Mlp.create((FEATURES, hidden, hidden, 2), key), domain)

    def init(self, start: Start) -> Signals:
        return woken(start)

    def step(self, state: Signals, y: Measurement) -> tuple[Signals, Estimate]:
        seen, _ = watch(state, y)
        return seen, say(self.network(features(seen, self.domain)))

    def run(self, state: Signals, inputs: Measurement) -> tuple[Signals, Estimate]:
        """As a scan of `step`, all samples through the network at once."""
        seen, x = watch_all(state, inputs, self.domain)
        return seen, say(jax.vmap(self.network)(x))
