"""NARX + Thevenin hybrid: a network corrects what the circuit leaves over, and steps back where it has no training.

    V_k = V_circuit,k + w_k e_k,    e_k = N(leaky memories of e, leaky memories of I, circuit states, I_k, T_k, soc_k)

The network is a NARX on the residual: it is fed its own past corrections, and the circuit's states (overpotentials of
its RC pairs). The weight w falls from one to zero as a sample leaves the training domain, where the twin is the
circuit and nothing else. The correction is bounded by tanh to +-0.3 V.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax import Array

from celltwin.data.domain import Domain, Fixed
from celltwin.data.record import Record
from celltwin.interface import Input, Output, Start
from celltwin.models.layers import Mlp, remember
from celltwin.models.narx import CURRENT_MEMORIES, SOC_FEATURES, VOLTAGE_MEMORIES
from celltwin.physics.tables import hat
from celltwin.physics.thevenin import Thevenin, TheveninState

UNIT = 0.03  # V, the scale of a correction
BOUND = 10.0  # units, the largest correction


class FixedCircuit(Fixed):
    """A trained circuit that the training of its residual leaves as it is."""

    circuit: Thevenin


class HybridState(NamedTuple):
    circuit: TheveninState
    corrections: Array  # leaky memories of e, in units of 30 mV
    currents: Array  # leaky memories of the scaled current


class Hybrid(eqx.Module):
    """A Thevenin circuit and a neural NARX on its residual."""

    base: FixedCircuit
    network: Mlp
    domain: Domain

    @classmethod
    def create(
        cls, records: Sequence[Record], domain: Domain, key: Array, circuit: Thevenin, hidden: int = 32
    ) -> Hybrid:
        inputs = len(VOLTAGE_MEMORIES) + len(CURRENT_MEMORIES) + len(SOC_FEATURES) + 3 + circuit.pairs
        return cls(FixedCircuit(circuit), Mlp.create((inputs, hidden, hidden, 1), key), domain)

    def init(self, start: Start) -> HybridState:
        zeros = jnp.zeros(1, start.soc.dtype)
        return HybridState(
            self.base.circuit.init(start),
            jnp.repeat(zeros, len(VOLTAGE_MEMORIES)),
            jnp.repeat(zeros, len(CURRENT_MEMORIES)),
        )

    def step(self, state: HybridState, u: Input) -> tuple[HybridState, Output]:
        circuit = self.base.circuit
        inner, simulated = circuit.step(state.circuit, u)
        current = self.domain.scale("current", u.current)
        currents = remember(state.currents, current, u.dt, CURRENT_MEMORIES)
        overpotential = simulated.voltage - circuit.ocv(simulated.soc, u.temperature)
        features = jnp.concatenate(
            [
                state.corrections,
                currents,
                hat(simulated.soc, jnp.asarray(SOC_FEATURES, simulated.soc.dtype)),
                jnp.stack([current, self.domain.scale("temperature", u.temperature), overpotential / 0.1]),
                inner.pairs / 0.1,
            ]
        )
        correction = self.trust(u, simulated.soc) * BOUND * jnp.tanh(self.network(features)[0] / BOUND)
        corrections = remember(state.corrections, correction, u.dt, VOLTAGE_MEMORIES)
        voltage = simulated.voltage + UNIT * correction
        return HybridState(inner, corrections, currents), Output(voltage, simulated.soc)

    def trust(self, u: Input, soc: Array) -> Array:
        """1 inside the training domain, falling to 0 within a tenth of its range outside."""
        outside = (
            self.domain.excess("current", u.current)
            + self.domain.excess("temperature", u.temperature)
            + self.domain.excess("soc", soc)
        )
        return jnp.clip(1.0 - 10.0 * outside, 0.0, 1.0)
