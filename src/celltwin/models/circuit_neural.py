"""Neural-parameter circuit: a network moves the parameters of a Thevenin circuit, and nothing else.

    p_k = p(soc, T) exp(w_k a tanh(N(x_k)))          for each of p = R0, R1 ... RN-1, Rct, tau_1 ... tau_N-1
    x_k = (soc_k, T_k, I_k, leaky memories of I and of |I|)
    U_k = U(soc + shift + w_k b tanh(M(soc_k, T_k)), T)

The circuit is trained first and stays as it is; its equations are those of `physics.thevenin`. Each of these tables is
multiplied by a factor of its own, between e^-a and e^a and one before training, so every resistance and time constant
is positive whatever the network says: a held current ends in an overpotential of its own sign, a rest at the
open-circuit voltage. That curve is read up to b of charge beside, by charge and temperature alone. No voltage is added.
The slowest pair is left to the circuit: hours of driving show too little of it, and what a network made of the first
minutes of a steady current would stay in it for half an hour.
The weight w falls from one to zero as a sample leaves the training domain, or the current grows steadier than it ever
was there: then the twin is the circuit.
`adjustment` says what the network made of the circuit at a sample: by how much what went before raised its resistance.

Networks for the unknown part of a known model: Rackauckas et al., "Universal differential equations for scientific
machine learning", arXiv:2001.04385 (2020). A cell's circuit as a system whose parameters are scheduled: Hu and
Yurkovich, "Battery state of charge estimation in automotive applications using LPV techniques", American Control
Conference (2010).

What the network sees depends on no voltage. So the parameters of a whole record are known before the circuit is run,
whose recurrences are linear given them: `run` takes all samples at once.
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
from celltwin.interface import Input, Output, Start
from celltwin.models.features import CURRENT_MEMORIES, SOC_FEATURES, soc_hats
from celltwin.models.hybrid import FixedCircuit
from celltwin.models.layers import Mlp, remember
from celltwin.models.ripple import Ripple, follow, over
from celltwin.physics.charge import advance, count
from celltwin.physics.recurrence import from_blocks, in_blocks, linear_recurrence
from celltwin.physics.thevenin import Adjustment, Thevenin, TheveninState

LARGEST = 1.0  # a, of the logarithm of a factor: from 0.37 to 2.7
SHIFT = 0.02  # of charge, b
LOAD_MEMORIES = (30.0, 300.0, 3000.0)  # s, of the size of the current


class CircuitNeuralState(NamedTuple):
    circuit: TheveninState
    currents: Array  # leaky memories of the scaled current
    loads: Array  # leaky memories of its size
    ripple: Array  # running mean of the current and its ripple, A


class CircuitNeural(eqx.Module):
    """A Thevenin circuit and a network that multiplies its parameters."""

    base: FixedCircuit
    network: Mlp  # N
    curve: Mlp  # M
    domain: Domain
    ripple: Ripple

    @classmethod
    def create(
        cls, records: Sequence[Record], domain: Domain, key: Array, circuit: Thevenin, hidden: int = 32
    ) -> CircuitNeural:
        """The circuit as it is: the last layers of both networks are silent."""
        keys = jax.random.split(key)
        static = len(SOC_FEATURES) + 1
        inputs = static + 1 + len(CURRENT_MEMORIES) + len(LOAD_MEMORIES)
        outputs = circuit.log_resistance.shape[0] + circuit.pairs - (2 if circuit.pairs > 1 else 0)
        network = Mlp.create((inputs, hidden, hidden, outputs), keys[0], last_gain=0.0)
        curve = Mlp.create((static, 16, 1), keys[1], last_gain=0.0)
        return cls(FixedCircuit(circuit), network, curve, domain, Ripple.of(records))

    def init(self, start: Start) -> CircuitNeuralState:
        """The circuit's state, after a long rest."""
        zero = 0.0 * start.soc
        currents, loads = jnp.full(len(CURRENT_MEMORIES), zero), jnp.full(len(LOAD_MEMORIES), zero)
        return CircuitNeuralState(self.base.circuit.init(start), currents, loads, jnp.full(2, zero))

    def step(self, state: CircuitNeuralState, u: Input) -> tuple[CircuitNeuralState, Output]:
        current = self._relative(u.current)
        currents = remember(state.currents, current, u.dt, CURRENT_MEMORIES)
        loads = remember(state.loads, jnp.abs(current), u.dt, LOAD_MEMORIES)
        ripple = follow(state.ripple, u.current, u.dt)
        soc = advance(state.circuit.charge, u.current, u.dt).soc
        circuit, output = self.base.circuit.step(state.circuit, u, self.adjustment(soc, u, currents, loads, ripple))
        return CircuitNeuralState(circuit, currents, loads, ripple), output

    def run(self, state: CircuitNeuralState, inputs: Input) -> tuple[CircuitNeuralState, Output]:
        """What scanning `step` over inputs [time] gives, all samples at once."""
        time = inputs.dt.shape[0]
        soc = from_blocks(count(state.circuit.charge, Input(*(in_blocks(a) for a in inputs)))[1], time)
        current = self._relative(inputs.current)
        currents = _remembered(state.currents, current, inputs.dt, CURRENT_MEMORIES)
        loads = _remembered(state.loads, jnp.abs(current), inputs.dt, LOAD_MEMORIES)
        ripple = over(state.ripple, inputs.current, inputs.dt)
        adjust = jax.vmap(self.adjustment)(soc, inputs, currents, loads, ripple)
        circuit, output = self.base.circuit.run(state.circuit, inputs, adjust)
        return CircuitNeuralState(circuit, currents[-1], loads[-1], ripple[-1]), output

    def adjustment(self, soc: Array, u: Input, currents: Array, loads: Array, ripple: Array) -> Adjustment:
        """What becomes of the circuit's parameters: state of charge and memories are those after the step."""
        scaled = self.domain.scale("temperature", u.temperature)[None]
        static = jnp.concatenate([soc_hats(soc), scaled])
        moved = self.network(jnp.concatenate([static, self._relative(u.current)[None], currents, loads]))
        trust = self.domain.trust(u.current, u.temperature, soc) * self.ripple.trust(ripple)
        resistance, tau = self._of_tables(trust * LARGEST * jnp.tanh(moved))
        shift = trust * SHIFT * jnp.tanh(self.curve(static)[0])
        return Adjustment(jnp.exp(resistance), jnp.exp(tau), shift)

    def _of_tables(self, moved: Array) -> tuple[Array, Array]:
        """What the network says, in the order of the circuit's resistances and of its time constants."""
        pairs, tables = self.base.circuit.pairs, self.base.circuit.log_resistance.shape[0] + self.base.circuit.pairs
        if len(moved) < tables:  # the slowest pair, the last, stays as it is; a twin of before moves it, too
            none = jnp.zeros(1, moved.dtype)
            moved = jnp.concatenate([moved[:pairs], none, moved[pairs:], none])
        return moved[:-pairs], moved[-pairs:]

    def _relative(self, current: Array) -> Array:
        """Current in standard deviations; zero stays zero, as it is what a rested cell remembers."""
        return self.domain.scale("current", current) - self.domain.scale("current", 0.0 * current)


def _remembered(memory: Array, value: Array, dt: Array, time_constants: tuple[float, ...]) -> Array:
    """`remember` over a record: the memories after each sample, [time, memories]."""
    keep = jnp.exp(-dt[:, None] / jnp.asarray(time_constants, memory.dtype))
    return linear_recurrence(keep, (1.0 - keep) * value[:, None], memory)
