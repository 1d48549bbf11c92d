"""Observer: a charge counter that a network pulls, by as much as each of them can be trusted.

    x = (soc, b)    soc <- soc + (I - b Q/h) dt / Q    b the offset of the current sensor, in C
    z = m a(h) + (1 - m) (soc + (V - V_circuit - e (V_circuit - U)) / U')
    r = variance of z, h a network's memory
    K = P C' / (C P C' + r)    x <- x + K (z - soc)    P <- (1 - K C) P

The counter is exact and drifts; the network knows the state of charge only roughly, but from anywhere. A Kalman filter
of two states weighs one against the other, with the network's reading z as its measurement and the network's own
opinion r of it as the noise (both learned, through the filter, end to end). So the gain is large after waking, small
later, and large again where the voltage tells much. With a circuit, the network also sees by how much the
measured voltage differs from that of the circuit at the estimate, and the state of charge that would explain it. No
cell is the circuit's: by how much more (or less) this one drops is found on the way, by recursive least squares,

    V - V_circuit ~ e (V_circuit - U)    both about their trailing means over a minute, so that charge has no say in it

and what e explains is no news of the charge.

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
from celltwin.errors import CelltwinError
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


NEVER = 1e6  # s, as long as makes no difference
SWING = 60.0  # s, of the trailing means about which voltages swing
OTHER, LOOSE = 0.2, 3e-3  # doubt of a cell's excess of drop at the start, and per root second
UNLIKE, SHARE = 0.03, 0.5  # of a swing: V, and of the drop itself, that no excess explains
GROWTH = (-0.6, 1.5)  # the least and the most excess that is believed
IMPLAUSIBLE = 0.1  # V, beyond which a swing counts for no more


class Doubt(NamedTuple):
    """Covariance of (soc in points, offset in C)."""

    soc: Array
    both: Array
    offset: Array


class Excess(NamedTuple):
    """By what share the cell drops more than its circuit, found from how both swing about their trailing means."""

    share: Array
    doubt: Array  # variance
    drop: Array  # V, trailing mean of the circuit's overpotential
    surprise: Array  # V, trailing mean of measured less simulated voltage
    silent: Array  # s since the last voltage

    @classmethod
    def unknown(cls, one: Array) -> Excess:
        """Before the first voltage, in the type of `one`."""
        return cls(0.0 * one, OTHER**2 * one, 0.0 * one, 0.0 * one, NEVER * one)

    def after(self, drop: Array, surprise: Array, dt: Array, weight: Array) -> Excess:
        """After a sample that counts `weight` times, 0 without a voltage: a step of recursive least squares."""
        known, silent = weight > 0.0, jnp.minimum(self.silent + dt, NEVER)
        kept = jnp.where(known, jnp.exp(-silent / SWING), 1.0)
        mean_drop, mean_surprise = (
            m + (1.0 - kept) * (v - m) for m, v in ((self.drop, drop), (self.surprise, surprise))
        )
        swing = drop - mean_drop
        noise = UNLIKE**2 + (SHARE * swing) ** 2
        doubt = jnp.minimum(self.doubt + LOOSE**2 * dt, OTHER**2)
        total = weight * swing**2 * doubt + noise
        unexplained = jnp.clip(surprise - mean_surprise - self.share * swing, -IMPLAUSIBLE, IMPLAUSIBLE)
        share = jnp.clip(self.share + weight * swing * doubt / total * unexplained, *GROWTH)
        return Excess(share, doubt * noise / total, mean_drop, mean_surprise, jnp.where(known, 0.0, silent))

    def corrected(self, rise: Array) -> Excess:
        """After a correction of the charge raised the simulated voltage by `rise` V: that is no swing of the cell."""
        return self._replace(surprise=self.surprise - rise)


class Consulted(NamedTuple):
    """The circuit of an observer: its state, and by how much the cell differs from it."""

    state: TheveninState
    excess: Excess


class ObserverState(NamedTuple):
    charge: Charge  # the estimate
    offset: Array  # C, of the current sensor
    doubt: Doubt
    memory: Any  # of the network
    seen: Signals
    circuit: Consulted | None


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
        inputs = _inputs(circuit)
        past = 2 if circuit is None else 2 + SURPRISES
        base = None if circuit is None else FixedCircuit(circuit)
        return cls(network(inputs, past, key), jnp.asarray(-4.0), domain, base, sampling_period(records))

    def init(self, start: Start) -> ObserverState:
        if self.network.inputs != _inputs(None if self.base is None else self.base.circuit):
            raise CelltwinError("the twin is of an earlier celltwin, whose observer saw less", fix="train it again")
        known = jnp.isfinite(start.soc)
        soc = jnp.where(known, start.soc, 0.5)
        one = jnp.ones_like(soc)
        doubt = Doubt(jnp.where(known, STORED, NEVER_KNOWN) ** 2, 0.0 * one, OFFSET**2 * one)
        circuit = None
        if self.base is not None:
            begun = self.base.circuit.init(start._replace(soc=soc))
            begun = begun._replace(shift=0.0 * soc)  # the first voltage is no news twice
            circuit = Consulted(begun, Excess.unknown(one))
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
        # A measurement is worth as much as the time it stands for.
        weight = jnp.where(measured, jnp.where(first, 1.0, jnp.minimum(u.dt / self.period, 100.0)), 0.0)
        circuit, at_rest, explained = None, 0.0, soc
        if self.base is not None:
            assert state.circuit is not None
            begun = state.circuit._replace(state=state.circuit.state._replace(charge=state.charge))
            circuit, at_rest, explained, extra = self._consult(begun, seen, u, weight)
            inputs.append(extra)
            past = jnp.concatenate([past, extra[:SURPRISES]])
        # Without a voltage there is nothing to remember: a step of no length.
        time = Time(jnp.where(measured, u.dt, 0.0), self.period, first)
        memory, said = self.network(state.memory, jnp.concatenate(inputs), past, time)
        reading, mix, log_noise, log_times, log_floor = said

        # Correct: the reading as a measurement.
        mix = jax.nn.sigmoid(mix)
        error = POINT * (mix * reading + (1.0 - mix) * explained - soc)
        noise = jnp.exp(2.0 * jnp.clip(log_noise, -3.0, 6.0))
        total = weight * doubt.soc + noise
        gain, gain_offset = weight * doubt.soc / total, weight * doubt.both / total
        charge = Charge(jnp.clip(soc + gain * error / POINT, -0.05, 1.05), charge.lost, capacity)
        offset = jnp.clip(state.offset + gain_offset * error, -0.3, 0.3)
        doubt = Doubt(
            doubt.soc * noise / total,
            doubt.both * noise / total,
            jnp.maximum(doubt.offset - weight * doubt.both**2 / total, 1e-8),
        )
        if circuit is not None:
            assert self.base is not None
            rise = self.base.circuit.ocv(charge.soc, u.temperature) - at_rest
            circuit = circuit._replace(excess=circuit.excess.corrected(rise))
        times, floor = jnp.exp(jnp.clip(log_times, -3.0, 3.0)), jnp.exp(jnp.clip(log_floor, -4.0, 4.0))
        std = jnp.sqrt(times * jax.lax.stop_gradient(doubt.soc) + floor**2) / POINT
        return ObserverState(charge, offset, doubt, memory, seen, circuit), Estimate(charge.soc, std)

    def _consult(
        self, before: Consulted, seen: Signals, u: Input, weight: Array
    ) -> tuple[Consulted, Array, Array, Array]:
        """The circuit after the step, its voltage at rest, the state of charge that the voltage tells, and features."""
        assert self.base is not None
        model = self.base.circuit
        after, simulated = model.step(before.state, u)
        soc = simulated.soc
        at_rest = model.ocv(soc, u.temperature)
        overpotential = simulated.voltage - at_rest
        surprise = seen.voltage - simulated.voltage
        excess = before.excess.after(overpotential, surprise, u.dt, weight)
        surprise = surprise - excess.share * overpotential
        slope = (model.ocv(soc + 0.01, u.temperature) - model.ocv(soc - 0.01, u.temperature)) / 0.02
        moved = jnp.clip(surprise / jnp.maximum(slope, SMALLEST_SLOPE), -FURTHEST, FURTHEST)
        extra = [jnp.tanh(surprise / 0.02), jnp.tanh(surprise / 0.2), moved / 0.1]
        extra += [slope - 1.0, overpotential / 0.1, excess.share / OTHER]
        return Consulted(after, excess), at_rest, soc + moved, jnp.concatenate([jnp.stack(extra), after.pairs / 0.1])


def _inputs(circuit: Thevenin | None) -> int:
    """How many numbers the network sees."""
    return FEATURES + len(SOC_FEATURES) + 2 + (0 if circuit is None else 6 + circuit.pairs)
