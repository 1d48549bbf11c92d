"""Hybrid: a network corrects what the Thevenin circuit leaves over, and steps back where it has no training.

    V_k = V_circuit,k + w_k e_k        x_k = (leaky memories of I, circuit states, I_k, T_k, soc_k)

    NARX residual    e_k = N(leaky memories of e, x_k)
    GRU residual     e_k = w h_k,  h_k = z^d h + (1 - z^d) tanh(n),  d = dt / dt_trained

The NARX is fed its own past corrections; the GRU (Cho et al., EMNLP 2014) keeps a state of its own, with the update
gate held over the step. Both are fed the circuit's states, the overpotentials of its RC pairs. The weight w falls from
one to zero as a sample leaves the training domain, or the current grows steadier than it ever was there: then the twin
is the circuit and nothing else. The correction is bounded by tanh to +-0.3 V.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from celltwin.data.domain import Domain, Fixed
from celltwin.data.record import Record
from celltwin.interface import Input, Output, Start
from celltwin.models.features import CURRENT_MEMORIES, SOC_FEATURES, VOLTAGE_MEMORIES, soc_hats
from celltwin.models.layers import Dense, Mlp, gru, remember, sampling_period
from celltwin.models.ripple import Ripple, follow
from celltwin.physics.thevenin import Thevenin, TheveninState

UNIT = 0.03  # V, the scale of a correction
BOUND = 10.0  # units, the largest correction
EXOGENOUS = len(CURRENT_MEMORIES) + len(SOC_FEATURES) + 3  # features beside the circuit's pairs


class FixedCircuit(Fixed):
    """A trained circuit that the training of its residual leaves as it is."""

    circuit: Thevenin


class NarxResidual(eqx.Module):
    """The correction from its own past: memory is leaky memories of e."""

    network: Mlp

    @classmethod
    def create(cls, features: int, key: Array, hidden: int = 32) -> NarxResidual:
        return cls(Mlp.create((len(VOLTAGE_MEMORIES) + features, hidden, hidden, 1), key))

    @property
    def size(self) -> int:
        """Length of the memory."""
        return len(VOLTAGE_MEMORIES)

    def propose(self, memory: Array, features: Array, dt: Array) -> tuple[Array, Array]:
        """Memory so far and the correction that it and the features suggest."""
        return memory, self.network(jnp.concatenate([memory, features]))[0]

    def keep(self, memory: Array, correction: Array, dt: Array) -> Array:
        """Memory after a correction was made."""
        return remember(memory, correction, dt, VOLTAGE_MEMORIES)


class GruResidual(eqx.Module):
    """The correction from a recurrent state: memory is that of a gated recurrent unit."""

    gates: Dense
    candidate: Dense
    readout: Dense
    period: float = eqx.field(static=True)  # s, the sampling it was trained with

    @classmethod
    def create(cls, features: int, key: Array, period: float, hidden: int = 32) -> GruResidual:
        keys = jax.random.split(key, 4)
        gates = Dense.create(features + hidden, 2 * hidden, keys[0], gain=0.5)
        # Update gates open onto time constants from seconds to half an hour.
        slow = jax.random.uniform(keys[3], (hidden,), minval=jnp.log(2.0), maxval=jnp.log(1800.0))
        gates = Dense(gates.weight.at[:hidden].multiply(0.2), gates.bias.at[:hidden].set(slow))
        candidate = Dense.create(features + hidden, hidden, keys[1], gain=0.7)
        return cls(gates, candidate, Dense.create(hidden, 1, keys[2], gain=0.05), period)

    @property
    def size(self) -> int:
        """Length of the memory."""
        return self.readout.weight.shape[1]

    def propose(self, memory: Array, features: Array, dt: Array) -> tuple[Array, Array]:
        """The next state, and the correction read from it."""
        update, reset = jnp.split(self.gates(jnp.concatenate([features, memory])), 2)
        memory = gru(self.candidate, features, memory, -update, reset, dt / self.period)  # keeps sigmoid(update)^d
        return memory, self.readout(memory)[0]

    def keep(self, memory: Array, correction: Array, dt: Array) -> Array:
        """The state does not depend on what was made of it."""
        return memory


class HybridState(NamedTuple):
    circuit: TheveninState
    memory: Array  # the residual's
    currents: Array  # leaky memories of the scaled current
    ripple: Array  # running mean of the current and its ripple, A


class Hybrid(eqx.Module):
    """A Thevenin circuit and a network on its residual."""

    base: FixedCircuit
    residual: NarxResidual | GruResidual
    domain: Domain
    ripple: Ripple

    @classmethod
    def narx(cls, records: Sequence[Record], domain: Domain, key: Array, circuit: Thevenin) -> Hybrid:
        """Circuit + NARX residual."""
        return cls(
            FixedCircuit(circuit), NarxResidual.create(EXOGENOUS + circuit.pairs, key), domain, Ripple.of(records)
        )

    @classmethod
    def gru(cls, records: Sequence[Record], domain: Domain, key: Array, circuit: Thevenin) -> Hybrid:
        """Circuit + GRU residual."""
        residual = GruResidual.create(EXOGENOUS + circuit.pairs, key, sampling_period(records))
        return cls(FixedCircuit(circuit), residual, domain, Ripple.of(records))

    def init(self, start: Start) -> HybridState:
        zero = 0.0 * start.soc
        return HybridState(
            self.base.circuit.init(start),
            jnp.full(self.residual.size, zero),
            jnp.full(len(CURRENT_MEMORIES), zero),
            jnp.full(2, zero),
        )

    def step(self, state: HybridState, u: Input) -> tuple[HybridState, Output]:
        circuit = self.base.circuit
        inner, simulated = circuit.step(state.circuit, u)
        current = self.domain.scale("current", u.current)
        currents = remember(state.currents, current, u.dt, CURRENT_MEMORIES)
        overpotential = simulated.voltage - circuit.ocv(simulated.soc, u.temperature)
        features = jnp.concatenate(
            [
                currents,
                soc_hats(simulated.soc),
                jnp.stack([current, self.domain.scale("temperature", u.temperature), overpotential / 0.1]),
                inner.pairs / 0.1,
            ]
        )
        memory, proposed = self.residual.propose(state.memory, features, u.dt)
        ripple = follow(state.ripple, u.current, u.dt)
        correction = self.trust(u, simulated.soc, ripple) * BOUND * jnp.tanh(proposed / BOUND)
        memory = self.residual.keep(memory, correction, u.dt)
        voltage = simulated.voltage + UNIT * correction
        return HybridState(inner, memory, currents, ripple), Output(voltage, simulated.soc)

    def trust(self, u: Input, soc: Array, ripple: Array) -> Array:
        """1 inside the training domain, falling to 0 within a tenth of its range outside, and under steady loads."""
        return self.domain.trust(u.current, u.temperature, soc) * self.ripple.trust(ripple)
