"""Observer: a charge counter that a network pulls, by as much as each of them can be trusted.

    x = (soc, b)    soc <- soc + (I - b Q/h) dt / Q    b the offset of the current sensor, in C
    z = m a(h) + (1 - m) (soc + (V - V_circuit) / U')    r = variance of z        h a network's memory
    K = P C' / (C P C' + r)    x <- x + K (z - soc)    P <- (1 - K C) P

The counter is exact and drifts; the network knows the state of charge only roughly, but from anywhere. A Kalman filter
of two states weighs one against the other, with the network's reading z as its measurement and the network's own
opinion r of it as the noise (both learned, through the filter, end to end). So the gain is large after waking, small
later, and large again where the voltage tells much. With a circuit, the network also sees by how much the
measured voltage differs from that of the circuit at the estimate, and the state of charge that would explain it.

The stated standard deviation is that of the filter, calibrated by two more outputs of the network, which is a gated
recurrent unit or a ConvLSTM (celltwin.estimators.pulling).

Sources: R. E. Kalman, J. Basic Eng. 82 (1960) 35; learned gains: G. Revach et al., KalmanNet, IEEE Trans. Signal
Process. 70 (2022) 1532.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from celltwin.data.domain import Domain
from celltwin.data.record import SECONDS_PER_HOUR, Record
from celltwin.estimators.pulling import Gated, Map, Time
from celltwin.estimators.signals import FEATURES, Signals, features, watch, woken
from celltwin.interface import POINT, Estimate, Input, Measurement, Start
from celltwin.models.hybrid import FixedCircuit
from celltwin.models.layers import sampling_period
from celltwin.physics.charge import Charge, advance, full_of
from celltwin.physics.tables import hat
from celltwin.physics.thevenin import Thevenin, TheveninState

SOC_FEATURES = (0.0, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1.0)
NEVER_KNOWN, STORED = 30.0, 10.0  # points, doubt of an unknown start and of a stored state of charge
OFFSET = 0.03  # C, doubt of the current sensor's offset
WANDER = 1e-4  # C per root second, by which the offset may wander
SMALLEST_SLOPE = 0.15  # V of OCV a unit of SOC, below which a flat curve is not divided by
SURPRISES = 3  # of what the circuit tells, those whose past matters
FURTHEST = 0.3  # fraction, the most that the circuit's reading differs from the estimate


class Doubt(NamedTuple):
    """Covariance of (soc in points, offset in C)."""

    soc: Array
    both: Array
    offset: Array


class ObserverState(NamedTuple):
    charge: Charge  # the estimate
    offset: Array  # C, of the current sensor
    doubt: Doubt
    memory: Any  # of the network
    seen: Signals
    circuit: TheveninState | None


class Observer(eqx.Module):
    """Counter, network and, where there is one, circuit."""

    network: Gated | Map
    log_wander: Array  # of soc, points per root second
    domain: Domain
    base: FixedCircuit | None
    period: float = eqx.field(static=True)  # s, the sampling it was trained with

    @classmethod
    def create(
        cls,
        records: Sequence[Record],
        domain: Domain,
        key: Array,
        circuit: Thevenin | None = None,
        network: Callable[[int, int, Array], Gated | Map] = Gated.create,
    ) -> Observer:
        """An observer to be trained. With `circuit`, one that looks at its voltage too.

        `network` makes the network from the number of its inputs, of those whose past matters, and a key.
        """
        inputs = FEATURES + len(SOC_FEATURES) + 2 + (0 if circuit is None else 5 + circuit.pairs)
        past = 2 if circuit is None else 2 + SURPRISES
        base = None if circuit is None else FixedCircuit(circuit)
        return cls(network(inputs, past, key), jnp.asarray(-4.0), domain, base, sampling_period(records))

    def init(self, start: Start) -> ObserverState:
        known = jnp.isfinite(start.soc)
        soc = jnp.where(known, start.soc, 0.5)
        one = jnp.ones_like(soc)
        doubt = Doubt(jnp.where(known, STORED, NEVER_KNOWN) ** 2, 0.0 * one, OFFSET**2 * one)
        circuit = None
        if self.base is not None:
            circuit = self.base.circuit.init(start._replace(soc=soc))
            circuit = circuit._replace(shift=0.0 * soc)  # the first voltage is no news twice
        memory = self.network.start(soc.dtype)
        return ObserverState(full_of(soc, start.capacity), 0.0 * soc, doubt, memory, woken(start), circuit)

    def step(self, state: ObserverState, y: Measurement) -> tuple[ObserverState, Estimate]:
        first = state.seen.elapsed == 0.0
        seen, measured = watch(state.seen, y)
        capacity = state.charge.capacity
        u = Input(seen.current - state.offset * capacity, seen.temperature, y.dt)

        # Predict: count the charge, and let the doubt grow.
        charge = advance(state.charge, u.current, u.dt)
        slip = -POINT * u.dt / SECONDS_PER_HOUR  # points that an offset of 1 C moves the counter by
        before = state.doubt
        doubt = Doubt(
            before.soc + 2.0 * slip * before.both + slip**2 * before.offset + jnp.exp(2.0 * self.log_wander) * u.dt,
            before.both + slip * before.offset,
            before.offset + WANDER**2 * u.dt,
        )

        # What the network sees: sensors, the estimate, its doubt and what the circuit makes of them.
        soc = charge.soc
        sensed = features(seen, self.domain)
        past = sensed[:2]
        inputs = [
            sensed,
            hat(soc, jnp.asarray(SOC_FEATURES, soc.dtype)),
            jnp.stack([0.5 * jnp.log(doubt.soc + 1e-4), state.offset / OFFSET]),
        ]
        circuit, explained = None, soc
        if self.base is not None:
            assert state.circuit is not None
            circuit, explained, extra = self._consult(state.circuit._replace(charge=state.charge), seen, u)
            inputs.append(extra)
            past = jnp.concatenate([past, extra[:SURPRISES]])
        # Without a voltage there is nothing to remember: a step of no length.
        time = Time(jnp.where(measured, u.dt, 0.0), self.period, first)
        memory, said = self.network(state.memory, jnp.concatenate(inputs), past, time)
        reading, mix, log_noise, log_times, log_floor = said

        # Correct: the reading as a measurement, worth as much as the time it stands for.
        mix = jax.nn.sigmoid(mix)
        error = POINT * (mix * reading + (1.0 - mix) * explained - soc)
        noise = jnp.exp(2.0 * jnp.clip(log_noise, -3.0, 6.0))
        weight = jnp.where(measured, jnp.where(first, 1.0, jnp.minimum(u.dt / self.period, 100.0)), 0.0)
        total = weight * doubt.soc + noise
        gain, gain_offset = weight * doubt.soc / total, weight * doubt.both / total
        charge = Charge(jnp.clip(soc + gain * error / POINT, -0.05, 1.05), charge.lost, capacity)
        offset = jnp.clip(state.offset + gain_offset * error, -0.3, 0.3)
        doubt = Doubt(
            doubt.soc * noise / total,
            doubt.both * noise / total,
            jnp.maximum(doubt.offset - weight * doubt.both**2 / total, 1e-8),
        )
        times, floor = jnp.exp(jnp.clip(log_times, -3.0, 3.0)), jnp.exp(jnp.clip(log_floor, -4.0, 4.0))
        std = jnp.sqrt(times * jax.lax.stop_gradient(doubt.soc) + floor**2) / POINT
        return ObserverState(charge, offset, doubt, memory, seen, circuit), Estimate(charge.soc, std)

    def _consult(self, state: TheveninState, seen: Signals, u: Input) -> tuple[TheveninState, Array, Array]:
        """The circuit after the step, the state of charge that explains the voltage, and features of both."""
        assert self.base is not None
        model = self.base.circuit
        after, simulated = model.step(state, u)
        soc = simulated.soc
        surprise = seen.voltage - simulated.voltage
        slope = (model.ocv(soc + 0.01, u.temperature) - model.ocv(soc - 0.01, u.temperature)) / 0.02
        moved = jnp.clip(surprise / jnp.maximum(slope, SMALLEST_SLOPE), -FURTHEST, FURTHEST)
        overpotential = simulated.voltage - model.ocv(soc, u.temperature)
        extra = jnp.stack(
            [jnp.tanh(surprise / 0.02), jnp.tanh(surprise / 0.2), moved / 0.1, slope - 1.0, overpotential / 0.1]
        )
        return after, soc + moved, jnp.concatenate([extra, after.pairs / 0.1])
